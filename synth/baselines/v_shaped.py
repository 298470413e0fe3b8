"""V-Min, V-Half and V-ZB: two chunks per rank in a V, built from a building block on a unit grid.

Stage s and stage 2p-1-s share a rank, so a chunk held for long sits beside one held briefly and every rank
holds the same. The block's F and B are laid on a grid of unit slots, every six slots a microbatch, and the
grid is tightened (:mod:`synth.baselines.slot_grid`). Costs play no part in the order; times follow by longest
path.

Symbols: p ranks, m microbatches, i the rank; A bytes that the F of one stage (one chunk) allocates. All from
Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv 2405.15362, NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Callable

from synth.baselines.shapes import check_divides, equal_ticks, holds_from_forward_on, v_ranks
from synth.baselines.slot_grid import tightened_orders
from synth.building_block import BlockOp, BuildingBlock
from synth.ops import OpKind, RankOrders
from synth.problem import Problem

PERIOD_SLOTS = 6
"""A rank's two F, two B and two W, one slot each."""


def v_min(problem: Problem) -> RankOrders:
    """V-Min: the block with the shortest lifespans, about a third of 1F1B's memory.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 6, StageCosts(F=one, B=one, W=one), chunks=2, kind=PlacementKind.V)
    >>> print(render_grid(schedule_orders(problem, v_min(problem)), last_slot=23))
     rank 0  0F0 0F1 0F2 .   .   .   .   7F0 7B0 7W0 7F1 7B1 7W1 .   .   0B0 0W0 0F3 .   7F2 7B2 0B1 7W2 …
     rank 1  .   1F0 1F1 .   .   .   6F0 .   6F1 6B0 6W0 1F2 .   .   1B0 6B1 1W0 6W1 6F2 1F3 1B1 6B2 1W1 …
     rank 2  .   .   2F0 2F1 .   5F0 .   5F1 .   .   5B0 5W0 2F2 2B0 2W0 .   5B1 5F2 5W1 2B1 2F3 2W1 5B2 …
     rank 3  .   .   .   3F0 4F0 3F1 4F1 .   .   .   .   4B0 3B0 4W0 3W0 3F2 4F2 4B1 3B1 4W1 3W1 3F3 4F3 …

    Unit bubble 4p-5, or 4p-7 where 3 divides p; peak 2⌊(p+4)/3⌋·A. With unequal times it stalls in every
    repetition.

    References
    ----------
    Table 8.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no V, or a stage cannot divide its backward.
    """
    return _greedy_orders("v-min", problem, v_min_block)


def v_min_block(num_ranks: int) -> BuildingBlock:
    """V-Min's F and B on the unit grid: every hop takes one slot, both ways."""
    p = num_ranks
    wait = 2 if p % 3 == 0 else 0
    return _v_block(p, lambda i: (i, 2 * p - 1 - i, 2 * p + wait + i, 4 * p + wait - 1 - i))


def v_min_bubble_ticks(problem: Problem) -> int | None:
    """4p-5 chunk passes, 4p-7 where 3 divides p; exact for F = B = W, no transfers, m ≥ 2p."""
    p = problem.num_ranks
    return _unit_bubble_ticks("v-min", problem, max(0, 4 * p - (7 if p % 3 == 0 else 5)))


