"""Starts built from nothing, without a solver: baselines, crossing lines, list schedules plain and tuned."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synth.baselines import BASELINES, baseline_orders
from synth.errors import BaselineUndefinedError
from synth.graph import build_graph, divided_backwards
from synth.ops import RankOrders
from synth.polling import call_and_watch
from synth.problem import Problem
from synth.search.crossing_lines import NAME as CROSSING_LINES
from synth.search.crossing_lines import crossing_lines, run_lengths
from synth.search.greedy import greedy_orders
from synth.search.standing import Standing, Start
from synth.search.tuning import RuleSearch

TUNING_SHARE = 0.1
"""Share of the time limit that tuning the rules of list schedules may take."""

MOST_TUNING_SAMPLES, OP_SAMPLES = 10_000, 20_000_000
"""List schedules that a worker tries at most, and how many times the ops they have: two to four seconds."""

TUNING_SLICE = 16
"""List schedules between two looks at the clock."""

MOST_TUNED = 3
"""So many of the list schedules that a worker has tuned are starts."""

MANY_FORWARDS = 10_000
"""With more forwards than this only one way of crossing lines is tried: it takes seconds."""

GRACE_S = 0.25
"""Seconds by which the baselines may overrun the time limit: however short it is, they are to be beaten."""


@dataclass(frozen=True, slots=True)
class Construction:
    """A way to build orders from nothing, and the seconds by which it may overrun the time limit."""

    method: str
    build: Callable[[], RankOrders]
    grace_s: float = 0.0


def constructions(problem: Problem) -> deque[Construction]:
    """How to build orders from nothing, without a solver: baselines, list schedules, crossing lines."""
    # The best baselines come last there; first here, few are verified.
    ways = [
        Construction(name, partial(baseline_orders, name, problem), GRACE_S)
        for name in reversed(tuple(BASELINES))
    ]
    ways += [
        Construction(step, partial(greedy_orders, problem, divided)) for divided, step in _backwards(problem)
    ]
    lengths = run_lengths(problem.num_ranks)
    if problem.num_stages * problem.num_microbatches > MANY_FORWARDS:
        del lengths[1:]
    ways += [Construction(CROSSING_LINES, partial(crossing_lines, problem, length)) for length in lengths]
    return deque(ways)


def construct(standing: Standing, to_build: deque[Construction]) -> None:
    """Build and offer what has not been built yet."""
    while to_build:
        way = to_build[0]
        with suppress(BaselineUndefinedError):
            standing.offer(standing.watched(way.method, way.build, way.grace_s), way.method)
        to_build.popleft()


def tune(standing: Standing) -> None:
    """Offer the best list schedules that every worker finds by tuning their rules."""
    step = "tuning the rules of list schedules"
    standing.go_on(step)
    standing.stop.clear()  # an earlier run may have been left half-way
    ends = standing.share_ends(TUNING_SHARE)

    def tune_all() -> list[Start]:
        with ThreadPoolExecutor(standing.workers) as executor:
            found = executor.map(partial(_tune_once, standing, ends=ends), range(standing.workers))
            return [start for starts in found for start in starts]

    for start in call_and_watch(tune_all, partial(standing.go_on, step), standing.stop.set):
        standing.offer(start.orders, start.method)


def _tune_once(standing: Standing, worker: int, ends: float) -> list[Start]:
    """One worker's share of tuning: the best list schedules of either way to divide backwards."""
    found = []
    ways = _backwards(standing.problem)
    begun = time.monotonic()
    for number, (divided, name) in enumerate(ways, start=1):
        graph = build_graph(standing.problem, divided)
        tuning = RuleSearch(graph, standing.seed + worker)
        samples = min(MOST_TUNING_SAMPLES, max(1, OP_SAMPLES // graph.num_ops)) // len(ways)
        way_ends = begun + (ends - begun) * number / len(ways)
        for _ in range(0, samples, TUNING_SLICE):
            if standing.stop.is_set() or time.monotonic() >= way_ends:
                break
            tuning.run(TUNING_SLICE)
            if tuning.best and tuning.best[0][0] <= standing.bound.ticks:
                break
        for value, ids in tuning.best[:MOST_TUNED]:
            found.append(Start(graph.ids_to_orders(ids), value, f"tuned {name}"))
    return found


def _backwards(problem: Problem) -> list[tuple[NDArray[np.bool_], str]]:
    """The ways to divide backwards that list schedules follow, and what these are called."""
    ways = [(divided_backwards(problem), "list schedule")]
    cheaper = _cheaper_way(problem)
    if not np.array_equal(cheaper, ways[0][0]):
        ways.append((cheaper, "list schedule with the cheaper backwards"))
    return ways


def _cheaper_way(problem: Problem) -> NDArray[np.bool_]:
    """Which [stage, microbatch] backwards to divide when only their ticks count."""
    divided = []
    for costs in problem.stages:
        halves = costs.B.ticks + costs.W.ticks if costs.B and costs.W else None
        divided.append(halves is not None and (costs.BW is None or halves <= costs.BW.ticks))
    return np.repeat(np.array(divided)[:, None], problem.num_microbatches, axis=1)
