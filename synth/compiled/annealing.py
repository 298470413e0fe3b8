"""Simulated annealing over orders: swap two neighbours on a rank where that is not too bad.

Where a backward may be left whole, moves divide it and make it whole as well.

All ops stand in a topological order of the graph's edges and the ranks' orders. Every op knows its start and
its tail, what the objective at least takes from its start on; so the longest path through two swapped ops
is known before anything moves (Taillard, "Parallel taboo search techniques for the job shop scheduling
problem", 1994), and only the swaps that are kept are carried through. That path's length, not the value, is
what annealing goes by: so ranks that are not the worst improve as well.

All in one file: numba's cache does not notice a change in a function that comes from another one.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

CRITICAL_SHARE = 0.8
"""Share of the moves that swap on a critical path; the rest swap anywhere."""

DIVIDED, WHOLE = 0, 1
"""The forms of a backward."""

FORM_SHARE = 0.05
"""Share of the moves that divide a backward or make it whole, where there is the choice."""

MOST_STALE = 16
"""So many swaps are kept before the critical path is looked for again."""


class Ops(NamedTuple):
    """The op graph: columns by op, edges grouped by target and by source, and the room of each rank.

    Ticks and bytes are those of the form that an op is in, and change with it: a B may stand for the whole
    backward, and its W then stands for nothing.
    """

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
    successor_lag: np.ndarray
    room: np.ndarray


class Forms(NamedTuple):
    """The backwards that may be divided or left whole; apart from the ops, which the hot loops read."""

    halves: np.ndarray  # pairs (B, W) of ops
    ticks: np.ndarray  # [DIVIDED or WHOLE, op], and so the next two
    alloc: np.ndarray
    free: np.ndarray
    form: np.ndarray  # DIVIDED or WHOLE, of each pair, changed in place


class Orders(NamedTuple):
    """The current orders and their times, changed in place."""

    flat: np.ndarray  # ops rank by rank, in order
    spot: np.ndarray  # where an op stands in flat
    rank_start: np.ndarray  # where a rank begins in flat
    level: np.ndarray  # bytes live before the op at each spot
    starts: np.ndarray
    tails: np.ndarray  # of each op: a start plus its tail is never more than the value
    began: np.ndarray  # when the span of each rank begins: 0 unless each rank counts from its own first op
    topological: np.ndarray
    place: np.ndarray  # where an op stands in topological


class Scratch(NamedTuple):
    """Memory for one move."""

    dirty: np.ndarray
    marked: np.ndarray
    moved: np.ndarray
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
def longest_rank(ops, orders):
    """The objective's value and the last op of the rank that has it."""
    worst = -1
    tail = -1
    for rank in range(len(orders.rank_start) - 1):
        last = orders.flat[orders.rank_start[rank + 1] - 1]
        span = orders.starts[last] + ops.ticks[last] - orders.began[rank]
        if span > worst:
            worst = span
            tail = last
    return worst, tail


@njit(cache=True, nogil=True)
def arrival(ops, orders, op):
    """When all that an op waits for from its graph predecessors has arrived."""
    at = 0
    for edge in range(ops.edge_start[op], ops.edge_start[op + 1]):
        source = ops.edge_from[edge]
        at = max(at, orders.starts[source] + ops.ticks[source] + ops.edge_lag[edge])
    return at


@njit(cache=True, nogil=True)
def rank_ready(ops, orders, spot, rank):
    """When a rank is done with what stands before a spot."""
    if spot == orders.rank_start[rank]:
        return 0
    before = orders.flat[spot - 1]
    return orders.starts[before] + ops.ticks[before]


@njit(cache=True, nogil=True)
def awaited(ops, orders, op):
    """The longest tail, with its lag, among the graph successors of an op; a large negative without any."""
    longest = -(2**62)
    for edge in range(ops.successor_start[op], ops.successor_start[op + 1]):
        longest = max(longest, ops.successor_lag[edge] + orders.tails[ops.successor[edge]])
    return longest


@njit(cache=True, nogil=True)
def rank_tail(ops, orders, spot, rank):
    """The tail of what stands behind a spot of a rank; behind the last, what ends the rank's span."""
    if spot + 1 == orders.rank_start[rank + 1]:
        return -orders.began[rank]
    return orders.tails[orders.flat[spot + 1]]


@njit(cache=True, nogil=True)
def value_through(ops, orders, first, second):
    """The longest path through two neighbours on a rank once the second runs before the first."""
    rank = ops.rank[first]
    spot = orders.spot[first]
    start = max(arrival(ops, orders, second), rank_ready(ops, orders, spot, rank))
    end = start + ops.ticks[second]
    first_start = max(arrival(ops, orders, first), end)
    first_tail = ops.ticks[first] + max(awaited(ops, orders, first), rank_tail(ops, orders, spot + 1, rank))
    return max(first_start + first_tail, end + max(first_tail, awaited(ops, orders, second)))


