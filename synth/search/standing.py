"""Where the search for one placement stands, and what every step of it shares: schedules, bound and clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from synth.bounds import Bound, best_bound
from synth.cpsat import SolveParams
from synth.errors import BackendError, InfeasibleError
from synth.ops import RankOrders
from synth.polling import call_and_watch
from synth.problem import Problem
from synth.schedule import Schedule, fits, peak_memory_bytes
from synth.timing import schedule_orders
from synth.verify import verify_schedule

NEAR_BEST, MOST_NEAR = 0.01, 8
"""How many schedules are kept whose value is within a share of the best: a more robust one may be chosen."""

HEARTBEAT_S = 1.0
"""Seconds between two reports when nothing better is found."""


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A verified schedule, its value in ticks, and how it was found."""

    schedule: Schedule
    value: int
    method: str


@dataclass(frozen=True, slots=True)
class Start:
    """Orders within the limits to improve, their value in ticks, and how they were found."""

    orders: RankOrders
    value: int
    method: str


class SearchOver(Exception):
    """Time is up or nothing better can come, and there is a schedule to return, here or elsewhere."""


class Standing:
    """The best schedule so far, what is proved, the starts to improve, and the time that is left.

    Parameters
    ----------
    problem
        What to schedule.
    deadline
        When to end, in seconds of the monotonic clock.
    workers, seed
        Threads, and the seed of all random choices.
    report
        Told of every step: what it is, the best value so far, the bound.

    Attributes
    ----------
    bound
        The best lower bound so far.
    best
        The incumbent, once there is one.
    starts
        All that was offered and fits, to be improved.
    interrupted, used_solver
        Whether Ctrl-C ended a step, and whether a solver took part.
    rival
        The best value of another placement, if there is one.
    infeasible
        Why nothing fits the limits, where that is proved.
    stop
        Set when work under way in other threads is to end.
    """

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
        self.begun, self.deadline = time.monotonic(), deadline
        self.workers, self.seed = workers, seed
        self.report = report
        self.best: Incumbent | None = None
        self.starts: list[Start] = []
        self.rival: int | None = None
        self.infeasible: InfeasibleError | None = None
        self._near: list[Incumbent] = []
        self.stop = threading.Event()

    @property
    def near(self) -> tuple[Incumbent, ...]:
        """The best few different schedules within :data:`NEAR_BEST` of the best value, the best first."""
        if self.best is None or any(known is self.best for known in self._near):
            return tuple(self._near)
        return self.best, *self._near  # an interrupt came before it was kept

    @property
    def incumbent(self) -> Incumbent:
        """The best schedule so far; there is one once a search has run."""
        assert self.best is not None
        return self.best

    def offer(self, orders: RankOrders, method: str, schedule: Schedule | None = None) -> None:
        """Take orders that fit as a start, and as the incumbent where they are the best and verified.

        Their times are the earliest, unless a schedule of them is given.
        """
        if not fits(self.problem, peak_memory_bytes(self.problem, orders)):
            return
        schedule = schedule or schedule_orders(self.problem, orders)
        found = Incumbent(schedule, schedule.value, method)
        self.starts.append(Start(orders, found.value, method))
        if self.best is None or found.value < self.best.value:
            violations = verify_schedule(schedule)
            if violations:
                raise BackendError(f"{method} gave a schedule that breaks a rule: {violations[0]}")
            self.best = found
            self.report(method, found.value, self.bound.ticks)
        self._remember(found)

    def _remember(self, found: Incumbent) -> None:
        """Keep a schedule that comes near the best value, unless it is kept already."""
        if any(found.schedule.ranks == known.schedule.ranks for known in self._near):
            return
        most = (1 + NEAR_BEST) * self.incumbent.value
        near = [known for known in (*self._near, found) if known.value <= most]
        self._near = sorted(near, key=lambda known: known.value)[:MOST_NEAR]

    def go_on(self, step: str, grace_s: float = 0.0) -> None:
        """Report the step under way; end the search where nothing more can or may be found."""
        self.report(step, None if self.best is None else self.best.value, self.bound.ticks)
        if self.rival is None and self.best is None:
            return
        if not self.may_improve(self.rival) or self.seconds_left() <= -grace_s:
            raise SearchOver

    def may_improve(self, rival: int | None = None) -> bool:
        """Whether something better than the best so far, and than a rival's value, is not ruled out yet."""
        own = None if self.best is None else self.best.value
        values = [value for value in (rival, own) if value is not None]
        return self.infeasible is None and all(value > self.bound.ticks for value in values)

    def watched(self, step: str, construct: Callable[[], RankOrders], grace_s: float = 0.0) -> RankOrders:
        """Construct orders, unless the search ends before they are done."""
        self.go_on(step, grace_s)
        return call_and_watch(construct, partial(self.go_on, step, grace_s))

    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.monotonic()

    def raise_bound(self, bound: Bound) -> None:
        """Keep a bound if it is better than the one so far."""
        self.bound = max(self.bound, bound, key=lambda bound: bound.ticks)

    def solve_params(self, step: str, ends: float, work_limit: float) -> SolveParams:
        """Limits of a solver that may work until a moment of the clock."""
        return SolveParams(
            time_limit_s=max(0.0, ends - time.monotonic()),
            work_limit=work_limit,
            workers=self.workers,
            seed=self.seed,
            on_wait=partial(self.go_on, step),
        )

    def share_ends(self, share: float) -> float:
        """The moment by which something that begins now has had its share of the time limit."""
        return min(self.deadline, time.monotonic() + share * (self.deadline - self.begun))
