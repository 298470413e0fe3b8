"""Ops of a V schedule on a grid of unit slots, moved to earlier idle slots where no rank's peak grows.

The tightening that turns a repeated building block into a schedule: W fills idle slots, then the warm-up's
and the cool-down's ops move up ("reorder" and "squeeze" in "Pipeline Parallelism with Controllable Memory",
arXiv 2405.15362, as the authors' released scheduler does them greedily).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import chain
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from synth.building_block import BuildingBlock, unroll_with_starts
from synth.ops import Op, OpKind, RankOrders
from synth.placement import PlacementKind
from synth.problem import OpCost, Problem, StageCosts, uniform_problem
from synth.timing import schedule_orders

_Codes = NDArray[np.int8]
_CODE: Mapping[OpKind, int] = MappingProxyType({OpKind.F: 1, OpKind.B: 2, OpKind.W: 3})
_IDLE = 0
_KEPT = 8


FEW_PER_RANK = 4
"""With this many microbatches a rank, or more, the orders repeat one another in their middle."""


@lru_cache(maxsize=_KEPT)
def tightened_orders(block: BuildingBlock, num_ranks: int, num_microbatches: int) -> RankOrders:
    """The orders of a block of F and B on a V of ``num_ranks`` ranks, W put in.

    Ends are tightened, and between them every rank repeats the same six ops: many microbatches are few, with
    more of these in the middle. Where few do not repeat so, all are tightened.
    """
    return with_repeated_middle(partial(_tightened_orders, block, num_ranks), num_ranks, num_microbatches, 6)


def with_repeated_middle(
    build: Callable[[int], RankOrders], num_ranks: int, num_microbatches: int, per_microbatch: int
) -> RankOrders:
    """Orders of many microbatches: those of few with their middle repeated, where it is a repetition.

    Parameters
    ----------
    build
        Gives the orders of so many microbatches, and all of them where the middle is none.
    num_ranks, num_microbatches
        Of the orders.
    per_microbatch
        How many ops each has on every rank.
    """
    few = FEW_PER_RANK * num_ranks
    if num_microbatches > few:
        longer = lengthened(build(few), num_microbatches - few, per_microbatch)
        if longer is not None:
            return longer
    return build(num_microbatches)


def lengthened(orders: RankOrders, more: int, per_microbatch: int) -> RankOrders | None:
    """Orders of more microbatches, repeating what stands in the middle; None where that is no repetition.

    Parameters
    ----------
    orders
        Every microbatch runs the same ops on a rank.
    more
        How many microbatches to add, at least 1.
    per_microbatch
        How many ops each has on every rank.
    """
    longer = []
    for order in orders:
        half = len(order) // 2
        turn = order[half - per_microbatch : half]
        if order[half : half + per_microbatch] != _later(turn, 1):
            return None
        middle = [Op(kind, stage, n + by) for by in range(1, more + 1) for kind, stage, n in turn]
        longer.append((*order[:half], *middle, *_later(order[half:], more)))
    return tuple(longer)


def _later(ops: tuple[Op, ...], by: int) -> tuple[Op, ...]:
    """The same ops of later microbatches."""
    return tuple(Op(kind, stage, microbatch + by) for kind, stage, microbatch in ops)


@lru_cache(maxsize=_KEPT)
def _tightened_orders(block: BuildingBlock, num_ranks: int, num_microbatches: int) -> RankOrders:
    """All of them tightened.

    The grid is tightened twice: with every W an op of its own, then, squeezed, with W filling idle slots.
    An op only ever moves to a slot behind all that it waits for, so the orders cannot deadlock. Nothing here
    hangs on costs: the last few answers are kept, for planners ask again and again.

    Parameters
    ----------
    block
        F and B of 2p stages, in unit slots; no two ops of a rank in one slot modulo the period.
    num_ranks, num_microbatches
        Counts.
    """
    unit = uniform_problem(
        num_ranks,
        num_microbatches,
        StageCosts(F=OpCost(ticks=1), B=OpCost(ticks=1), W=OpCost(ticks=1)),
        chunks=2,
        kind=PlacementKind.V,
    )
    slots = {placed.op: placed.start for row in unroll_with_starts(block, unit) for placed in row}
    with_w = {op: slot for row in _rows_with_w(slots, unit) for slot, op in row}
    slots = _squeezed(_Grid(with_w, unit).tightened(warmup=True), unit)
    slots = {op: slot for op, slot in slots.items() if op.kind is not OpKind.W}
    slots = _Grid(slots, unit).tightened(warmup=False)
    return tuple(tuple(op for _, op in row) for row in _rows_with_w(slots, unit))


def _rows(slots: Mapping[Op, int], unit: Problem) -> list[list[tuple[int, Op]]]:
    """Every rank's (slot, op) pairs by slot."""
    rows: list[list[tuple[int, Op]]] = [[] for _ in range(unit.num_ranks)]
    rank_of = unit.stage_to_rank
    for op, slot in slots.items():
        rows[rank_of[op.stage]].append((slot, op))
    for row in rows:
        row.sort()  # by slot: no two ops of a rank share one
    return rows


def _rows_with_w(slots: Mapping[Op, int], unit: Problem) -> list[list[tuple[int, Op]]]:
    """The rows of F and B with every W in its rank's next idle slot, in the order of their B."""
    return [_with_w(row) for row in _rows(slots, unit)]


