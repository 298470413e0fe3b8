"""The search for one placement: starts of every kind, a bound, and annealing while there is time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from synth.baselines import BASELINES, baseline_orders
from synth.bounds import Bound, best_bound, counter_bounds, one_rank_bounds
from synth.building_block import unroll
from synth.cpsat import SolveParams
from synth.errors import BackendError, BaselineUndefinedError, NoScheduleFoundError
from synth.exact.answer import ExactAnswer, FoundOrders
from synth.exact.milp import MOST_COUNTERS, finest_slots, solve_counters
from synth.exact.slots import Rounding, Slots
from synth.exact.whole_horizon import is_supported, solve_whole_horizon
from synth.graph import build_graph, divided_backwards, divided_in_orders
from synth.memory import serial_orders, smallest_limits_bytes
from synth.ops import RankOrders
from synth.polling import call_and_watch
from synth.problem import Problem
from synth.schedule import Schedule, fits, peak_memory_bytes
from synth.search.annealer import Annealer
from synth.search.blocks import find_blocks
from synth.search.greedy import greedy_orders
from synth.search.tuning import RuleSearch
from synth.timing import schedule_orders
from synth.verify import verify_schedule

TUNING_SHARE = 0.1
"""Share of the time limit that tuning the rules of list schedules may take."""

MOST_TUNING_SAMPLES, OP_SAMPLES = 10_000, 20_000_000
"""List schedules that a worker tries at most, and how many times the ops they have: two to four seconds."""

TUNING_SLICE = 16
"""List schedules between two looks at the clock."""

MOST_TUNED = 3
"""So many of the list schedules that a worker has tuned are starts."""

BLOCKS = (
    *((1, 1, slack) for slack in (0.0, 0.05, 0.15)),
    (2, 1, 0.1),
    *((1, resolution, slack) for resolution in (2, 4) for slack in (0.0, 0.05, 0.15)),
)
"""Building blocks to search: how many take turns, grid slots in the shortest op, and how much longer a period
is than the busiest rank's work. Coarse ones are found sooner; two in turn fit where one does not."""

BLOCK_WORK_LIMIT = 4.0
"""Deterministic work per building block; a unit takes one to three seconds."""

PROOF_SHARE, BLOCK_SHARE = 0.15, 0.2
"""Shares of the time limit that each kind of proof, and searching building blocks, may take."""

PROOF_WORK_LIMIT = 60.0
"""Deterministic work per rank in proving a bound; a unit takes one to three seconds."""

MOST_EXACT_OPS = 200
"""Problems with more ops than this are not solved as a whole: CP-SAT proves nothing of them in a minute."""

EXACT_SHARE, EXACT_WORK_LIMIT = 0.4, 30.0
"""Share of the time limit, and deterministic work, that solving a problem as a whole may take."""

MILP_SHARE = 0.9
"""Share of the time left that the MILP may take: building its models is not watched."""

COUNT_SHARE, FEW_COUNTERS = 0.6, 8000
"""Share of the time left that the MILP may take beside other ways, on a grid that is exact with so few."""

COUNTERS_PER_SECOND = 1000
"""Counters that a MILP may have for every second left, so that its models are built and solved in time."""

LARGEST_BLOCK = 200
"""Problems with more ops than this per microbatch have no block searched: CP-SAT finds none in time."""

MOST_ANNEALED = 8
"""The best so many starts are annealed in the first round."""

FIRST_ROUND_MOVES, GROWTH = 150, 1.5
"""Annealing moves per op in the first round, and by how much every further round has more."""

ROUNDS = 16
"""Annealing rounds before the search is over however much time is left."""

OP_MOVES_PER_SLICE = 50_000_000
"""Annealing moves between two looks at the clock, times ops: a move costs up to as much as there are ops."""

NEAR_BEST, MOST_NEAR = 0.01, 8
"""How many schedules are kept whose value is within a share of the best: a more robust one may be chosen."""

GRACE_S = 0.25
"""Seconds by which the baselines may overrun the time limit: however short it is, they are to be beaten."""

HEARTBEAT_S = 1.0
"""Seconds between two reports when nothing better is found."""

