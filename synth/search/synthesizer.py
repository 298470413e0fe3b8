"""The main job: the best schedule found for a problem, with a proof of how far from optimal it can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf

from synth.certificate import Certificate, Provenance, Status
from synth.errors import BackendError, InputError
from synth.free_maps import open_placements, placement_name
from synth.graph import check_size
from synth.memory import feasible_placements
from synth.placement import PlacementKind
from synth.problem import Problem
from synth.schedule import Metrics, Schedule, measure
from synth.search.contest import Report, search_all
from synth.search.driver import Search, Solver
from synth.search.gathering import SEARCH_SHARE, gather
from synth.search.robust import Robustness, most_robust
from synth.search.solving import MILP
from synth.search.standing import HEARTBEAT_S, NEAR_BEST, Incumbent
from synth.simulate import LARGEST_SIGMA

MOST_WORKERS = 1024
"""More threads than any machine of today runs."""

MAPS_SHARE, LONGEST_MAPS_S = 0.05, 5.0
"""The share of the time limit, and the seconds, that finding free maps may take at most."""

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
    """A verified schedule, what is proved of it, how it was found, and what noise does to it if asked.

    ``interrupted`` says that Ctrl-C ended the search before its time.
    """

    schedule: Schedule
    metrics: Metrics
    certificate: Certificate
    provenance: Provenance
    robustness: Robustness | None = None
    interrupted: bool = False

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
    *,
    alternatives: Sequence[Problem] = (),
    robust: float | None = None,
    solver: str = Solver.CPSAT,
) -> Result:
    """Find the best schedule within a time limit, never worse than any baseline that fits the memory.

    Starts from the baselines, tuned list schedules and building blocks, solves small problems as a whole, and
    improves the best starts by annealing; with ``milp``, the counter formulation alone improves the baselines
    and list schedules, where it is small enough. A limit too short to build every baseline leaves out those
    not built yet. Ends early when the bound is met or the rounds are over; with one worker and a limit that
    is not reached, the same seed gives the same schedule. An interrupt (Ctrl-C) ends it with the best so far.

    Parameters
    ----------
    problem
        What to schedule; with placement ``auto`` loop, wave and free maps are searched
        (:mod:`synth.search.contest`).
    time_limit
        Seconds, above 0.
    workers
        Threads, at least 1.
    seed
        Of all random choices, at least 0.
    on_progress
        Called at every better schedule and about every second.
    alternatives
        The same model stated otherwise, with stages cut differently, in the same ticks and bytes: they are
        searched beside the problem, and the result is the best of all.
    robust
        Relative standard deviation of noise on op times: of the schedules found within 1 % of the best value,
        choose the one with the best 95th percentile under it. The search then has 80 % of the time limit at
        most, and such schedules are gathered in the rest; comparing them comes after the time limit.
    solver
        ``cpsat`` or ``milp``.

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
    if solver not in list(Solver):
        raise InputError(f"solver is {solver!r}: give one of {', '.join(Solver)}")
    if solver == Solver.MILP and not problem.is_chain:
        raise InputError("solver is milp: give cpsat for directions, slices or sums of gradients")
    if robust is not None and not 0 <= robust <= LARGEST_SIGMA:
        raise InputError(f"robust is {robust}: give a number from 0 to {LARGEST_SIGMA}")
    statements = (problem, *alternatives)
    for stated in statements:
        check_size(stated)
        if _units(stated) != _units(problem):
            raise InputError("alternatives differ in ranks, microbatches, ticks or objective: give the same")
    begun = time.monotonic()
    deadline = begun + time_limit * (1.0 if robust is None else SEARCH_SHARE)
    maps_s = min(LONGEST_MAPS_S, MAPS_SHARE * time_limit) / len(statements)
    candidates = feasible_placements(
        placed for stated in statements for placed in open_placements(stated, maps_s)
    )

    def make_search(candidate: Problem, report: Report) -> Search:
        return Search(candidate, deadline, workers, seed, report, Solver(solver))

    report = _Reporter(begun, on_progress)
    searches = search_all(candidates, make_search, deadline, report)
    choice = _choose(searches, robust, seed, begun + time_limit, report)
    return _result(searches, statements, choice, Effort(seed, workers, round(time.monotonic() - begun, 3)))