def v_min_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """2⌊(p+4)/3⌋·A on every rank, one A less on the first where p mod 3 = 2; all freed at W, m ≥ 2p."""
    p = problem.num_ranks
    return _peak_bytes("v-min", problem, 2 * ((p + 4) // 3), less_on_first=int(p % 3 == 2))


def v_half(problem: Problem) -> RankOrders:
    """V-Half: about half of 1F1B's memory, and a block that repeats without stalls for unequal times.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 6, StageCosts(F=one, B=one, W=one), chunks=2, kind=PlacementKind.V)
    >>> print(render_grid(schedule_orders(problem, v_half(problem)), last_slot=23))
     rank 0  0F0 0F1 0F2 0F3 0F4 .   .   7F0 7B0 7W0 7F1 7B1 7W1 7F2 .   .   0B0 7B2 0W0 7F3 7W2 0F5 0B1 …
     rank 1  .   1F0 1F1 1F2 1F3 .   6F0 .   6F1 6B0 6W0 6F2 6B1 6W1 .   1B0 1W0 1F4 6F3 6B2 6W2 1B1 1F5 …
     rank 2  .   .   2F0 2F1 2F2 5F0 .   5F1 .   5F2 5B0 5W0 2F3 5B1 2B0 5W1 2W0 5F3 2F4 .   2B1 5B2 2W1 …
     rank 3  .   .   .   3F0 4F0 3F1 4F1 3F2 4F2 .   .   4B0 4W0 3B0 3W0 3F3 4F3 4B1 4W1 3B1 3F4 3W1 4F4 …

    Unit bubble 3p-7 for even p (1 at p = 2), 3p-4 for odd; peak 2⌊(p+2)/2⌋·A.

    References
    ----------
    Table 9.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no V, or a stage cannot divide its backward.
    """
    return _greedy_orders("v-half", problem, v_half_block)


def v_half_block(num_ranks: int) -> BuildingBlock:
    """V-Half's F and B on the unit grid: two slots a hop down the ranks, one up."""
    p = num_ranks
    wait = 3 if p % 2 == 0 else 0
    return _v_block(p, lambda i: (2 * i, 3 * p - 2 - i, 3 * p - 1 + wait + 2 * i, 6 * p - 2 + wait - i))


def v_half_bubble_ticks(problem: Problem) -> int | None:
    """3p-7 chunk passes for even p (1 at p = 2), 3p-4 for odd; exact for F = B = W, no transfers, m ≥ 2p."""
    p = problem.num_ranks
    return _unit_bubble_ticks("v-half", problem, max(0, 3 * p - 4) if p % 2 else max(1, 3 * p - 7))


def v_half_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """2⌊(p+2)/2⌋·A on every rank, plus static bytes; where all is freed at W and m ≥ 2p."""
    return _peak_bytes("v-half", problem, 2 * ((problem.num_ranks + 2) // 2))


def v_zb(problem: Problem) -> RankOrders:
    """V-ZB: no bubble with unit times, at the memory of 1F1B, the same on every rank.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 8, StageCosts(F=one, B=one, W=one), chunks=2, kind=PlacementKind.V)
    >>> print(render_grid(schedule_orders(problem, v_zb(problem)), last_slot=23))
     rank 0  0F0 0F1 0F2 0F3 0F4 0F5 0F6 7F0 7B0 7W0 7F1 7B1 7W1 7F2 7B2 7W2 7F3 7B3 0B0 7W3 0W0 0F7 7F4 …
     rank 1  .   1F0 1F1 1F2 1F3 1F4 6F0 1F5 6F1 6B0 6W0 6F2 6B1 6W1 6F3 6B2 1B0 6W2 6B3 1W0 1F6 6F4 1B1 …
     rank 2  .   .   2F0 2F1 2F2 5F0 2F3 5F1 2F4 5F2 5B0 5W0 5F3 5B1 2B0 5W1 2W0 2F5 5F4 5B2 2B1 5W2 2F6 …
     rank 3  .   .   .   3F0 4F0 3F1 4F1 3F2 4F2 3F3 4F3 4B0 3B0 4W0 3W0 3F4 4F4 4B1 3B1 4W1 3F5 3W1 4F5 …

    Unit bubble 0 (a ``rank_span``: the ranks end one after the other); peak 2p·A.

    References
    ----------
    Table 1, lifespan at most 12p-2; the offsets are our own (:func:`v_zb_block`).

    Raises
    ------
    BaselineUndefinedError
        When the placement is no V, or a stage cannot divide its backward.
    """
    return _greedy_orders("v-zb", problem, v_zb_block)


def v_zb_block(num_ranks: int) -> BuildingBlock:
    """V-ZB's F and B on the unit grid: four slots a hop down the ranks, two up, one at each turn.

    Going down by 4 and up by 2 moves all ops of a rank by the same amount modulo 6, so no rank's ops can
    meet: on rank 0 F, F, B, B stand in slots 0 to 3 of the six and leave 4 and 5 to W.
    """
    p = num_ranks
    turn = 6 * (p - 1)
    return _v_block(p, lambda i: (4 * i, turn + 1 - 2 * i, turn + 2 + 4 * i, 2 * turn + 3 - 2 * i))


def v_zb_bubble_ticks(problem: Problem) -> int | None:
    """0; exact for F = B = W, no transfers, m ≥ 2p."""
    return _unit_bubble_ticks("v-zb", problem, 0)


def v_zb_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """2p·A on every rank, plus static bytes; where all is freed at W and m ≥ 2p."""
    return _peak_bytes("v-zb", problem, 2 * problem.num_ranks)


def _v_block(num_ranks: int, slots: Callable[[int], tuple[int, int, int, int]]) -> BuildingBlock:
    """A block from the slots of a rank's ops: F on the way down, F up, B down, B up."""
    ops = []
    for rank in range(num_ranks):
        down, up = rank, 2 * num_ranks - 1 - rank
        lanes = ((OpKind.F, down), (OpKind.F, up), (OpKind.B, up), (OpKind.B, down))
        ops += [BlockOp(kind, stage, slot) for (kind, stage), slot in zip(lanes, slots(rank), strict=True)]
    return BuildingBlock(period_ticks=PERIOD_SLOTS, ops=tuple(ops))


def _check(name: str, problem: Problem) -> tuple[int, ...]:
    check_divides(name, problem)
    return v_ranks(name, problem)


def _unit_bubble_ticks(name: str, problem: Problem, passes: int) -> int | None:
    _check(name, problem)
    ticks = equal_ticks(problem, divided=True)
    if ticks is None or ticks.transfer or len({ticks.F, ticks.B, ticks.W}) > 1:
        return None
    return passes * ticks.F if problem.num_microbatches >= 2 * problem.num_ranks else None


def _peak_bytes(
    name: str, problem: Problem, chunks: int, *, less_on_first: int = 0
) -> tuple[int, ...] | None:
    down = _check(name, problem)
    allocated = {costs.F.alloc_bytes for costs in problem.stages}
    freed_at_w = all(
        holds_from_forward_on(costs) and costs.cost(OpKind.B).free_bytes == 0 for costs in problem.stages
    )
    if len(allocated) > 1 or not freed_at_w or problem.num_microbatches < 2 * problem.num_ranks:
        return None
    peaks = [static + chunks * problem.stages[0].F.alloc_bytes for static in problem.static_bytes_by_rank]
    peaks[down[0]] -= less_on_first * problem.stages[0].F.alloc_bytes
    return tuple(peaks)


def _greedy_orders(name: str, problem: Problem, block_of: Callable[[int], BuildingBlock]) -> RankOrders:
    down = _check(name, problem)
    by_depth = tightened_orders(block_of(problem.num_ranks), problem.num_ranks, problem.num_microbatches)
    return tuple(by_depth[down.index(rank)] for rank in range(problem.num_ranks))
