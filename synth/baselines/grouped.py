"""Group-interleaved 1F1B: interleaved 1F1B with smaller groups of microbatches and less memory.

Symbols: p ranks, m microbatches, v stages per rank, g microbatches per group, c ticks per transfer; F, B, W
ticks of one stage (one chunk); A bytes that the F of one stage allocates.
"""

from __future__ import annotations

import numpy as np

from synth.baselines.shapes import equal_activation_bytes, equal_ticks, loop_ranks
from synth.errors import BaselineUndefinedError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import OpCost, Problem, StageCosts
from synth.schedule import fits

_NAME = "group-interleaved-1f1b"


def group_interleaved_1f1b(problem: Problem) -> RankOrders:
    """Group-interleaved 1F1B: groups of g microbatches, p/2 ≤ g ≤ p, and one forward per hop run ahead.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one, held = OpCost(ticks=1), OpCost(ticks=1, alloc_bytes=1)
    >>> chunk = StageCosts(F=held, B=one, W=OpCost(ticks=1, free_bytes=1))
    >>> problem = uniform_problem(4, 4, chunk, chunks=2, memory_limit_bytes=6)
    >>> print(render_grid(schedule_orders(problem, group_interleaved_1f1b(problem)), last_slot=19))
     rank 0  0F0 0F1 .   .   4F0 4F1 0F2 0F3 .   .   .   4B0 4W0 .   4F2 4B1 4W1 4F3 0B0 …
     rank 1  .   1F0 1F1 .   .   5F0 5F1 1F2 .   .   5B0 5W0 1F3 5B1 5W1 5F2 1B0 1W0 5F3 …
     rank 2  .   .   2F0 2F1 .   .   6F0 6F1 .   6B0 6W0 2F2 6B1 6W1 2F3 2B0 2W0 6F2 2B1 …
     rank 3  .   .   .   3F0 3F1 .   .   7F0 7B0 7W0 7F1 7B1 7W1 3F2 3B0 3W0 3F3 3B1 3W1 …

    Rank r runs g(v-1) + p-1-r forwards, then F and a backward alternately, W directly behind its B. The
    groups are the largest with which the schedule fits the memory limit, or the smallest where it fits with
    none: memory and idle time both depend on g alone, one rising and the other falling with it. Where g does
    not divide m, the groups differ by one. Bubble (p-1)(F+B) with g = p, and peak (g(v-1)+p)·A on the first
    rank: with g = p that of 1F1B, with g = p/2 and four chunks 0.625 of it. With v = 1 this is 1F1B, its
    backwards divided wherever they can be.

    References
    ----------
    Wan et al., "PipeOffload: Improving Scalability of Pipeline Parallelism with Memory Optimization",
    arXiv 2503.01328, table 1 (GIS with g = p, GIS-H with g = p/2).

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop.
    """
    turn = loop_ranks(_NAME, problem)
    return _largest_that_fits(problem, turn)[1]


def in_groups_of(problem: Problem, size: int) -> RankOrders:
    """Group-interleaved 1F1B with groups of a given size, whatever fits the memory limit.

    Parameters
    ----------
    problem
        A loop of stages.
    size
        The largest group; where it does not divide the microbatches, some groups are one smaller.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop, or no even groups have this size.
    """
    turn = loop_ranks(_NAME, problem)
    by_size = {sizes[0]: sizes for sizes in group_sizes(problem)}
    if size not in by_size:
        known = ", ".join(map(str, sorted(by_size)))
        count = problem.num_microbatches
        raise BaselineUndefinedError(_NAME, f"{count} microbatches go into groups of {known}, not {size}")
    return _orders(problem, turn, by_size[size])


def group_interleaved_1f1b_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B) + ((v+1)p-2)c; exact for equal stages, m a multiple of g = p, and 2c ≤ F, B, W.

    With g < p, (p-g)(v-1)(F+B-W) more: exact for m a multiple of g, F = B = W and no transfer times.
    """
    sizes, _ = _largest_that_fits(problem, loop_ranks(_NAME, problem))
    ticks = equal_ticks(problem, divided=True) if all(c.can_divide for c in problem.stages) else None
    if ticks is None or len(set(sizes)) > 1:
        return None
    p, v, g = problem.num_ranks, problem.num_stages // problem.num_ranks, sizes[0]
    bubble = (p - 1) * (ticks.F + ticks.B)
    if g == p and 2 * ticks.transfer <= min(ticks.F, ticks.B, ticks.W):
        return bubble + ((v + 1) * p - 2) * ticks.transfer
    if 2 * g >= p and ticks.transfer == 0 and ticks.F == ticks.B == ticks.W:
        return bubble + (p - g) * (v - 1) * ticks.F
    return None


def group_interleaved_1f1b_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(g(v-1) + p-r)·A on rank r, at most m·v·A, plus static bytes; equal stages, F allocates A."""
    turn = loop_ranks(_NAME, problem)
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    sizes, _ = _largest_that_fits(problem, turn)
    passes = problem.num_stages // problem.num_ranks * problem.num_microbatches
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(turn):
        held = min(forwards_ahead(problem, sizes[0], depth) + 1, passes)
        peaks[rank] += held * activation
    return tuple(peaks)