@njit(cache=True, nogil=True)
def critical_swaps(ops, orders, tail, swaps):
    """Collect the ops on the critical path to ``tail`` that their rank predecessor holds up; how many."""
    count = 0
    op = tail
    while op >= 0:
        start = orders.starts[op]
        spot = orders.spot[op]
        holder = -1
        if spot > orders.rank_start[ops.rank[op]]:
            before = orders.flat[spot - 1]
            if orders.starts[before] + ops.ticks[before] == start:
                holder = before
                if ops.stream[before] != ops.stream[op]:
                    swaps[count] = op
                    count += 1
        if holder < 0:
            for edge in range(ops.edge_start[op], ops.edge_start[op + 1]):
                source = ops.edge_from[edge]
                if orders.starts[source] + ops.ticks[source] + ops.edge_lag[edge] == start:
                    holder = source
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
def exchange(ops, orders, first, second):
    """Let the second of two neighbours on a rank run before the first."""
    spot = orders.spot[first]
    orders.flat[spot], orders.flat[spot + 1] = second, first
    orders.spot[second], orders.spot[first] = spot, spot + 1
    orders.level[spot + 1] = orders.level[spot] + ops.alloc[second] - ops.free[second]


@njit(cache=True, nogil=True)
def move_starts(ops, orders, dirty, first, second):
    """Time the swapped pair, the second now before the first, and what follows from it."""
    dirty[first] = True
    dirty[second] = True
    waiting = 2
    following = orders.spot[first] + 1
    if following < orders.rank_start[ops.rank[first] + 1]:
        dirty[orders.flat[following]] = True
        waiting += 1
    at = orders.place[second]
    while waiting > 0:
        op = orders.topological[at]
        at += 1
        if not dirty[op]:
            continue
        dirty[op] = False
        waiting -= 1
        rank = ops.rank[op]
        spot = orders.spot[op]
        start = max(arrival(ops, orders, op), rank_ready(ops, orders, spot, rank))
        if start == orders.starts[op]:
            continue
        orders.starts[op] = start
        if spot + 1 < orders.rank_start[rank + 1] and not dirty[orders.flat[spot + 1]]:
            dirty[orders.flat[spot + 1]] = True
            waiting += 1
        for edge in range(ops.successor_start[op], ops.successor_start[op + 1]):
            target = ops.successor[edge]
            if not dirty[target]:
                dirty[target] = True
                waiting += 1


@njit(cache=True, nogil=True)
def move_tails(ops, orders, dirty, first, second, is_rank_span):
    """The same for tails, against the order, and from the end of every rank whose span begins anew."""
    dirty[first] = True
    dirty[second] = True
    waiting = 2
    at = orders.place[first]
    if orders.spot[second] > orders.rank_start[ops.rank[second]]:
        dirty[orders.flat[orders.spot[second] - 1]] = True
        waiting += 1
    if is_rank_span:
        for rank in range(len(orders.rank_start) - 1):
            began = orders.starts[orders.flat[orders.rank_start[rank]]]
            if began != orders.began[rank]:
                orders.began[rank] = began
                last = orders.flat[orders.rank_start[rank + 1] - 1]
                at = max(at, orders.place[last])
                if not dirty[last]:
                    dirty[last] = True
                    waiting += 1
    while waiting > 0:
        op = orders.topological[at]
        at -= 1
        if not dirty[op]:
            continue
        dirty[op] = False
        waiting -= 1
        rank = ops.rank[op]
        spot = orders.spot[op]
        tail = ops.ticks[op] + max(awaited(ops, orders, op), rank_tail(ops, orders, spot, rank))
        if tail == orders.tails[op]:
            continue
        orders.tails[op] = tail
        if spot > orders.rank_start[rank] and not dirty[orders.flat[spot - 1]]:
            dirty[orders.flat[spot - 1]] = True
            waiting += 1
        for edge in range(ops.edge_start[op], ops.edge_start[op + 1]):
            source = ops.edge_from[edge]
            if not dirty[source]:
                dirty[source] = True
                waiting += 1


@njit(cache=True, nogil=True)
def first_tails(ops, orders):
    """Work out all tails from nothing."""
    for at in range(len(orders.flat) - 1, -1, -1):
        op = orders.topological[at]
        behind = rank_tail(ops, orders, orders.spot[op], ops.rank[op])
        orders.tails[op] = ops.ticks[op] + max(awaited(ops, orders, op), behind)


@njit(cache=True, nogil=True)
def swap(ops, orders, scratch, first, second, is_rank_span):
    """Let the second of two neighbours run before the first; False, and nothing done, where it cannot."""
    if not reorder(ops, orders, scratch, first, second):
        return False
    exchange(ops, orders, first, second)
    move_starts(ops, orders, scratch.dirty, first, second)
    move_tails(ops, orders, scratch.dirty, first, second, is_rank_span)
    return True


