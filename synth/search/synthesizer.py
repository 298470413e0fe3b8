"""The main job: the best schedule found for a problem, with a proof of how far from optimal it can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from synth.certificate import Certificate, Provenance, Status
from synth.errors import BackendError, InputError
from synth.graph import check_size
from synth.memory import feasible_placements
from synth.placement import PlacementKind
from synth.problem import Problem
from synth.schedule import Metrics, Schedule, measure
from synth.search.driver import HEARTBEAT_S, Search

MOST_WORKERS = 1024
"""More threads than any machine of today runs."""

LARGEST_SEED = 2**31 - 1
"""The largest that every random generator behind the search takes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands.

    Parameters
    ----------
    elapsed_s
        Seconds since it began.
    step
        What it is doing, or what found the value.
    value, lower_bound
        Ticks; the value is None until there is a schedule.
    """

    elapsed_s: float
    step: str
    value: int | None
    lower_bound: int

    @property
    def gap(self) -> float | None:
        """``(value - lower_bound) / value``."""
        return None if self.value is None else (self.value - self.lower_bound) / self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A verified schedule, what is proved of it, and how it was found."""

    schedule: Schedule
    metrics: Metrics
    certificate: Certificate
    provenance: Provenance

    @property
    def value(self) -> int:
        """The objective's value, ticks."""
        return self.certificate.value

    @property
    def lower_bound(self) -> int:
        """What no schedule can beat, ticks."""
        return self.certificate.lower_bound

    @property
    def gap(self) -> float:
        """``(value - lower_bound) / value``."""
        return self.certificate.gap

    @property
    def status(self) -> Status:
        """``optimal`` where the gap is 0."""
        return self.certificate.status


def synthesize(
    problem: Problem,
    time_limit: float = 60.0,
    workers: int = 2,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Find the best schedule within a time limit, never worse than any baseline that fits the memory.

    Starts from the baselines, tuned list schedules and building blocks, and improves the best of them by
    annealing; a limit too short to build every baseline leaves out those not built yet. Ends early when the
    bound is met or the rounds are over; with one worker and a limit that is not reached, the same seed
    gives the same schedule. An interrupt (Ctrl-C) ends it with the best so far.

    Parameters
    ----------
    problem
        What to schedule; with placement ``auto`` every named placement that fits is searched in turn.
    time_limit
        Seconds, above 0.
    workers
        Threads, at least 1.
    seed
        Of all random choices, at least 0.
    on_progress
        Called at every better schedule and about every second.

    Raises
    ------
    InfeasibleError
        When no schedule fits the memory limits.
    """
    if not 0 < time_limit < float("inf"):
        raise InputError(f"time_limit is {time_limit}: give a finite number of seconds above 0")
    if not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"workers is {workers}: give a count from 1 to {MOST_WORKERS}")
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed is {seed}: give an integer from 0 to {LARGEST_SEED}")
    check_size(problem)
    begun = time.monotonic()
    candidates = feasible_placements(problem)
    share = time_limit / len(candidates)
    searches: list[Search] = []
    report = _Reporter(begun, on_progress)
    for number, candidate in enumerate(candidates):
        search = Search(candidate, begun + share * (number + 1), workers, seed, report)
        search.run()
        searches.append(search)
        if search.interrupted:
            break
    return _result(searches, problem, Effort(seed, workers, round(time.monotonic() - begun, 3)))


@dataclass(frozen=True, slots=True)
class Effort:
    """What a search was given and what it took."""

    seed: int
    workers: int
    wall_seconds: float


def _result(searches: Sequence[Search], problem: Problem, effort: Effort) -> Result:
    best = min(searches, key=lambda search: search.incumbent.value)
    metrics = measure(best.incumbent.schedule)
    value = metrics.value(best.problem.objective)
    bound = min((search.bound for search in searches), key=lambda bound: bound.ticks)
    if bound.ticks > value:
        raise BackendError(f"the bound {bound.ticks} ({bound.argument}) is above a verified value, {value}")
    argument = f"{bound.name}: {bound.argument}"
    if problem.placement.kind is PlacementKind.AUTO:
        names = ", ".join(search.problem.placement.kind for search in searches)
        argument = f"least over the placements searched ({names}); {argument}"
    certificate = Certificate(
        objective=best.problem.objective, value=value, lower_bound=bound.ticks, bound_from=argument
    )
    provenance = Provenance(
        method=best.incumbent.method,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("pipesynth"),
        solver="cp-sat" if best.used_solver else "",
        solver_version=version("ortools") if best.used_solver else "",
        seed=effort.seed,
        workers=effort.workers,
        wall_seconds=effort.wall_seconds,
    )
    return Result(
        schedule=best.incumbent.schedule, metrics=metrics, certificate=certificate, provenance=provenance
    )


class _Reporter:
    """Hands progress on: every better value, and otherwise no more often than the heartbeat."""

    def __init__(self, begun: float, on_progress: Callable[[Progress], None] | None) -> None:
        self._begun, self._on_progress = begun, on_progress
        self._last = begun
        self._best: int | None = None

    def __call__(self, step: str, value: int | None, lower_bound: int) -> None:
        now = time.monotonic()
        better = value is not None and (self._best is None or value < self._best)
        if self._on_progress and (better or now - self._last >= HEARTBEAT_S):
            self._last = now
            self._best = value if better else self._best
            self._on_progress(Progress(now - self._begun, step, self._best, lower_bound))