def group_sizes(problem: Problem) -> list[tuple[int, ...]]:
    """The ways to group the microbatches, the largest groups first: groups of p/2 to p, as even as can be.

    Fewer than p/2 microbatches are one group. Smaller groups would deadlock: a rank that is p-1 forwards
    ahead of the last would wait for a chunk that the last one still has to run.
    """
    p, m = problem.num_ranks, problem.num_microbatches
    least = -(-p // 2)
    fewest, most = -(-m // p), max(1, m // least)
    return [tuple(m // count + (n < m % count) for n in range(count)) for count in range(fewest, most + 1)]


def _largest_that_fits(problem: Problem, turn: tuple[int, ...]) -> tuple[tuple[int, ...], RankOrders]:
    """The group sizes, by halving since memory falls with them, and the orders with these."""
    choices = group_sizes(problem)
    low, high, middle = 0, len(choices) - 1, 0
    while low < high:
        if fits(problem, _peaks_in_groups(problem, turn, choices[middle])):
            high = middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return choices[middle], _orders(problem, turn, choices[middle])


def _peaks_in_groups(problem: Problem, turn: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The peak of every rank with these groups: that of its orders, which it does not lay out op by op."""
    forwards, backwards = (
        np.array([first for first, _ in passes]) for passes in passes_in_turn(problem, sizes)
    )
    on_forward = np.array([_changes(costs, (OpKind.F,)) for costs in problem.stages])
    on_backward = np.array([_changes(costs, _backward(costs)) for costs in problem.stages])
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(turn):
        ahead = min(forwards_ahead(problem, sizes[0], depth), len(forwards))
        changes = np.zeros((len(backwards), 6), dtype=np.int64)
        changes[: len(forwards) - ahead, :2] = on_forward[forwards[ahead:] + depth]
        changes[:, 2:] = on_backward[backwards + depth]
        live = np.cumsum(np.concatenate([on_forward[forwards[:ahead] + depth].ravel(), changes.ravel()]))
        peaks[rank] += max(0, int(live.max()))
    return tuple(peaks)


def _changes(costs: StageCosts, kinds: tuple[OpKind, ...]) -> list[int]:
    """What ops allocate and free in turn, bytes; two numbers for an F, four for a backward."""
    changes = [bytes_ for kind in kinds for bytes_ in _allocated_and_freed(costs.cost(kind))]
    return changes if OpKind.F in kinds else [*changes, 0, 0][:4]


def _allocated_and_freed(cost: OpCost) -> tuple[int, int]:
    return cost.alloc_bytes, -cost.free_bytes


def _backward(costs: StageCosts) -> tuple[OpKind, ...]:
    """The ops of a backward: divided wherever it can be."""
    return (OpKind.B, OpKind.W) if costs.can_divide else (OpKind.BW,)


def _orders(problem: Problem, turn: tuple[int, ...], sizes: tuple[int, ...]) -> RankOrders:
    forwards, backwards = passes_in_turn(problem, sizes)
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for depth, rank in enumerate(turn):
        ahead = min(forwards_ahead(problem, sizes[0], depth), len(forwards))
        forward = [Op(OpKind.F, first + depth, microbatch) for first, microbatch in forwards]
        order = forward[:ahead]
        for n, (first, microbatch) in enumerate(backwards):
            order += forward[n + ahead : n + ahead + 1]
            kinds = _backward(problem.stages[first + depth])
            order += [Op(kind, first + depth, microbatch) for kind in kinds]
        orders[rank] = tuple(order)
    return tuple(orders)


def passes_in_turn(
    problem: Problem, sizes: tuple[int, ...]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Every rank's forwards and backwards in turn: (first stage of the chunk, microbatch)."""
    chunks = range(0, problem.num_stages, problem.num_ranks)
    forwards: list[tuple[int, int]] = []
    backwards: list[tuple[int, int]] = []
    begin = 0
    for size in sizes:
        group = range(begin, begin + size)
        forwards += [(first, microbatch) for first in chunks for microbatch in group]
        backwards += [(first, microbatch) for first in reversed(chunks) for microbatch in group]
        begin += size
    return forwards, backwards


def forwards_ahead(problem: Problem, group: int, depth: int) -> int:
    """Forwards before the first backward's own: the other chunks' first group, and one per hop."""
    chunks = problem.num_stages // problem.num_ranks
    return group * (chunks - 1) + problem.num_ranks - 1 - depth
