"""Earliest times of ordered ops by longest path."""

import numpy as np
from numba import njit


@njit(cache=True)
def group_by_source(edge_start, edge_from, edge_lag):
    """The same edges grouped by the op they lead from: (start of each op's, targets, lags)."""
    n = len(edge_start) - 1
    successor_start = np.zeros(n + 1, np.int64)
    for edge in range(len(edge_from)):
        successor_start[edge_from[edge] + 1] += 1
    for op in range(n):
        successor_start[op + 1] += successor_start[op]
    fill = successor_start[:-1].copy()
    successor = np.empty(len(edge_from), np.int64)
    successor_lag = np.empty(len(edge_from), np.int64)
    for op in range(n):
        for edge in range(edge_start[op], edge_start[op + 1]):
            source = edge_from[edge]
            successor[fill[source]] = op
            successor_lag[fill[source]] = edge_lag[edge]
            fill[source] += 1
    return successor_start, successor, successor_lag


@njit(cache=True)
def longest_path(flat, rank_start, rank_of, ticks, edge_start, edge_from, edge_lag, release, exclusive):
    """Kahn's algorithm over the graph's edges and the ranks' orders: (starts, whether each op was reached).

    An op enters the queue when its rank predecessor and all its graph predecessors are done. A rank's ops
    therefore leave the queue in its order, which is the order in which its transfers enter the links.
    """
    n = len(flat)
    num_ranks = len(rank_start) - 1
    successor_start, successor, successor_lag = group_by_source(edge_start, edge_from, edge_lag)
    waits = edge_start[1:] - edge_start[:-1]
    next_on_rank = np.full(n, -1, np.int64)
    starts = np.zeros(n, np.int64)
    for rank in range(num_ranks):
        for place in range(rank_start[rank], rank_start[rank + 1]):
            if place + 1 < rank_start[rank + 1]:
                next_on_rank[flat[place]] = flat[place + 1]
                waits[flat[place + 1]] += 1
        if rank_start[rank] < rank_start[rank + 1]:
            starts[flat[rank_start[rank]]] = release[rank]

    queue = np.empty(n, np.int64)
    tail = 0
    for op in range(n):
        if waits[op] == 0:
            queue[tail] = op
            tail += 1
    link_free = np.zeros((num_ranks, num_ranks), np.int64) if exclusive else np.zeros((1, 1), np.int64)
    done = np.zeros(n, np.bool_)
    head = 0
    while head < tail:
        op = queue[head]
        head += 1
        done[op] = True
        end = starts[op] + ticks[op]
        following = next_on_rank[op]
        if following >= 0:
            starts[following] = max(starts[following], end)
            waits[following] -= 1
            if waits[following] == 0:
                queue[tail] = following
                tail += 1
        for edge in range(successor_start[op], successor_start[op + 1]):
            target = successor[edge]
            arrival = end + successor_lag[edge]
            # What takes no time is no transfer: ranks that sum gradients wait for one another's last.
            if exclusive and successor_lag[edge] > 0 and rank_of[op] != rank_of[target]:
                sent = max(end, link_free[rank_of[op], rank_of[target]])
                arrival = sent + successor_lag[edge]
                link_free[rank_of[op], rank_of[target]] = arrival
            starts[target] = max(starts[target], arrival)
            waits[target] -= 1
            if waits[target] == 0:
                queue[tail] = target
                tail += 1
    return starts, done
