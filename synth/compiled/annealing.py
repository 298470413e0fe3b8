"""Simulated annealing over orders: swap two neighbours on a rank, time again what moves, keep or undo.

All ops stand in a topological order of the graph's edges and the ranks' orders. A swap changes it only
between the two ops' places, and new start times run down it until the change dies out.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

CRITICAL_SHARE = 0.8
"""Share of the moves that swap on a critical path; the rest swap anywhere."""


class Ops(NamedTuple):
    """The op graph: columns by op, edges grouped by target and by source, and the room of each rank."""

    rank: np.ndarray
    ticks: np.ndarray
    alloc: np.ndarray
    free: np.ndarray
    stream: np.ndarray
    edge_start: np.ndarray
    edge_from: np.ndarray
    edge_lag: np.ndarray
    successor_start: np.ndarray
    successor: np.ndarray
    room: np.ndarray


class Orders(NamedTuple):
    """The current orders and their times, changed in place."""

    flat: np.ndarray  # ops rank by rank, in order
    spot: np.ndarray  # where an op stands in flat
    rank_start: np.ndarray  # where a rank begins in flat
    level: np.ndarray  # bytes live before the op at each spot
    starts: np.ndarray
    topological: np.ndarray
    place: np.ndarray  # where an op stands in topological


class Scratch(NamedTuple):
    """Memory for one move and its undoing."""

    dirty: np.ndarray
    marked: np.ndarray
    moved: np.ndarray
    old_order: np.ndarray
    changed: np.ndarray
    old_starts: np.ndarray
    swaps: np.ndarray


@njit(cache=True, nogil=True)
def random_unit(state):
    """The next number in [0, 1) of a xorshift generator whose state is one nonzero 64-bit word."""
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return (x >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True, nogil=True)
def longest_rank(ops, orders, is_rank_span):
    """The objective's value and the last op of the rank that has it."""
    worst = -1
    tail = -1
    for rank in range(len(orders.rank_start) - 1):
        last = orders.flat[orders.rank_start[rank + 1] - 1]
        span = orders.starts[last] + ops.ticks[last]
        if is_rank_span:
            span -= orders.starts[orders.flat[orders.rank_start[rank]]]
        if span > worst:
            worst = span
            tail = last
    return worst, tail


@njit(cache=True, nogil=True)
def earliest(ops, orders, op):
    """The earliest start of an op whose predecessors are timed, and the op that holds it up (-1: none)."""
    at = 0
    holder = -1
    spot = orders.spot[op]
    if spot > orders.rank_start[ops.rank[op]]:
        holder = orders.flat[spot - 1]
        at = orders.starts[holder] + ops.ticks[holder]
    for edge in range(ops.edge_start[op], ops.edge_start[op + 1]):
        source = ops.edge_from[edge]
        arrival = orders.starts[source] + ops.ticks[source] + ops.edge_lag[edge]
        if arrival > at:
            at = arrival
            holder = source
    return at, holder


@njit(cache=True, nogil=True)
def critical_swaps(ops, orders, tail, swaps):
    """Collect the ops on the critical path to ``tail`` that their rank predecessor holds up; how many."""
    count = 0
    op = tail
    while op >= 0:
        _, holder = earliest(ops, orders, op)
        spot = orders.spot[op]
        on_rank = holder >= 0 and spot > orders.rank_start[ops.rank[op]] and orders.flat[spot - 1] == holder
        if on_rank and ops.stream[holder] != ops.stream[op]:
            swaps[count] = op
            count += 1
        op = holder
    return count


@njit(cache=True, nogil=True)
def hangs_on_marked(ops, orders, marked, op, first):
    """Whether an op waits for a marked one, the second of the swapped pair no longer for the first."""
    for edge in range(ops.edge_start[op], ops.edge_start[op + 1]):
        if marked[ops.edge_from[edge]]:
            return True
    spot = orders.spot[op]
    if spot == orders.rank_start[ops.rank[op]]:
        return False
    before = orders.flat[spot - 1]
    return before != first and marked[before]


@njit(cache=True, nogil=True)
def reorder(ops, orders, scratch, first, second):
    """Move the first, and all between that hangs on it, behind the second; False where that one hangs too."""
    low, high = orders.place[first], orders.place[second]
    scratch.marked[first] = True
    scratch.moved[0] = first
    moved = 1
    blocked = False
    for at in range(low + 1, high + 1):
        op = orders.topological[at]
        if hangs_on_marked(ops, orders, scratch.marked, op, first):
            if op == second:
                blocked = True
                break
            scratch.marked[op] = True
            scratch.moved[moved] = op
            moved += 1
    if not blocked:
        kept = low
        for at in range(low, high + 1):
            op = orders.topological[at]
            scratch.old_order[at - low] = op
            if not scratch.marked[op]:
                orders.topological[kept] = op
                orders.place[op] = kept
                kept += 1
        for k in range(moved):
            op = scratch.moved[k]
            orders.topological[kept + k] = op
            orders.place[op] = kept + k
    for k in range(moved):
        scratch.marked[scratch.moved[k]] = False
    return not blocked


