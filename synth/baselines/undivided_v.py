"""1F1B-V: two chunks per rank in a V with an undivided backward, from a building block on a unit grid.

Symbols: p ranks, m microbatches, i the rank; F, BW ticks of one stage (one chunk); A bytes that its F
allocates. From Qi et al., "Pipeline Parallelism with Controllable Memory", arXiv 2405.15362, appendix I, as
the authors' released scheduler lays it out.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate

from synth.baselines.shapes import equal_activation_bytes, equal_ticks, v_ranks, with_offered_backwards
from synth.baselines.slot_grid import with_repeated_middle
from synth.building_block import BlockOp, BuildingBlock, PlacedOp, unroll_with_starts
from synth.ops import Op, OpKind, RankOrders
from synth.placement import PlacementKind
from synth.problem import OpCost, Problem, StageCosts, uniform_problem

_NAME = "1f1b-v"
_SLOTS = {OpKind.F: 1, OpKind.BW: 2}
PERIOD_SLOTS = 6
"""A rank's two F, one slot each, and two BW of two slots."""

_IRREGULAR_RANKS = (2, 3, 9)
"""Where moving ops up ends a slot off the pattern that holds for all other numbers of ranks."""


def one_f_one_b_v(problem: Problem) -> RankOrders:
    """1F1B-V: 1F1B's undivided backward on a V, at about two thirds of 1F1B's memory.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> chunk = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    >>> problem = uniform_problem(4, 6, chunk, chunks=2, kind=PlacementKind.V)
    >>> print(render_grid(schedule_orders(problem, one_f_one_b_v(problem)), last_slot=18))
     rank 0  0F0  0F1  0F2  0F3  0F4  .    .    7F0  7BW0----- 7F1  7BW1----- 7F2  7BW2----- .    . …
     rank 1  .    1F0  1F1  1F2  1F3  .    6F0  .    6F1  .    6BW0----- 6F2  6BW1----- 1F4  6BW2----- …
     rank 2  .    .    2F0  2F1  2F2  5F0  .    5F1  .    5F2  .    .    5BW0----- 2F3  5BW1----- 2F4 …
     rank 3  .    .    .    3F0  4F0  3F1  4F1  3F2  4F2  .    .    .    .    .    4BW0----- 3BW0----- …

    The block fills all six slots of its period, so no rank waits in the steady state at F = 1 and BW = 2. Its
    repetitions are then moved up one op at a time, F only as far as no rank holds more than the block's peak.
    Unit bubble 5p-5, 5p-7 or 5p-8 slots for p = 1, 2 or 0 modulo 3 from p = 4 on; peak 2⌊(2p+3)/3⌋·A.

    References
    ----------
    Appendix I, figures 16 and 17.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no V.
    """
    down = v_ranks(_NAME, problem)
    by_depth = _moved_up(one_f_one_b_v_block(problem.num_ranks), problem.num_ranks, problem.num_microbatches)
    return tuple(
        with_offered_backwards(problem, by_depth[down.index(rank)]) for rank in range(problem.num_ranks)
    )


def one_f_one_b_v_block(num_ranks: int) -> BuildingBlock:
    """F and BW on the unit grid: a slot a hop forward, two a hop back, and three more every third hop.

    Three hops back then take nine slots, as many as three hops forth modulo six: no rank's ops can meet.
    """
    p = num_ranks
    ops = [BlockOp(OpKind.F, stage, stage) for stage in range(2 * p)]
    slot, hops = 2 * p + (3 if p % 3 == 0 else 0), (-(p + 2)) % 3
    for stage in reversed(range(2 * p)):
        ops.append(BlockOp(OpKind.BW, stage, slot))
        hops += 1
        slot += 2 + (3 if hops % 3 == 0 else 0)
    return BuildingBlock(period_ticks=PERIOD_SLOTS, ops=tuple(ops))


def one_f_one_b_v_bubble_ticks(problem: Problem) -> int | None:
    """(5p-5)F, (5p-7)F or (5p-8)F for p = 1, 2 or 0 modulo 3; exact for BW = 2F, no transfers, m ≥ 2p.

    From p = 4 on, and p = 9 left out, where one slot less is idle; at p = 1 it is 0.
    """
    v_ranks(_NAME, problem)
    ticks, p = equal_ticks(problem, divided=False), problem.num_ranks
    if ticks is None or ticks.W or ticks.transfer or ticks.B != 2 * ticks.F:
        return None
    if p in _IRREGULAR_RANKS or problem.num_microbatches < 2 * p:
        return None
    return (5 * p - (8, 5, 7)[p % 3]) * ticks.F