def _with_w(row: list[tuple[int, Op]]) -> list[tuple[int, Op]]:
    filled: list[tuple[int, Op]] = []
    pending: list[Op] = []
    done, next_slot = 0, row[0][0]
    for slot, op in row:
        for free in range(next_slot, min(slot, next_slot + len(pending) - done)):
            filled.append((free, pending[done]))
            done += 1
        filled.append((slot, op))
        if op.kind is OpKind.B:
            pending.append(Op(OpKind.W, op.stage, op.microbatch))
        next_slot = slot + 1
    return filled + list(enumerate(pending[done:], next_slot))


def _squeezed(slots: Mapping[Op, int], unit: Problem) -> dict[Op, int]:
    """The earliest slots in the same order on every rank."""
    orders = tuple(tuple(op for _, op in row) for row in _rows(slots, unit))
    ranks = schedule_orders(unit, orders).ranks
    return {timed.op: timed.start for timed in chain.from_iterable(ranks)}


def _waits_for(op: Op, num_stages: int) -> tuple[Op, ...]:
    """What an op waits for, F before B left to the chain of backwards: it starts at the last stage."""
    kind, stage, microbatch = op
    if kind is OpKind.W:
        return (Op(OpKind.B, stage, microbatch),)
    if kind is OpKind.F:
        return (Op(OpKind.F, stage - 1, microbatch),) if stage > 0 else ()
    if stage == num_stages - 1:
        return (Op(OpKind.F, stage, microbatch),)
    return (Op(OpKind.B, stage + 1, microbatch),)


def _w_before(slots: Mapping[Op, int], unit: Problem) -> dict[Op, tuple[Op, ...]]:
    """For every W, the W before it on its rank, if any."""
    before: dict[Op, tuple[Op, ...]] = {}
    for row in _rows(slots, unit):
        last: tuple[Op, ...] = ()
        for _, op in row:
            if op.kind is OpKind.W:
                before[op] = last
                last = (op,)
    return before


class _Grid:
    """Ops on a grid of slots, one op a slot, while some of them move to earlier idle slots.

    Without W among the ops, each W counts as done in the first idle slot after its B.
    """

    def __init__(self, slots: Mapping[Op, int], unit: Problem) -> None:
        self.slots = dict(slots)
        self.unit = unit
        self.rank_of = unit.stage_to_rank
        self.has_w = any(op.kind is OpKind.W for op in slots)
        self.w_before = _w_before(slots, unit) if self.has_w else {}
        self.rows: list[_Codes] = [np.zeros(max(slots.values()) + 1, np.int8) for _ in range(unit.num_ranks)]
        for op, slot in slots.items():
            self.rows[self.rank_of[op.stage]][slot] = _CODE[op.kind]
        self.limit = max(map(self._peak, self.rows))

    def tightened(self, *, warmup: bool) -> dict[Op, int]:
        """The slots after the cool-down's ops, and the warm-up's if asked, have moved as early as they can.

        Between the first rank's first B of stage 0 and its last F the block's own pattern stays: there,
        idle slots that other microbatches will need look free.
        """
        by_slot = sorted(self.slots, key=lambda op: (self.slots[op], self.rank_of[op.stage]))
        steady = by_slot.index(Op(OpKind.B, 0, 0))
        cooldown = next(
            (n + 1 for n, op in enumerate(by_slot) if n > steady and self._is_last_forward_down(op)),
            len(by_slot),
        )
        for op in (by_slot[:steady] if warmup else []) + by_slot[cooldown:]:
            self._move_earlier(op)
        return self.slots

    def _is_last_forward_down(self, op: Op) -> bool:
        last = self.unit.num_microbatches - 1
        return op.kind is OpKind.F and op.stage < self.unit.num_ranks and op.microbatch == last

    def _move_earlier(self, op: Op) -> None:
        row, slot = self.rows[self.rank_of[op.stage]], self.slots[op]
        holds_no_more = self.has_w and op.kind is not OpKind.F
        for earlier in range(self._first_possible_slot(op), slot):
            if row[earlier] == _IDLE:
                row[earlier], row[slot] = row[slot], _IDLE
                if holds_no_more or self._peak(row) <= self.limit:
                    self.slots[op] = earlier
                    return
                row[earlier], row[slot] = _IDLE, row[earlier]

    def _first_possible_slot(self, op: Op) -> int:
        """Behind the op it waits for, and behind the same op of the microbatch before (W: of its rank)."""
        before = [*_waits_for(op, self.unit.num_stages)]
        if op.kind is OpKind.W:
            before += self.w_before[op]
        elif op.microbatch > 0:
            before.append(op._replace(microbatch=op.microbatch - 1))
        return max((self.slots[other] + 1 for other in before), default=0)

    def _peak(self, row: _Codes) -> int:
        """The most chunks a rank holds, freed at W."""
        if self.has_w:
            done = np.cumsum(row == _CODE[OpKind.W])
        else:
            # Pending W as a queue: a B adds one, an idle slot takes one, and it never falls below none.
            walk = np.cumsum((row == _CODE[OpKind.B]).astype(np.int64) - (row == _IDLE))
            pending = walk - np.minimum(np.minimum.accumulate(walk), 0)
            done = np.cumsum(row == _CODE[OpKind.B]) - pending
        return int((np.cumsum(row == _CODE[OpKind.F]) - done).max())
