"""Searches for sweeps to run in their worker processes: at once, failing, dying, waiting."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

from synth.baselines import BASELINES, baseline_orders
from synth.bounds import best_bound
from synth.certificate import Certificate, Provenance
from synth.errors import BaselineUndefinedError, InfeasibleError, NoScheduleFoundError
from synth.frontier.worker import Termination, find_point
from synth.memory import feasible_placements, serial_orders
from synth.ops import RankOrders
from synth.placement import PlacementKind
from synth.problem import Objective, OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import fits, measure, peak_memory_bytes
from synth.search.synthesizer import Progress, Result
from synth.timing import schedule_orders

BAD_LIMIT = 6
"""Where the searches of this module go wrong."""


def unit_v(num_ranks: int = 4, num_microbatches: int = 8) -> Problem:
    """F = B = W = 1 per chunk in a V, activations held until W: 1F1B holds 2 p."""
    stage = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), B=OpCost(ticks=1), W=OpCost(ticks=1, free_bytes=1))
    return uniform_problem(
        num_ranks,
        num_microbatches,
        stage,
        chunks=2,
        kind=PlacementKind.V,
        objective=Objective.RANK_SPAN,
        name="unit V",
    )


def quick(problem: Problem, *, on_progress=None, time_limit=1.0, workers=1, seed=0, **_) -> Result:
    """The best baseline that fits, else one microbatch at a time."""
    placed = feasible_placements(problem.placements)[0]
    schedule = min((schedule_orders(placed, orders) for orders in _fitting(placed)), key=lambda s: s.value)
    bound = best_bound(placed)
    certificate = Certificate(
        objective=placed.objective, value=schedule.value, lower_bound=bound.ticks, bound_from=bound.name
    )
    provenance = Provenance(method="quick", created="2026-01-01T00:00:00+00:00", tool_version="0", seed=seed)
    if on_progress:
        on_progress(Progress(0.0, "quick", schedule.value, bound.ticks))
    return Result(
        schedule=schedule, metrics=measure(schedule), certificate=certificate, provenance=provenance
    )


def _fitting(problem: Problem) -> list[RankOrders]:
    found = [serial_orders(problem)]
    for name in BASELINES:
        try:
            orders = baseline_orders(name, problem)
        except BaselineUndefinedError:
            continue
        if fits(problem, peak_memory_bytes(problem, orders)):
            found.append(orders)
    return found


def _is_bad(problem: Problem) -> bool:
    return problem.memory_limit_bytes is not None and problem.memory_limit_bytes[0] == BAD_LIMIT


def failing(problem: Problem, **options) -> Result:
    if _is_bad(problem):
        raise ZeroDivisionError("division by zero")
    return quick(problem, **options)


def dying(problem: Problem, **options) -> Result:
    if _is_bad(problem):
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(problem, **options)


def finding_nothing(problem: Problem, **options) -> Result:
    if _is_bad(problem):
        raise NoScheduleFoundError("no schedule was found within 1 s")
    return quick(problem, **options)


def worse_with_more(problem: Problem, **options) -> Result:
    """As if more memory confused the search: from the bad limit on, one microbatch at a time."""
    limits = problem.memory_limit_bytes
    assert limits is not None
    return quick(problem, **options) if limits[0] < BAD_LIMIT else _serial(problem, **options)


def _serial(problem: Problem, **options) -> Result:
    quickly = quick(problem, **options)
    schedule = schedule_orders(problem, serial_orders(problem))
    certificate = Certificate(
        objective=problem.objective,
        value=schedule.value,
        lower_bound=quickly.certificate.lower_bound,
        bound_from=quickly.certificate.bound_from,
    )
    return replace(quickly, schedule=schedule, metrics=measure(schedule), certificate=certificate)


def waiting(problem: Problem, *, on_progress=None, **options) -> Result:
    """Has a schedule, says so, and goes on until it is interrupted."""
    found = quick(problem, **options)
    try:
        on_progress(Progress(0.0, "waiting", found.value, found.lower_bound))
        time.sleep(600)
    except KeyboardInterrupt:
        return found
    raise InfeasibleError(["nobody came"], [0])


class InThisProcess:
    """Stands in for the worker processes of a sweep where it is not they that matter."""

    def __init__(self, task, threads, limits, on_progress, on_point):
        self.points = {}
        self._task, self._limits = task, limits
        self._on_progress, self._on_point = on_progress, on_point

    def run(self) -> bool:
        for limit in self._limits:
            before = signal.getsignal(signal.SIGTERM)
            self.points[limit] = find_point(self._task, limit, self._report(limit), Termination())
            signal.signal(signal.SIGTERM, before)
            self._on_point(self.points[limit])
        return False

    def _report(self, limit):
        return lambda progress: self._on_progress(limit, progress) if self._on_progress else None