MILP = "counter MILP"
"""The name of the counter formulation's bounds and schedules."""

ANNEALED = ", annealed"
"""What annealing adds to the method's name."""

HOTS = (0.1, 0.3, 0.03, 1.0)
"""First temperatures of annealing in turn, as shares of the mean op's ticks: large problems need low ones."""

COLD = 0.1
"""Last temperature, as a share of the first."""


class Solver(StrEnum):
    """What improves the constructed schedules (FORMATS.md, ``--solver``)."""

    CPSAT = "cpsat"
    """CP-SAT and annealing."""
    MILP = "milp"
    """The counter formulation through PuLP and HiGHS."""


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


@dataclass(frozen=True, slots=True)
class _Construction:
    """A way to build orders from nothing, and the seconds by which it may overrun the time limit."""

    method: str
    build: Callable[[], RankOrders]
    grace_s: float = 0.0


def _cheaper_way(problem: Problem) -> NDArray[np.bool_]:
    """Which [stage, microbatch] backwards to divide when only their ticks count."""
    divided = []
    for costs in problem.stages:
        halves = costs.B.ticks + costs.W.ticks if costs.B and costs.W else None
        divided.append(halves is not None and (costs.BW is None or halves <= costs.BW.ticks))
    return np.repeat(np.array(divided)[:, None], problem.num_microbatches, axis=1)


class _SearchOver(Exception):
    """The deadline has passed, or the bound is met, and there is a schedule to return."""


