"""The MILP engine: climb from what is proved until a schedule exists, each step a counter model for HiGHS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from synth.cpsat import SolveParams
from synth.exact.answer import ExactAnswer, FoundOrders
from synth.exact.counters import build_counter_model, orders_of
from synth.exact.highs import Outcome, solve_feasibility
from synth.exact.slots import Rounding, Slots, common_ticks, shortest_ticks
from synth.problem import Links, Objective, Problem
from synth.schedule import fits, peak_memory_bytes

MOST_COUNTERS = 20_000
"""Finer grids, with more counters, are not built: HiGHS would not solve their relaxation in a minute."""


def finest_slots(
    problem: Problem, value: int, rounding: Rounding, most_counters: int = MOST_COUNTERS
) -> Slots | None:
    """The finest grid on which the counter model of a problem is not too large.

    Parameters
    ----------
    problem
        The problem.
    value
        The objective of some schedule, ticks: the model's horizon.
    rounding
        Of what is no whole number of slots; where the finest grid is exact, either says the same.
    most_counters
        The most counters of a model: streams times slots.

    Returns
    -------
    The grid, or None where the model is too large on any: an op lasts a slot at the least.
    """
    streams = sum(len(costs.offered) for costs in problem.stages)
    horizon = value * (1 if problem.objective is Objective.MAKESPAN else 2)
    slot = max(common_ticks(problem), -(-horizon * streams // most_counters))
    return Slots(problem, slot, rounding) if slot <= shortest_ticks(problem) else None


def solve_counters(
    slots: Slots,
    value: int,
    params: SolveParams,
    *,
    least_ticks: int = 0,
    on_progress: Callable[[ExactAnswer], None] = lambda answer: None,
) -> ExactAnswer:
    """Search better orders than some that are known, and prove a bound.

    The relaxation to fractions is bisected first. From the least span that it leaves open the model climbs:
    a span in which nothing fits raises the bound, one in which a schedule fits ends the search. Where HiGHS
    does not decide a span in half the time left, one half-way up to the best value is tried for its schedule;
    the last open span gets all of it.

    Parameters
    ----------
    slots
        The problem on its grid. Rounded down, or where the grid is exact, what is proved is a bound; rounded
        up, what is found is as short as it seems.
    value
        The objective of a schedule of the problem, ticks.
    params
        Limits for all steps together; HiGHS knows no measure of work.
    least_ticks
        A bound that is known already.
    on_progress
        Called with the answer so far at every better orders and every higher bound.

    Returns
    -------
    The best orders found, if any are better than the known; complete where nothing is left to search on an
    exact grid. Exclusive links are taken as free: what is proved is still a bound, and orders are orders.
    """
    climb = _Climb(slots, value, params, least_ticks, on_progress)
    climb.relax()
    climb.search()
    return climb.answer()


@dataclass(slots=True)
class _Climb:
    """A climb under way: nothing fits less than ``low`` slots, something fits ``high``."""

    slots: Slots
    value: int
    params: SolveParams
    least_ticks: int
    on_progress: Callable[[ExactAnswer], None]
    low: int = 0
    high: int = 0
    deadline: float = 0.0
    found: FoundOrders | None = None

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.params.time_limit_s
        self.high = self._slots_of(self.value)
        self.low = min(self.high, max(1, self.slots.fewest(self.least_ticks)))

    def relax(self) -> None:
        """Bisect for the least span whose model has a solution in fractions."""
        low, high = self.low, self.high
        while low < high:
            middle = (low + high) // 2
            outcome = self._solve(middle, self._left(), relaxed=True)
            if outcome is Outcome.OPEN:
                break
            low, high = (middle + 1, high) if outcome is Outcome.INFEASIBLE else (low, middle)
            self._raise_to(low)

    def search(self) -> None:
        """Decide spans from the lowest open one up."""
        aim = self.low
        while aim < self.high and self._left() > 0:
            is_last = aim + 1 == self.high
            outcome = self._solve(aim, self._left() if is_last else self._left() / 2)
            if outcome is Outcome.OPEN:
                aim = max(aim + 1, (aim + self.high) // 2)
                continue
            if outcome is Outcome.INFEASIBLE:
                self._raise_to(aim + 1)
            else:
                self.high = min(aim, self.high)
            aim = self.low

    def answer(self) -> ExactAnswer:
        """What has been found and proved by now."""
        is_bound = self.slots.is_exact or self.slots.rounding is Rounding.DOWN
        proved = self.slots.least_ticks(self.low) if is_bound else 0
        return ExactAnswer(
            found=self.found,
            lower_bound=max(self.least_ticks, proved),
            is_complete=self.slots.is_exact
            and self.slots.problem.links is Links.FREE
            and self.low >= self.high,
        )

    def _raise_to(self, low: int) -> None:
        if low > self.low:
            self.low = low
            self.on_progress(self.answer())

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _solve(self, span: int, time_limit_s: float, *, relaxed: bool = False) -> Outcome:
        if time_limit_s <= 0:
            return Outcome.OPEN
        ends = time.monotonic() + time_limit_s
        model = build_counter_model(self.slots, span)
        params = replace(self.params, time_limit_s=ends - time.monotonic())
        if params.time_limit_s <= 0:
            return Outcome.OPEN
        outcome = solve_feasibility(model.lp, params, relaxed=relaxed)
        if outcome is Outcome.FEASIBLE and not relaxed:
            self._take(orders_of(model))
        return outcome

    def _take(self, found: FoundOrders) -> None:
        """Keep orders that are better than all before, by their exact times."""
        problem = self.slots.problem
        if not fits(problem, peak_memory_bytes(problem, found.orders)):
            return  # bytes too large for a solver that compares to within a millionth
        value = found.schedule(problem).value
        if value < self.value:
            self.found, self.value = found, value
            if self.slots.is_exact:
                self.high = min(self.high, self._slots_of(value))
            self.on_progress(self.answer())

    def _slots_of(self, value: int) -> int:
        """The slots that a schedule of this value is known to fit, or that one rounded up has to beat."""
        down = value // self.slots.slot_ticks
        if self.slots.is_exact or self.slots.problem.objective is Objective.MAKESPAN:
            return down
        return down if self.slots.rounding is Rounding.UP else -(-value // self.slots.slot_ticks)
