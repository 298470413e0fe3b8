"""What solvers add: proofs of bounds, small problems solved as a whole, and the counter MILP."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from synth.bounds import Bound, counter_bounds, one_rank_bounds
from synth.bounds.one_rank import FEW_OPS, rank_ops
from synth.bounds.relaxation import relaxable_ranks
from synth.errors import InfeasibleError
from synth.exact.answer import ExactAnswer, FoundOrders
from synth.exact.milp import MOST_COUNTERS, finest_slots, solve_counters
from synth.exact.slots import Rounding, Slots
from synth.exact.whole_horizon import is_supported, solve_whole_horizon
from synth.memory import smallest_limits_bytes
from synth.problem import Problem
from synth.search.standing import SearchOver, Standing

PROOF_SHARE = 0.15
"""Share of the time limit that each kind of proof may take."""

ONE_RANK_SHARE = 0.05
"""The same for single ranks where each has several stages and more ops: they seldom prove more there."""

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

CLOSE_SLOTS, MORE_COUNTERS, CLOSE_SHARE = 2, 12_000, 0.6
"""The same where the bound is within so many slots of the best value: one or two questions are left."""

COUNTERS_PER_SECOND = 1000
"""Counters that a MILP may have for every second left, so that its models are built and solved in time."""

MILP = "counter MILP"
"""The name of the counter formulation's bounds and schedules."""


def prove(standing: Standing) -> None:
    """Raise the bound by what a solver can prove in its share of the time."""
    step = "bound from counters"
    standing.go_on(step)
    params = standing.solve_params(step, standing.share_ends(PROOF_SHARE), PROOF_WORK_LIMIT)
    _raise(standing, step, counter_bounds(standing.problem, params))
    step = "bound from one rank"
    share = PROOF_SHARE if _is_quick(standing.problem) else ONE_RANK_SHARE
    params = standing.solve_params(step, standing.share_ends(share), PROOF_WORK_LIMIT)
    _raise(standing, step, one_rank_bounds(standing.problem, params, standing.bound.ticks))


def _is_quick(problem: Problem) -> bool:
    """Whether single ranks have few ops, or some have one stage only."""
    ops = max(rank_ops(problem, rank) for rank in range(problem.num_ranks))
    return ops <= FEW_OPS or bool(relaxable_ranks(problem))


def _raise(standing: Standing, step: str, bounds: Iterable[Bound]) -> None:
    for bound in bounds:
        standing.raise_bound(bound)
        standing.go_on(step)


def is_small(problem: Problem) -> bool:
    """Whether a problem is solved as a whole."""
    stages = enumerate(problem.stages)
    num_ops = sum(len(problem.microbatches_of(s)) * len(costs.offered) for s, costs in stages)
    return num_ops <= MOST_EXACT_OPS and is_supported(problem)


def solve_whole(standing: Standing) -> None:
    """Solve a small problem as a whole, from the incumbent on; without one, perhaps nothing fits."""
    if not is_small(standing.problem):
        return
    step = "whole horizon"
    standing.go_on(step)
    params = standing.solve_params(step, standing.share_ends(EXACT_SHARE), EXACT_WORK_LIMIT)
    hint = None if standing.best is None else standing.best.schedule
    found: list[FoundOrders] = []
    standing.used_solver = True
    try:
        answer = solve_whole_horizon(
            standing.problem,
            params,
            hint=hint,
            least_ticks=standing.bound.ticks,
            on_found=found.append,
        )
        argument = "CP-SAT proves it for all starts of all ops at once"
        standing.raise_bound(Bound(step, answer.lower_bound, argument))
    finally:
        for last in found[-1:]:
            standing.offer(last.orders, step, last.schedule(standing.problem))
    if answer.is_complete and standing.best is None:
        standing.infeasible = _nothing_fits(standing.problem)
        raise SearchOver


def _nothing_fits(problem: Problem) -> InfeasibleError:
    enough = smallest_limits_bytes(problem)
    limits = problem.memory_limit_bytes or enough
    would_do = [max(pair) for pair in zip(limits, enough, strict=True)]
    reason = f"CP-SAT proves that no order of all ops keeps within {list(limits)} bytes; {would_do} would do"
    return InfeasibleError([reason], would_do)


def count(standing: Standing) -> None:
    """Climb by counter models where all ticks are multiples of a unit that is coarse enough."""
    slots = _slots(standing, Rounding.DOWN, FEW_COUNTERS)
    if slots is not None and slots.is_exact:
        _climb(standing, slots, "exact", COUNT_SHARE)


def settle(standing: Standing) -> None:
    """The same with more counters, where only a few slots are open between the bound and the best value."""
    slots = _slots(standing, Rounding.DOWN, MORE_COUNTERS)
    if slots is None or not slots.is_exact or _slots(standing, Rounding.DOWN, FEW_COUNTERS) == slots:
        return
    if standing.incumbent.value - standing.bound.ticks <= CLOSE_SLOTS * slots.slot_ticks:
        _climb(standing, slots, "exact", CLOSE_SHARE)


def climb_milp(standing: Standing) -> None:
    """Climb by counter models: on an exact grid where it is small enough, else on one either side."""
    for rounding in Rounding:
        slots = _slots(standing, rounding, MOST_COUNTERS)
        if slots is None:
            standing.bound = replace(
                standing.bound,
                argument=f"{standing.bound.argument} (the {MILP} is too large for the time limit)",
            )
            return
        if slots.is_exact:
            _climb(standing, slots, "exact", MILP_SHARE)
            return
        share = MILP_SHARE if rounding is Rounding.UP else MILP_SHARE / 2
        _climb(standing, slots, f"rounded {rounding}", share)


def _climb(standing: Standing, slots: Slots, grid: str, share: float) -> None:
    """Improve and bound by the counter models of one grid, in a share of the time left."""
    standing.go_on(MILP)

    def take(answer: ExactAnswer) -> None:
        argument = f"HiGHS finds no schedule that takes less in slots of {slots.slot_ticks} ticks, {grid}"
        standing.raise_bound(Bound(MILP, answer.lower_bound, argument))
        if answer.found is not None:
            standing.offer(answer.found.orders, MILP, answer.found.schedule(standing.problem))

    params = standing.solve_params(MILP, time.monotonic() + share * standing.seconds_left(), PROOF_WORK_LIMIT)
    standing.used_solver = True
    solve_counters(
        slots, standing.incumbent.value, params, least_ticks=standing.bound.ticks, on_progress=take
    )
    standing.go_on(MILP)


def _slots(standing: Standing, rounding: Rounding, most: int) -> Slots | None:
    """The finest grid for a MILP in the time that is left, None where there is none."""
    if standing.best is None:
        return None
    counters = min(most, int(COUNTERS_PER_SECOND * standing.seconds_left()))
    return finest_slots(standing.problem, standing.best.value, rounding, max(1, counters))
