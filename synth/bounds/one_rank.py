"""The one-rank relaxation: keep one rank's ops and let every other rank be a pure delay.

What the others do only makes a microbatch come later, so the least that one rank needs, with its memory limit
and with every way through the others as short as it can be, bounds the whole problem: whatever stages the
rank holds, and whichever form its backwards take.

CP-SAT is asked whether the rank can do within less and less strict limits: that nothing fits a tight one is
proved in seconds where minimising would not leave the rank's work behind. The bound is sharp where the others
wait for one rank: a single rank, memory for few microbatches, few microbatches, the last rank of a V under
the makespan. Where two ranks bind each other, the counters of both say more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from synth.bounds.alone import one_rank_model, order_literals, serial_ticks, way_up_ticks
from synth.bounds.bound import Bound
from synth.bounds.chains import forward_heads, round_trip_ticks
from synth.bounds.one_stage import one_stage_model
from synth.bounds.relaxation import relax, relaxable_ranks
from synth.cpsat import SolveParams, solve
from synth.problem import Objective, Problem

MOST_ORDERS = 40_000
"""Models with more open orders of two ops are not built: that alone would take seconds."""

FEW_OPS, MOST_OPS = 100, 2000
"""So few ops of a rank are mostly solved to the end; models with more than so many are not built."""

FIRST_STEP = 1 / 50
"""How much more than is proved the first question allows; every further one allows twice as much."""

LARGEST_EXACT = 2**52
"""Longer horizons are left out: CP-SAT states its bound as a float, exact only up to here."""

LARGEST_MEMORY = 2**60
"""Larger sums of bytes overflow the solver's linear constraints."""


def one_rank_bounds(problem: Problem, params: SolveParams, known_ticks: int = 0) -> Iterator[Bound]:
    """What single ranks prove, in the order of promise and ever more, until time is up.

    Every rank gets half of the time that is left. One that can do with what another takes is not asked
    further. Ranks with too many ops are left out.

    Parameters
    ----------
    problem
        The problem; its objective decides whether the wait for the first microbatch and the way of the last
        gradient count.
    params
        Limits for all ranks together.
    known_ticks
        A bound that is known already: nothing is yielded that is not above it.
    """
    deadline = time.monotonic() + params.time_limit_s
    ranks = [rank for rank in range(problem.num_ranks) if _can_ask(problem, rank)]
    best = known_ticks
    for rank in sorted(ranks, key=lambda rank: -_promise(problem, rank)):
        share = (deadline - time.monotonic()) / 2
        if share <= 0:
            return
        for bound in one_rank_bound(problem, rank, replace(params, time_limit_s=share), best):
            best = bound.ticks
            yield bound


def one_rank_bound(problem: Problem, rank: int, params: SolveParams, known_ticks: int = 0) -> Iterator[Bound]:
    """What one rank proves, ever more, until its least time is found or time is up.

    Parameters
    ----------
    problem, rank
        The rank of the problem that is kept.
    params
        Limits for the rank.
    known_ticks
        A bound that is known already: nothing is yielded that is not above it.
    """
    proved = floor_ticks(problem, rank)
    if proved > known_ticks:
        yield _bound(rank, proved, "takes at least")
    least = max(proved, known_ticks)
    if rank in relaxable_ranks(problem):
        solved = solve(one_stage_model(relax(problem, rank)), params)
        if solved.has_solution or not solved.is_proved:
            ticks = ceil(solved.lower_bound - 1e-6)
            if ticks > known_ticks:
                yield _bound(rank, ticks, "takes" if solved.is_proved else "takes at least")
        return
    yield from _climb(problem, rank, params, least, is_new=proved > known_ticks)


def _climb(problem: Problem, rank: int, params: SolveParams, least: int, *, is_new: bool) -> Iterator[Bound]:
    """Minimise few ops for a while, then ask within limits ever further above what is proved, or closer."""
    deadline = time.monotonic() + params.time_limit_s
    serial = serial_ticks(problem, rank)
    step = ceil(least * FIRST_STEP)
    most = serial if rank_ops(problem, rank) <= FEW_OPS else min(serial, least + step)
    while least <= serial and (left := deadline - time.monotonic()) > 0:
        model = one_rank_model(problem, rank, least, most)
        solved = solve(model, replace(params, time_limit_s=left / 4))
        if solved.is_proved and solved.has_solution:
            value = round(solved.solver.objective_value)
            if value > least or is_new:
                yield _bound(rank, value, "takes")
            return
        if solved.is_proved and most == serial:
            return  # nothing fits the rank's memory
        reached = most + 1 if solved.is_proved else ceil(solved.lower_bound - 1e-6)
        if most < serial:
            step = 2 * step if solved.is_proved else -(-step // 4)
        if reached > least:
            least, is_new = reached, True
            yield _bound(rank, least, "takes at least")
        most = min(serial, least + step)


def rank_ops(problem: Problem, rank: int) -> int:
    """How many ops of a rank are modelled."""
    offered = (len(problem.stages[stage].offered) for stage in problem.stages_by_rank[rank])
    return problem.num_microbatches * sum(offered)


def floor_ticks(problem: Problem, rank: int) -> int:
    """What a rank takes by its work, behind the way of the first microbatch to it."""
    head = forward_heads(problem)[problem.stages_by_rank[rank][0]]
    makespan = problem.objective is Objective.MAKESPAN
    return problem.work_ticks_by_rank[rank] + (head if makespan else 0)


def _bound(rank: int, ticks: int, takes: str) -> Bound:
    return Bound("one rank", ticks, f"rank {rank} {takes} {ticks} ticks even if every other is a pure delay")


def _can_ask(problem: Problem, rank: int) -> bool:
    """Whether the rank's model is small enough, its times and bytes within CP-SAT's integers."""
    costs = [cost for s in problem.stages_by_rank[rank] for _, cost in problem.stages[s].offered]
    moved = problem.num_microbatches * sum(cost.alloc_bytes + cost.free_bytes for cost in costs)
    return (
        rank_ops(problem, rank) <= MOST_OPS
        and order_literals(problem, rank) <= MOST_ORDERS
        and 2 * serial_ticks(problem, rank) < LARGEST_EXACT
        and 2 * moved < LARGEST_MEMORY
    )


def _promise(problem: Problem, rank: int) -> int:
    """The order of promise: what a rank works, and about how long it waits at either end."""
    held = problem.stages_by_rank[rank]
    trip = round_trip_ticks(problem, held[0], held[-1])
    makespan = problem.objective is Objective.MAKESPAN
    return floor_ticks(problem, rank) + trip + (way_up_ticks(problem, rank) if makespan else 0)