@njit(cache=True, nogil=True)
def swap(orders, first, second):
    """Let the second of two neighbours on a rank run before the first."""
    spot = orders.spot[first]
    orders.flat[spot], orders.flat[spot + 1] = second, first
    orders.spot[second], orders.spot[first] = spot, spot + 1


@njit(cache=True, nogil=True)
def retime(ops, orders, scratch, at, first, second):
    """Time the swapped pair and what follows from it, from a place in the topological order on.

    Returns how many starts changed; ``changed`` and ``old_starts`` hold them.
    """
    waiting = 2
    scratch.dirty[first] = True
    scratch.dirty[second] = True
    following = orders.spot[first] + 1
    if following < orders.rank_start[ops.rank[first] + 1]:
        scratch.dirty[orders.flat[following]] = True
        waiting += 1
    count = 0
    while waiting > 0:
        op = orders.topological[at]
        at += 1
        if not scratch.dirty[op]:
            continue
        scratch.dirty[op] = False
        waiting -= 1
        start, _ = earliest(ops, orders, op)
        if start == orders.starts[op]:
            continue
        scratch.changed[count] = op
        scratch.old_starts[count] = orders.starts[op]
        count += 1
        orders.starts[op] = start
        following = orders.spot[op] + 1
        if following < orders.rank_start[ops.rank[op] + 1] and not scratch.dirty[orders.flat[following]]:
            scratch.dirty[orders.flat[following]] = True
            waiting += 1
        for edge in range(ops.successor_start[op], ops.successor_start[op + 1]):
            target = ops.successor[edge]
            if not scratch.dirty[target]:
                scratch.dirty[target] = True
                waiting += 1
    return count


@njit(cache=True, nogil=True)
def undo(orders, scratch, first, second, low, count):
    """Take back a swap, its times and its topological order."""
    swap(orders, second, first)
    for k in range(count):
        orders.starts[scratch.changed[k]] = scratch.old_starts[k]
    at = low
    while scratch.old_order[at - low] != second:
        at += 1
    for restored in range(low, at + 1):
        op = scratch.old_order[restored - low]
        orders.topological[restored] = op
        orders.place[op] = restored


@njit(cache=True, nogil=True)
def anneal(ops, orders, scratch, random_state, is_rank_span, moves, hot, cold, best_value, best_flat):
    """Try so many swaps while the temperature falls geometrically from hot to cold.

    Returns the best value; ``best_flat`` holds the orders that reached it, if any did better than before.
    """
    n = len(orders.flat)
    value, tail = longest_rank(ops, orders, is_rank_span)
    num_swaps = critical_swaps(ops, orders, tail, scratch.swaps)
    temperature = hot
    cooling = (cold / hot) ** (1.0 / moves)
    for _ in range(moves):
        temperature *= cooling
        if num_swaps > 0 and random_unit(random_state) < CRITICAL_SHARE:
            second = scratch.swaps[int(random_unit(random_state) * num_swaps)]
        else:
            second = orders.flat[int(random_unit(random_state) * n)]
        rank = ops.rank[second]
        spot = orders.spot[second]
        if spot == orders.rank_start[rank]:
            continue
        first = orders.flat[spot - 1]
        before = orders.level[spot - 1]
        between = before + ops.alloc[second] - ops.free[second]
        too_much = max(before + ops.alloc[second], between + ops.alloc[first]) > ops.room[rank]
        if too_much or ops.stream[first] == ops.stream[second]:
            continue
        low = orders.place[first]
        if not reorder(ops, orders, scratch, first, second):
            continue
        swap(orders, first, second)
        count = retime(ops, orders, scratch, low, first, second)
        new_value, new_tail = longest_rank(ops, orders, is_rank_span)
        if new_value > value and random_unit(random_state) >= np.exp((value - new_value) / temperature):
            undo(orders, scratch, first, second, low, count)
            continue
        orders.level[spot] = between
        value = new_value
        if count > 0 or new_tail != tail:
            tail = new_tail
            num_swaps = critical_swaps(ops, orders, tail, scratch.swaps)
        if value < best_value:
            best_value = value
            best_flat[:] = orders.flat
    return best_value