@njit(cache=True, nogil=True)
def through_halves(forms, orders, pair):
    """The longest path through a backward and its W."""
    backward, weight = forms.halves[pair, 0], forms.halves[pair, 1]
    return max(orders.starts[backward] + orders.tails[backward], orders.starts[weight] + orders.tails[weight])


@njit(cache=True, nogil=True)
def change_form(ops, forms, orders, pair):
    """Divide a backward or make it whole, without timing; False, and nothing done, where it does not fit."""
    backward, weight = forms.halves[pair, 0], forms.halves[pair, 1]
    rank = ops.rank[backward]
    form = 1 - forms.form[pair]
    live = orders.level[orders.spot[backward]]
    for spot in range(orders.spot[backward], orders.rank_start[rank + 1]):
        op = orders.flat[spot]
        changes = op in (backward, weight)
        alloc = forms.alloc[form, op] if changes else ops.alloc[op]
        if live + alloc > ops.room[rank]:
            return False
        live += alloc - (forms.free[form, op] if changes else ops.free[op])
    forms.form[pair] = form
    for op in (backward, weight):
        ops.ticks[op] = forms.ticks[form, op]
        ops.alloc[op] = forms.alloc[form, op]
        ops.free[op] = forms.free[form, op]
    for spot in range(orders.spot[backward] + 1, orders.rank_start[rank + 1]):
        before = orders.flat[spot - 1]
        orders.level[spot] = orders.level[spot - 1] + ops.alloc[before] - ops.free[before]
    return True


@njit(cache=True, nogil=True)
def time_all(ops, orders, is_rank_span):
    """Work out all starts and tails anew: forms change rarely."""
    for at in range(len(orders.flat)):
        op = orders.topological[at]
        ready = rank_ready(ops, orders, orders.spot[op], ops.rank[op])
        orders.starts[op] = max(arrival(ops, orders, op), ready)
    if is_rank_span:
        for rank in range(len(orders.rank_start) - 1):
            orders.began[rank] = orders.starts[orders.flat[orders.rank_start[rank]]]
    first_tails(ops, orders)


@njit(cache=True, nogil=True)
def try_form(ops, forms, orders, random_state, is_rank_span, temperature, value):
    """Divide a random backward or make it whole where that is not too bad; whether it was done."""
    pair = int(random_unit(random_state) * len(forms.halves))
    most = through_halves(forms, orders, pair) - temperature * np.log(1.0 - random_unit(random_state))
    if not change_form(ops, forms, orders, pair):
        return False
    time_all(ops, orders, is_rank_span)
    through = through_halves(forms, orders, pair)
    if through <= most and longest_rank(ops, orders)[0] <= max(value, most):
        return True
    change_form(ops, forms, orders, pair)
    time_all(ops, orders, is_rank_span)
    return False


@njit(cache=True, nogil=True)
def anneal(
    ops,
    forms,
    orders,
    scratch,
    random_state,
    is_rank_span,
    moves,
    hot,
    cold,
    best_value,
    best_flat,
    best_form,
):
    """Try so many moves while the temperature falls geometrically from hot to cold.

    Returns the best value; ``best_flat`` holds the orders that reached it, and ``best_form`` the forms of
    backwards, if any did better than before.
    """
    n = len(orders.flat)
    value, tail = longest_rank(ops, orders)
    num_swaps = critical_swaps(ops, orders, tail, scratch.swaps)
    stale = 0
    temperature = hot
    cooling = (cold / hot) ** (1.0 / moves)
    for _ in range(moves):
        temperature *= cooling
        if len(forms.halves) > 0 and random_unit(random_state) < FORM_SHARE:
            if try_form(ops, forms, orders, random_state, is_rank_span, temperature, value):
                value, tail = longest_rank(ops, orders)
                num_swaps = critical_swaps(ops, orders, tail, scratch.swaps)
                stale = 0
                if value < best_value:
                    best_value = value
                    best_flat[:] = orders.flat
                    best_form[:] = forms.form
            continue
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
        through = max(
            orders.starts[first] + orders.tails[first], orders.starts[second] + orders.tails[second]
        )
        most = through - temperature * np.log(1.0 - random_unit(random_state))
        if value_through(ops, orders, first, second) > most:
            continue
        if not swap(ops, orders, scratch, first, second, is_rank_span):
            continue
        new_value, new_tail = longest_rank(ops, orders)
        if new_value > max(value, most):  # some rank's span begins earlier, which is seen only now
            swap(ops, orders, scratch, second, first, is_rank_span)
            continue
        stale += 1
        if new_value != value or new_tail != tail or stale == MOST_STALE:
            num_swaps = critical_swaps(ops, orders, new_tail, scratch.swaps)
            stale = 0
        value = new_value
        tail = new_tail
        if value < best_value:
            best_value = value
            best_flat[:] = orders.flat
            best_form[:] = forms.form
    return best_value
