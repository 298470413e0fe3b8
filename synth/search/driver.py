"""The main job: the best schedule found for a problem, with a proof of how far from optimal it can be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice, product

from synth.baselines import BASELINES, baseline_orders
from synth.bounds import Bound, best_bound, one_rank_bounds
from synth.building_block import unroll
from synth.certificate import Certificate, Provenance, Status
from synth.cpsat import SolveParams
from synth.errors import BackendError, BaselineUndefinedError, InfeasibleError, InputError
from synth.graph import build_graph, divided_in_orders
from synth.memory import check_feasible, serial_orders
from synth.ops import RankOrders
from synth.placement import PlacementKind, place
from synth.polling import call_and_watch
from synth.problem import Problem
from synth.schedule import Metrics, Schedule, fits, measure, peak_memory_bytes
from synth.search.annealer import Annealer
from synth.search.blocks import find_block
from synth.search.greedy import greedy_orders
from synth.timing import schedule_orders
from synth.verify import verify_schedule

BLOCK_RESOLUTIONS = (1, 2, 4)
"""Grid slots in the shortest op of a building block, coarse to fine: coarse blocks are found sooner."""

BLOCK_SLACKS = (0.0, 0.05, 0.15)
"""How much longer than the busiest rank's work a building block's period may be."""

BLOCK_WORK_LIMIT = 4.0
"""Deterministic work per building block, about as many seconds."""

PROOF_SHARE, BLOCK_SHARE = 0.4, 0.6
"""Shares of the time limit after which no more bounds are proved, and no more building blocks searched."""

PROOF_WORK_LIMIT = 60.0
"""Deterministic work per rank in proving a bound, about as many seconds."""

LARGEST_BLOCK = 200
"""Problems with more ops than this per microbatch have no block searched: CP-SAT finds none in time."""

FIRST_ROUND_MOVES = 40
"""Annealing moves per op in the first round; every further round doubles them."""

ROUNDS = 9
"""Annealing rounds before the search is over however much time is left."""

OP_MOVES_PER_SLICE = 20_000_000
"""Annealing moves between two looks at the clock, times ops: a move costs up to as much as there are ops."""

HEARTBEAT_S = 1.0
"""Seconds between two reports when nothing better is found."""

ANNEALED = ", annealed"
"""What annealing adds to the method's name."""

HOT, COLD = 0.3, 0.01
"""First and last annealing temperature, as shares of the mean op's ticks."""


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

    Starts from the baselines, a list schedule and building blocks, and improves the best of them by
    annealing. Ends early when the bound is met or the rounds are over; with one worker and a limit that is
    not reached, the same seed gives the same schedule. An interrupt (Ctrl-C) ends it with the best so far.

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
    if workers < 1 or seed < 0:
        raise InputError(f"workers is {workers} and seed {seed}: give at least 1 worker and a seed ≥ 0")
    begun = time.monotonic()
    candidates = _placements(problem)
    share = time_limit / len(candidates)
    results: list[_Search] = []
    infeasible: list[InfeasibleError] = []
    report = _Reporter(begun, on_progress)
    for number, candidate in enumerate(candidates):
        try:
            check_feasible(candidate)
        except InfeasibleError as error:
            infeasible.append(error)
            continue
        search = _Search(candidate, begun + share * (number + 1), workers, seed, report)
        search.run()
        results.append(search)
        if search.interrupted:
            break
    if not results:
        raise infeasible[0]
    searched_all = len(results) + len(infeasible) == len(candidates)
    return _result(results, searched_all, Effort(seed, workers, round(time.monotonic() - begun, 3)))


def _placements(problem: Problem) -> list[Problem]:
    """The problem under every placement to search: its own, or for ``auto`` the different named ones."""
    if problem.placement.kind is not PlacementKind.AUTO:
        return [problem]
    kinds = [PlacementKind.LOOP]
    if problem.num_stages > problem.num_ranks > 1:
        kinds.append(PlacementKind.WAVE)
    return [problem.with_placement(place(kind, problem.num_ranks, problem.num_stages)) for kind in kinds]


@dataclass(frozen=True, slots=True)
class Effort:
    """What a search was given and what it took."""

    seed: int
    workers: int
    wall_seconds: float