def one_f_one_b_v_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """2⌊(2p+3)/3⌋·A on every rank, plus static bytes; equal stages, F allocates A, m ≥ 2p."""
    v_ranks(_NAME, problem)
    activation = equal_activation_bytes(problem)
    if activation is None or problem.num_microbatches < 2 * problem.num_ranks:
        return None
    held = 2 * ((2 * problem.num_ranks + 3) // 3) * activation
    return tuple(static + held for static in problem.static_bytes_by_rank)


def _moved_up(block: BuildingBlock, num_ranks: int, num_microbatches: int) -> RankOrders:
    """The orders of a block repeated for every microbatch, its ops moved up; of many, the middle repeated."""
    return with_repeated_middle(partial(_all_moved_up, block, num_ranks), num_ranks, num_microbatches, 4)


def _all_moved_up(block: BuildingBlock, num_ranks: int, num_microbatches: int) -> RankOrders:
    """The orders of a block repeated for every microbatch, each op moved to the earliest idle slot."""
    unit = uniform_problem(
        num_ranks,
        num_microbatches,
        StageCosts(F=OpCost(ticks=_SLOTS[OpKind.F]), BW=OpCost(ticks=_SLOTS[OpKind.BW])),
        chunks=2,
        kind=PlacementKind.V,
    )
    placed = unroll_with_starts(block, unit)
    rows = [_Row(row) for row in placed]
    limit = max(max(row.held) for row in rows)
    ends: dict[Op, int] = {}
    for start, rank, op in sorted((start, rank, op) for rank, row in enumerate(placed) for start, op in row):
        ready = max((ends.get(other, 0) for other in _waits_for(op, unit.num_stages)), default=0)
        ends[op] = rows[rank].move_up(op, start, ready, limit)
    return tuple(row.order() for row in rows)


def _waits_for(op: Op, num_stages: int) -> list[Op]:
    """What an op waits for, and the same op of the microbatch before."""
    forward = op.kind is OpKind.F
    first, step = (0, -1) if forward else (num_stages - 1, 1)
    found = [op._replace(microbatch=op.microbatch - 1)]
    if op.stage != first:
        found.append(op._replace(stage=op.stage + step))
    elif not forward:
        found.append(op._replace(kind=OpKind.F))
    return found


class _Row:
    """A rank's slots: which are taken, and how many chunks it holds in each, freed in the last slot of BW."""

    def __init__(self, placed: tuple[PlacedOp, ...]) -> None:
        last = placed[-1]
        self.starts: dict[int, Op] = {}
        self.taken = bytearray(last.start + _SLOTS[last.op.kind])
        changes = [0] * len(self.taken)
        for start, op in placed:
            self._mark(op, start, 1)
            end = start + _SLOTS[op.kind]
            changes[end - 1] += 1 if op.kind is OpKind.F else -1
        self.held = list(accumulate(changes))

    def move_up(self, op: Op, start: int, ready: int, limit: int) -> int:
        """Move an op to the first idle slot from ``ready`` on, F only across slots with memory; its end."""
        length = _SLOTS[op.kind]
        self._mark(op, start, 0)
        slot = ready if op.kind is OpKind.BW else self._first_with_memory(start, ready, limit)
        while any(self.taken[slot : slot + length]):
            slot += 1
        self._mark(op, slot, 1)
        self.starts[slot] = op
        for other in range(slot + length - 1, start + length - 1):
            self.held[other] += 1 if op.kind is OpKind.F else -1
        return slot + length

    def order(self) -> tuple[Op, ...]:
        """The ops by slot."""
        return tuple(op for _, op in sorted(self.starts.items()))

    def _first_with_memory(self, start: int, ready: int, limit: int) -> int:
        slot = start
        while slot > ready and self.held[slot - 1] < limit:
            slot -= 1
        return slot

    def _mark(self, op: Op, start: int, taken: int) -> None:
        for slot in range(start, start + _SLOTS[op.kind]):
            self.taken[slot] = taken