def _units(problem: Problem) -> tuple[object, ...]:
    """What two statements of one model must have in common."""
    return problem.num_ranks, problem.num_microbatches, problem.tick_seconds, problem.objective


@dataclass(frozen=True, slots=True)
class Effort:
    """What a search was given and what it took."""

    seed: int
    workers: int
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class _Choice:
    """The schedule to return, why where noise was asked about, and whether an interrupt came."""

    incumbent: Incumbent
    robustness: Robustness | None
    interrupted: bool


def _choose(
    searches: Sequence[Search], robust: float | None, seed: int, deadline: float, report: Report
) -> _Choice:
    """The best schedule of all searches, or of those that come near it the most robust one."""
    near = _near(searches)
    interrupted = any(search.interrupted for search in searches)
    if robust is None:
        return _Choice(near[0], None, interrupted)
    least = min(search.bound.ticks for search in searches)
    ends = -inf if interrupted else deadline
    try:
        gathered = gather(near[0], robust, seed, ends, lambda step: report(step, near[0].value, least))
        return _Choice(*most_robust(_of_one_value([*near, *gathered]), robust, seed), interrupted)
    except KeyboardInterrupt:  # the one with the best value stays
        return _Choice(near[0], None, interrupted=True)


def _result(
    searches: Sequence[Search], statements: Sequence[Problem], choice: _Choice, effort: Effort
) -> Result:
    incumbent = choice.incumbent
    best = next(search for search in searches if search.problem == incumbent.schedule.problem)
    metrics = measure(incumbent.schedule)
    value = metrics.value(best.problem.objective)
    bound = min((search.bound for search in searches), key=lambda bound: bound.ticks)
    if bound.ticks > value:
        raise BackendError(f"the bound {bound.ticks} ({bound.argument}) is above a verified value, {value}")
    argument = f"{bound.name}: {bound.argument}"
    searched = [search.problem for search in searches]
    if len(statements) > 1:
        names = ", ".join(f"{placed.num_stages} stages {placement_name(placed)}" for placed in searched)
        argument = f"least over the chunks and placements searched ({names}); {argument}"
    elif statements[0].placement.kind is PlacementKind.AUTO:
        names = ", ".join(map(placement_name, searched))
        argument = f"least over the placements searched ({names}); {argument}"
    certificate = Certificate(
        objective=best.problem.objective, value=value, lower_bound=bound.ticks, bound_from=argument
    )
    counted = best.solver is Solver.MILP or incumbent.method == MILP
    name, package = ("highs", "highspy") if counted else ("cp-sat", "ortools")
    provenance = Provenance(
        method=incumbent.method,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("pipesynth"),
        solver=name if best.used_solver else "",
        solver_version=version(package) if best.used_solver else "",
        seed=effort.seed,
        workers=effort.workers,
        wall_seconds=effort.wall_seconds,
    )
    return Result(
        schedule=incumbent.schedule,
        metrics=metrics,
        certificate=certificate,
        provenance=provenance,
        robustness=choice.robustness,
        interrupted=choice.interrupted,
    )


def _near(searches: Sequence[Search]) -> list[Incumbent]:
    """The schedules of all searches that come near the best value, the best first."""
    return _of_one_value([incumbent for search in searches for incumbent in search.near])


def _of_one_value(incumbents: Sequence[Incumbent]) -> list[Incumbent]:
    """Those that come near the best value, the best first."""
    most = (1 + NEAR_BEST) * min(incumbent.value for incumbent in incumbents)
    near = [incumbent for incumbent in incumbents if incumbent.value <= most]
    return sorted(near, key=lambda incumbent: incumbent.value)


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
