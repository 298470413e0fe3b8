"""Orders for a V at about half of 1F1B's memory: every microbatch a line that crosses the others unhindered.

Forwards and backwards get slots of equal length. A microbatch runs down the ranks, up, down and up again, a
rank a slot, and never waits. Two lines meet on a rank only where one goes down and the other up; if those
that go down pass rank 0 in even slots and those that go up in odd ones, they meet between ranks. What is
left to choose is when microbatches enter: no more often than every other pair of slots, as a line passes a
rank four times, and not p pairs after another, whose first backward then has rank 0's even slot.

With an entry every two pairs and now and then one pair left free, every rank has two slots free as often: two
weight gradients go into each, and others between lines where the next forward would not fit the memory limit.
Only the order counts; times follow by longest path. With a free pair after every p/2 - 1 entries it repeats
every p - 1 pairs and needs about p chunk activations, half of what 1F1B holds. Found by looking at what
annealing comes to rest at.
"""

from __future__ import annotations

from collections import deque
from itertools import cycle, islice
from operator import itemgetter

from synth.errors import BaselineUndefinedError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import LARGEST_SUM, Problem

NAME = "crossing lines"

WEIGHTS_PER_SLOT = 2
"""Weight gradients in a free slot: about half as long as a forward, and two for each free slot come due."""


def run_lengths(num_ranks: int) -> list[int]:
    """After how many entries to leave a pair of slots free: what is worth trying."""
    return sorted({max(1, num_ranks // 2 - 1), max(1, num_ranks - 1), num_ranks})


def crossing_lines(problem: Problem, run_length: int) -> RankOrders:
    """Every microbatch a line through the slots, one pair of slots left free after so many entries.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> two, one = OpCost(ticks=2), OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=two, B=two, W=one), chunks=2, kind=PlacementKind.V)
    >>> print(render_grid(schedule_orders(problem, crossing_lines(problem, 3)), last_slot=23))
     rank 0  0F0---- 0F1---- .   .   .   .   .   .   .   .   .   .   7F0---- 7B0---- 7W0 0F2---- .   7F1- …
     rank 1  .   .   1F0---- 1F1---- .   .   .   .   .   .   6F0---- .   .   .   .   6B0---- 6F1---- 1F2- …
     rank 2  .   .   .   .   2F0---- .   .   .   .   5F0---- 2F1---- .   .   .   .   5F1---- 5B0---- 5W0 …
     rank 3  .   .   .   .   .   .   3F0---- 4F0---- .   .   .   .   3F1---- 4F1---- .   .   .   .   4B0- …

    Parameters
    ----------
    problem
        Its ranks are a V of two chunks each, and every stage can divide its backward.
    run_length
        After so many entries a pair of slots is left free, at least 1.

    Raises
    ------
    BaselineUndefinedError
        When the stages are no V, a stage cannot divide its backward, or the lines do not fit the memory.
    """
    p = problem.num_ranks
    in_a_v = [*range(p), *reversed(range(p))]
    if not problem.is_chain or list(problem.stage_to_rank) != in_a_v:
        raise BaselineUndefinedError(NAME, "the stages are no chain in a V of two chunks per rank")
    if not all(costs.can_divide for costs in problem.stages):
        raise BaselineUndefinedError(NAME, "a stage cannot divide its backward")
    entries = entry_slots(p, problem.num_microbatches, run_length)
    return tuple(_with_weights(problem, rank, _line_ops(p, rank, entries)) for rank in range(p))


def entry_slots(num_ranks: int, num_microbatches: int, run_length: int) -> list[int]:
    """The slots in which microbatches enter rank 0, ascending."""
    pairs: list[int] = []
    pair = 0
    for turn in islice(cycle(range(run_length)), num_microbatches):
        while pair - num_ranks in pairs[-num_ranks:]:
            pair += 1
        pairs.append(pair)
        pair += 3 if turn == run_length - 1 else 2
    return [2 * pair for pair in pairs]


def _line_ops(num_ranks: int, rank: int, entries: list[int]) -> list[tuple[int, Op]]:
    """A rank's forwards and backwards with the slots they pass in, ascending."""
    last = 4 * num_ranks - 1
    ops = [
        (slot, Op(kind, stage, microbatch))
        for microbatch, entry in enumerate(entries)
        for stage in (rank, 2 * num_ranks - 1 - rank)
        for kind, slot in ((OpKind.F, entry + stage), (OpKind.B, entry + last - stage))
    ]
    return sorted(ops, key=itemgetter(0))


def _with_weights(problem: Problem, rank: int, ops: list[tuple[int, Op]]) -> tuple[Op, ...]:
    """Put the weight gradients where slots are free, and where the next forward needs their memory."""
    limits = problem.memory_limit_bytes
    room = LARGEST_SUM if limits is None else limits[rank] - problem.static_bytes_by_rank[rank]
    order: list[Op] = []
    owed: deque[Op] = deque()
    held = next_slot = 0
    for slot, op in ops:
        alloc_bytes = problem.stages[op.stage].cost(op.kind).alloc_bytes
        free_places = WEIGHTS_PER_SLOT * (slot - next_slot)
        while owed and (free_places > 0 or held + alloc_bytes > room):
            free_places -= 1
            order.append(owed.popleft())
            held += _kept_bytes(problem, order[-1])
        if held + alloc_bytes > room:
            raise BaselineUndefinedError(NAME, f"it does not fit the memory of rank {rank}")
        order.append(op)
        held += _kept_bytes(problem, op)
        if op.kind is OpKind.B:
            owed.append(Op(OpKind.W, op.stage, op.microbatch))
        next_slot = slot + 1
    return (*order, *owed)


def _kept_bytes(problem: Problem, op: Op) -> int:
    cost = problem.stages[op.stage].cost(op.kind)
    return cost.alloc_bytes - cost.free_bytes