def _result(searches: Sequence[_Search], searched_all: bool, effort: Effort) -> Result:
    best = min(searches, key=lambda search: search.incumbent.value)
    metrics = measure(best.incumbent.schedule)
    value = metrics.value(best.problem.objective)
    bound = min((search.bound for search in searches), key=lambda bound: bound.ticks)
    argument = f"{bound.name}: {bound.argument}"
    if len(searches) > 1 or not searched_all:
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
        self._value: int | None = None

    def __call__(self, step: str, value: int | None, lower_bound: int) -> None:
        now = time.monotonic()
        if self._on_progress and (value != self._value or now - self._last >= HEARTBEAT_S):
            self._last, self._value = now, value
            self._on_progress(Progress(now - self._begun, step, value, lower_bound))


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A verified schedule, its value in ticks, and how it was found."""

    schedule: Schedule
    value: int
    method: str


@dataclass(frozen=True, slots=True)
class _Start:
    """Orders within the limits to improve, their value in ticks, and how they were found."""

    orders: RankOrders
    value: int
    method: str


class _SearchOver(Exception):
    """The deadline has passed, or the bound is met, and there is a schedule to return."""


class _Search:
    """The search for one placement: offers schedules to the incumbent until time or ideas run out."""

    def __init__(
        self,
        problem: Problem,
        deadline: float,
        workers: int,
        seed: int,
        report: Callable[[str, int | None, int], None],
    ) -> None:
        self.problem = problem
        self.bound: Bound = best_bound(problem)
        self.interrupted = False
        self.used_solver = False
        self._begun, self._deadline = time.monotonic(), deadline
        self._workers, self._seed = workers, seed
        self._report = report
        self._best: Incumbent | None = None
        self._starts: list[_Start] = []
        self._stop = threading.Event()

    @property
    def incumbent(self) -> Incumbent:
        """The best schedule so far; there is one once :meth:`run` has returned."""
        assert self._best is not None
        return self._best

    def run(self) -> None:
        """Search until the bound is met, time is up, the rounds are over, or an interrupt comes."""
        try:
            for orders, method in self._constructed():
                self._offer(orders, method)
            self._prove()
            for orders, method in self._blocks():
                self._offer(orders, method)
            self._anneal()
        except _SearchOver:
            pass
        except KeyboardInterrupt:
            self.interrupted = True
        if self._best is None:
            self._offer(serial_orders(self.problem), "one microbatch at a time")

    def _offer(self, orders: RankOrders, method: str) -> None:
        """Take orders that fit as a start, and as the incumbent where they are the best and verified."""
        if not fits(self.problem, peak_memory_bytes(self.problem, orders)):
            return
        schedule = schedule_orders(self.problem, orders)
        value = schedule.value
        self._starts.append(_Start(orders, value, method))
        if self._best is None or value < self._best.value:
            violations = verify_schedule(schedule)
            if violations:
                raise BackendError(f"{method} gave a schedule that breaks a rule: {violations[0]}")
            self._best = Incumbent(schedule, value, method)
            self._report(method, value, self.bound.ticks)

    def _go_on(self, step: str) -> None:
        """Report the step under way; end the search where nothing more can or may be found."""
        self._report(step, None if self._best is None else self._best.value, self.bound.ticks)
        if self._best and (self._best.value <= self.bound.ticks or self._seconds_left() <= 0):
            raise _SearchOver

    def _watched(self, step: str, construct: Callable[[], RankOrders]) -> RankOrders:
        """Construct orders, unless the search ends before they are done."""
        self._go_on(step)
        return call_and_watch(construct, partial(self._go_on, step))

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def _constructed(self) -> Iterator[tuple[RankOrders, str]]:
        """Orders built from nothing, without a solver: baselines and a list schedule."""
        for name in BASELINES:
            with suppress(BaselineUndefinedError):
                yield self._watched(name, partial(baseline_orders, name, self.problem)), name
        yield self._watched("list schedule", partial(greedy_orders, self.problem)), "list schedule"

    def _prove(self) -> None:
        """Raise the bound by what a solver can prove in its share of the time."""
        step = "bound from one rank"
        self._go_on(step)
        for bound in one_rank_bounds(self.problem, self._solve_params(step, PROOF_SHARE, PROOF_WORK_LIMIT)):
            self.bound = max(self.bound, bound, key=lambda bound: bound.ticks)
            self._go_on(step)

    def _solve_params(self, step: str, share: float, work_limit: float) -> SolveParams:
        """Limits of a solver that may work until a share of the time limit has passed."""
        ends = self._begun + share * (self._deadline - self._begun)
        return SolveParams(
            time_limit_s=max(0.0, ends - time.monotonic()),
            work_limit=work_limit,
            workers=self._workers,
            seed=self._seed,
            on_wait=partial(self._go_on, step),
        )

    def _blocks(self) -> Iterator[tuple[RankOrders, str]]:
        ops = sum(3 if costs.can_divide else 2 for costs in self.problem.stages)
        if ops > LARGEST_BLOCK or self.problem.num_microbatches < 2:
            return
        shortest = min(cost.ticks for costs in self.problem.stages for _, cost in costs.offered)
        for resolution, slack in product(BLOCK_RESOLUTIONS, BLOCK_SLACKS):
            step = f"building block with {slack:.0%} slack, {resolution} slots in the shortest op"
            self._go_on(step)
            params = self._solve_params(step, BLOCK_SHARE, BLOCK_WORK_LIMIT)
            if params.time_limit_s <= 0:
                return
            self.used_solver = True
            block = find_block(self.problem, max(1, shortest // resolution), slack, params)
            if block is not None:
                yield unroll(block, self.problem), "building block"

    def _anneal(self) -> None:
        """Rounds of annealing: each doubles the moves and halves the starts, down to one for each worker."""
        with ThreadPoolExecutor(self._workers) as executor:
            for number in range(ROUNDS):
                self._go_on(f"annealing, round {number + 1} of {ROUNDS}")
                starts = sorted(self._starts, key=lambda start: start.value)
                kept = max(self._workers, len(starts) >> number)
                runs = list(islice(cycle(starts), kept))
                self._starts = starts[:kept]
                futures = [
                    executor.submit(self._anneal_once, start, number, self._seed + ROUNDS * n + number)
                    for n, start in enumerate(runs)
                ]
                self._collect(futures, f"annealing, round {number + 1} of {ROUNDS}")

    def _collect(self, futures: list[Future[_Start]], step: str) -> None:
        """Wait for annealing runs in turn and offer what they found; on an interrupt, what they have."""
        try:
            for future in futures:
                while not wait([future], timeout=HEARTBEAT_S).done:
                    self._report(step, self.incumbent.value, self.bound.ticks)
                self._offer(future.result().orders, future.result().method)
                if self._seconds_left() <= 0 or self.incumbent.value <= self.bound.ticks:
                    self._stop.set()
        except KeyboardInterrupt:
            self.interrupted = True
            self._stop.set()
            for future in futures:
                self._offer(future.result().orders, future.result().method)
        if self._stop.is_set():
            raise _SearchOver

    def _anneal_once(self, start: _Start, number: int, seed: int) -> _Start:
        """One run of annealing, in slices, until its moves are spent or the search is over."""
        graph = build_graph(self.problem, divided_in_orders(self.problem, start.orders))
        annealer = Annealer(graph, graph.orders_to_ids(start.orders), seed)
        mean_ticks = float(graph.ticks.mean())
        moves = graph.num_ops * FIRST_ROUND_MOVES * 2**number
        slices = max(1, moves * graph.num_ops // OP_MOVES_PER_SLICE)
        for n in range(slices):
            if self._stop.is_set() or self._seconds_left() <= 0 or annealer.best_value <= self.bound.ticks:
                break
            hot, cold = (mean_ticks * HOT * (COLD / HOT) ** (k / slices) for k in (n, n + 1))
            annealer.run(max(1, moves // slices), hot, cold)
        if annealer.best_value >= start.value:
            return start
        method = start.method if start.method.endswith(ANNEALED) else start.method + ANNEALED
        return _Start(graph.ids_to_orders(annealer.best_ids), annealer.best_value, method)