class Search:
    """The search for one placement: offers schedules to the incumbent until time or ideas run out.

    Parameters
    ----------
    problem
        What to schedule; some schedule fits its limits.
    deadline
        When to end, in seconds of the monotonic clock.
    workers, seed
        Threads, and the seed of all random choices.
    report
        Told of every step: what it is, the best value so far, the bound.
    solver
        What improves the constructed schedules.
    """

    def __init__(
        self,
        problem: Problem,
        deadline: float,
        workers: int,
        seed: int,
        report: Callable[[str, int | None, int], None],
        solver: Solver = Solver.CPSAT,
    ) -> None:
        self.problem = problem
        self.solver = solver
        self.bound: Bound = best_bound(problem)
        self.interrupted = False
        self.used_solver = False
        self._begun, self._deadline = time.monotonic(), deadline
        self._workers, self._seed = workers, seed
        self._report = report
        self._best: Incumbent | None = None
        self._starts: list[_Start] = []
        self._rival: int | None = None
        self._to_build = self._constructions()
        self._finished: set[str] = set()
        self._near: list[Incumbent] = []
        self._stop = threading.Event()

    @property
    def near(self) -> tuple[Incumbent, ...]:
        """The best few different schedules within :data:`NEAR_BEST` of the best value, the best first."""
        return tuple(self._near)

    @property
    def is_built(self) -> bool:
        """Whether all that is built from nothing has been."""
        return not self._to_build

    @property
    def incumbent(self) -> Incumbent:
        """The best schedule so far; there is one once :meth:`run` has returned."""
        assert self._best is not None
        return self._best

    def look(self, deadline: float) -> None:
        """Offer only what is built from nothing, until a deadline; :meth:`run` goes on from there."""
        self._begun, self._deadline = time.monotonic(), deadline
        self._carry_out(self._construct)

    def run(self, deadline: float | None = None, rival: int | None = None) -> None:
        """Search until the bound is met, time is up, the rounds are over, or an interrupt comes.

        May be called again, and goes on with what was left.

        Parameters
        ----------
        deadline
            When to end, instead of the deadline given before.
        rival
            The best value of another placement: a bound that meets it ends the search too.
        """
        if deadline is not None:
            self._begun, self._deadline = time.monotonic(), deadline
        self._rival = rival
        if self.solver is Solver.MILP:
            self._carry_out(self._construct, self._milp)
        else:
            self._carry_out(
                self._construct,
                self._tune,
                self._prove,
                self._exact,
                self._count,
                self._offer_blocks,
                self._anneal,
            )

    def _carry_out(self, *steps: Callable[[], None]) -> None:
        try:
            for step in steps:
                if step.__name__ not in self._finished:
                    step()
                    self._finished.add(step.__name__)
        except _SearchOver:
            pass
        except KeyboardInterrupt:
            self.interrupted = True
        if self._best is None:
            self._offer(serial_orders(self.problem), "one microbatch at a time")
        if self._best is None:
            raise NoScheduleFoundError(
                f"no schedule was found within {self.problem.memory_limit_bytes} bytes, and none may exist; "
                f"{list(smallest_limits_bytes(self.problem))} would do"
            )

    def _offer(self, orders: RankOrders, method: str, schedule: Schedule | None = None) -> None:
        """Take orders that fit as a start, and as the incumbent where they are the best and verified.

        Their times are the earliest, unless a schedule of them is given.
        """
        if not fits(self.problem, peak_memory_bytes(self.problem, orders)):
            return
        schedule = schedule or schedule_orders(self.problem, orders)
        value = schedule.value
        self._starts.append(_Start(orders, value, method))
        if self._best is None or value < self._best.value:
            violations = verify_schedule(schedule)
            if violations:
                raise BackendError(f"{method} gave a schedule that breaks a rule: {violations[0]}")
            self._best = Incumbent(schedule, value, method)
            self._report(method, value, self.bound.ticks)
        self._remember(Incumbent(schedule, value, method))

    def _remember(self, found: Incumbent) -> None:
        """Keep a schedule that comes near the best value, unless it is kept already."""
        if any(found.schedule.ranks == known.schedule.ranks for known in self._near):
            return
        most = (1 + NEAR_BEST) * self.incumbent.value
        near = [known for known in (*self._near, found) if known.value <= most]
        self._near = sorted(near, key=lambda known: known.value)[:MOST_NEAR]

    def _go_on(self, step: str, grace_s: float = 0.0) -> None:
        """Report the step under way; end the search where nothing more can or may be found."""
        self._report(step, None if self._best is None else self._best.value, self.bound.ticks)
        beaten = self._rival is not None and self._rival <= self.bound.ticks
        if self._best and (
            beaten or self._best.value <= self.bound.ticks or self._seconds_left() <= -grace_s
        ):
            raise _SearchOver

    def _watched(self, step: str, construct: Callable[[], RankOrders], grace_s: float = 0.0) -> RankOrders:
        """Construct orders, unless the search ends before they are done."""
        self._go_on(step, grace_s)
        return call_and_watch(construct, partial(self._go_on, step, grace_s))

    def _seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def _constructions(self) -> deque[_Construction]:
        """How to build orders from nothing, without a solver: baselines and list schedules."""
        # The best baselines come last there; first here, few are verified.
        ways = [
            _Construction(name, partial(baseline_orders, name, self.problem), GRACE_S)
            for name in reversed(tuple(BASELINES))
        ]
        ways += [
            _Construction(step, partial(greedy_orders, self.problem, divided))
            for divided, step in self._backwards()
        ]
        return deque(ways)

    def _construct(self) -> None:
        """Build and offer what has not been built yet."""
        while self._to_build:
            way = self._to_build[0]
            with suppress(BaselineUndefinedError):
                self._offer(self._watched(way.method, way.build, way.grace_s), way.method)
            self._to_build.popleft()

    def _backwards(self) -> list[tuple[NDArray[np.bool_], str]]:
        """The ways to divide backwards that list schedules follow, and what these are called."""
        ways = [(divided_backwards(self.problem), "list schedule")]
        cheaper = _cheaper_way(self.problem)
        if not np.array_equal(cheaper, ways[0][0]):
            ways.append((cheaper, "list schedule with the cheaper backwards"))
        return ways

    def _tune(self) -> None:
        """Offer the best list schedules that every worker finds by tuning their rules."""
        step = "tuning the rules of list schedules"
        self._go_on(step)
        self._stop.clear()  # an earlier run may have been left half-way
        ends = self._share_ends(TUNING_SHARE)

        def tune() -> list[_Start]:
            with ThreadPoolExecutor(self._workers) as executor:
                found = executor.map(partial(self._tune_once, ends=ends), range(self._workers))
                return [start for starts in found for start in starts]

        for start in call_and_watch(tune, partial(self._go_on, step), self._stop.set):
            self._offer(start.orders, start.method)

    def _tune_once(self, worker: int, ends: float) -> list[_Start]:
        """One worker's share of tuning: the best list schedules of either way to divide backwards."""
        found = []
        ways = self._backwards()
        begun = time.monotonic()
        for number, (divided, name) in enumerate(ways, start=1):
            graph = build_graph(self.problem, divided)
            tuning = RuleSearch(graph, self._seed + worker)
            samples = min(MOST_TUNING_SAMPLES, max(1, OP_SAMPLES // graph.num_ops)) // len(ways)
            way_ends = begun + (ends - begun) * number / len(ways)
            for _ in range(0, samples, TUNING_SLICE):
                if self._stop.is_set() or time.monotonic() >= way_ends:
                    break
                tuning.run(TUNING_SLICE)
                if tuning.best and tuning.best[0][0] <= self.bound.ticks:
                    break
            for value, ids in tuning.best[:MOST_TUNED]:
                found.append(_Start(graph.ids_to_orders(ids), value, f"tuned {name}"))
        return found

    def _prove(self) -> None:
        """Raise the bound by what a solver can prove in its share of the time."""
        for step, prove in (
            ("bound from counters", counter_bounds),
            ("bound from one rank", one_rank_bounds),
        ):
            self._go_on(step)
            params = self._solve_params(step, self._share_ends(PROOF_SHARE), PROOF_WORK_LIMIT)
            for bound in prove(self.problem, params):
                self._raise_bound(bound)
                self._go_on(step)

    def _exact(self) -> None:
        """Solve a small problem as a whole, from the incumbent on."""
        num_ops = self.problem.num_microbatches * sum(len(costs.offered) for costs in self.problem.stages)
        if num_ops > MOST_EXACT_OPS or self._best is None or not is_supported(self.problem):
            return
        step = "whole horizon"
        self._go_on(step)
        params = self._solve_params(step, self._share_ends(EXACT_SHARE), EXACT_WORK_LIMIT)
        found: list[FoundOrders] = []
        self.used_solver = True
        try:
            answer = solve_whole_horizon(
                self.problem,
                params,
                hint=self._best.schedule,
                least_ticks=self.bound.ticks,
                on_found=found.append,
            )
            argument = "CP-SAT proves it for all starts of all ops at once"
            self._raise_bound(Bound(step, answer.lower_bound, argument))
        finally:
            for last in found[-1:]:
                self._offer(last.orders, step, last.schedule(self.problem))

    def _count(self) -> None:
        """Climb by counter models where all ticks are multiples of a unit that is coarse enough."""
        slots = self._slots(Rounding.DOWN, FEW_COUNTERS)
        if slots is not None and slots.is_exact:
            self._climb(slots, "exact", COUNT_SHARE)

    def _milp(self) -> None:
        """Climb by counter models: on an exact grid where it is small enough, else on one either side."""
        for rounding in Rounding:
            slots = self._slots(rounding, MOST_COUNTERS)
            if slots is None:
                self.bound = replace(
                    self.bound, argument=f"{self.bound.argument} (the {MILP} is too large for the time limit)"
                )
                return
            if slots.is_exact:
                self._climb(slots, "exact", MILP_SHARE)
                return
            share = MILP_SHARE if rounding is Rounding.UP else MILP_SHARE / 2
            self._climb(slots, f"rounded {rounding}", share)

    def _climb(self, slots: Slots, grid: str, share: float) -> None:
        """Improve and bound by the counter models of one grid, in a share of the time left."""
        self._go_on(MILP)

        def take(answer: ExactAnswer) -> None:
            argument = f"HiGHS finds no schedule that takes less in slots of {slots.slot_ticks} ticks, {grid}"
            self._raise_bound(Bound(MILP, answer.lower_bound, argument))
            if answer.found is not None:
                self._offer(answer.found.orders, MILP, answer.found.schedule(self.problem))

        params = self._solve_params(MILP, time.monotonic() + share * self._seconds_left(), PROOF_WORK_LIMIT)
        self.used_solver = True
        solve_counters(slots, self.incumbent.value, params, least_ticks=self.bound.ticks, on_progress=take)
        self._go_on(MILP)

    def _slots(self, rounding: Rounding, most: int) -> Slots | None:
        """The finest grid for a MILP in the time that is left, None where there is none."""
        if self._best is None:
            return None
        counters = min(most, int(COUNTERS_PER_SECOND * self._seconds_left()))
        return finest_slots(self.problem, self._best.value, rounding, max(1, counters))

    def _raise_bound(self, bound: Bound) -> None:
        self.bound = max(self.bound, bound, key=lambda bound: bound.ticks)

    def _solve_params(self, step: str, ends: float, work_limit: float) -> SolveParams:
        """Limits of a solver that may work until a moment of the clock."""
        return SolveParams(
            time_limit_s=max(0.0, ends - time.monotonic()),
            work_limit=work_limit,
            workers=self._workers,
            seed=self._seed,
            on_wait=partial(self._go_on, step),
        )

    def _share_ends(self, share: float) -> float:
        """The moment by which something that begins now has had its share of the time limit."""
        return min(self._deadline, time.monotonic() + share * (self._deadline - self._begun))

    def _offer_blocks(self) -> None:
        for orders, method in self._blocks():
            self._offer(orders, method)

    def _blocks(self) -> Iterator[tuple[RankOrders, str]]:
        ops = sum(3 if costs.can_divide else 2 for costs in self.problem.stages)
        if ops > LARGEST_BLOCK or self.problem.num_microbatches < 2:
            return
        ends = self._share_ends(BLOCK_SHARE)
        shortest = min(cost.ticks for costs in self.problem.stages for _, cost in costs.offered)
        for copies, resolution, slack in BLOCKS:
            step = f"building block with {slack:.0%} slack, {resolution} slots in the shortest op"
            step = f"{copies} in turn: {step}" if copies > 1 else step
            self._go_on(step)
            params = self._solve_params(step, ends, BLOCK_WORK_LIMIT * copies)
            if params.time_limit_s <= 0:
                return
            self.used_solver = True
            blocks = find_blocks(self.problem, max(1, shortest // resolution), slack, params, copies)
            if blocks:
                name = "building block" if copies == 1 else f"{copies} building blocks in turn"
                yield unroll(blocks, self.problem), name

    def _anneal(self) -> None:
        """Rounds of annealing: each has more moves and half the starts, down to one for each worker."""
        self._stop.clear()
        with ThreadPoolExecutor(self._workers) as executor:
            try:
                for number in range(ROUNDS):
                    self._go_on(f"annealing, round {number + 1} of {ROUNDS}")
                    starts = sorted(self._starts, key=lambda start: start.value)
                    kept = max(self._workers, min(len(starts), MOST_ANNEALED) >> number)
                    runs = list(islice(cycle(starts), kept))
                    self._starts = starts[:kept]
                    futures = [
                        executor.submit(self._anneal_once, start, number, n) for n, start in enumerate(runs)
                    ]
                    self._collect(futures, f"annealing, round {number + 1} of {ROUNDS}")
            finally:
                self._stop.set()  # whatever ends the rounds ends the runs under way

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

    def _anneal_once(self, start: _Start, number: int, run: int) -> _Start:
        """One run of annealing, in slices, until its moves are spent or the search is over."""
        graph = build_graph(self.problem, divided_in_orders(self.problem, start.orders))
        seed = self._seed + 1000 * number + run
        annealer = Annealer(graph, graph.orders_to_ids(start.orders), seed)
        hottest = float(graph.ticks.mean()) * HOTS[(number + run) % len(HOTS)]
        moves = int(graph.num_ops * FIRST_ROUND_MOVES * GROWTH**number)
        slices = max(1, moves * graph.num_ops // OP_MOVES_PER_SLICE)
        for n in range(slices):
            if self._stop.is_set() or self._seconds_left() <= 0 or annealer.best_value <= self.bound.ticks:
                break
            hot, cold = (hottest * COLD ** (k / slices) for k in (n, n + 1))
            annealer.run(max(1, moves // slices), hot, cold)
        if annealer.best_value >= start.value:
            return start
        method = start.method if start.method.endswith(ANNEALED) else start.method + ANNEALED
        return _Start(graph.ids_to_orders(annealer.best_ids), annealer.best_value, method)
