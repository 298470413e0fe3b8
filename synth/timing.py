"""Timing: the earliest times of given orders, by longest path. The one place where times are made.

Under exclusive links the transfers of one ordered rank pair queue up in the order in which the sending rank
ends their producers; that order follows from the sender's own order, so timing stays a longest path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from synth.errors import DeadlockError, WaitingRank
from synth.graph import Ints, OpGraph, build_graph, divided_in_orders
from synth.ops import RankOrders, TimedOp
from synth.problem import Links, Problem
from synth.schedule import Schedule


def schedule_orders(
    problem: Problem, orders: RankOrders, *, release_ticks: Sequence[int] | None = None
) -> Schedule:
    """Give orders their earliest times.

    Parameters
    ----------
    problem
        The problem.
    orders
        For every rank, its ops in execution order: every op of the problem once.
    release_ticks
        For every rank, a time before which it starts nothing; all 0 by default.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold exactly the problem's ops.
    DeadlockError
        When the ranks wait for one another.
    """
    graph = build_graph(problem, divided_in_orders(problem, orders))
    ids = graph.orders_to_ids(orders)
    starts = earliest_starts(graph, ids, release_ticks=release_ticks)
    return timed_schedule(graph, ids, starts)


def timed_schedule(graph: OpGraph, ids: list[Ints], starts: Ints) -> Schedule:
    """The schedule of per-rank op numbers and start times, shape (ops,)."""
    orders = graph.ids_to_orders(ids)
    ends = starts + graph.ticks
    ranks = tuple(
        tuple(map(TimedOp, order, starts[numbers].tolist(), ends[numbers].tolist()))
        for order, numbers in zip(orders, ids, strict=True)
    )
    return Schedule(graph.problem, ranks)


def earliest_starts(
    graph: OpGraph,
    ids: list[Ints],
    *,
    ticks: Ints | None = None,
    release_ticks: Sequence[int] | None = None,
) -> Ints:
    """The earliest start of every op, linear in ops and edges.

    Parameters
    ----------
    graph
        The ops and edges.
    ids
        Per rank, op numbers in execution order.
    ticks
        Op durations to use instead of the graph's, shape (ops,).
    release_ticks
        Per rank, a time before which it starts nothing.

    Returns
    -------
    Starts in ticks, shape (ops,).

    Raises
    ------
    DeadlockError
        With each unfinished rank's next op and what it waits for.
    """
    flat = np.concatenate(ids)
    rank_start = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(order) for order in ids], out=rank_start[1:])
    release = (
        np.zeros(len(ids), dtype=np.int64)
        if release_ticks is None
        else np.array(release_ticks, dtype=np.int64)
    )
    duration = graph.ticks if ticks is None else ticks
    exclusive = graph.problem.links is Links.EXCLUSIVE
    starts: Ints
    starts, done = _longest_path(
        flat,
        rank_start,
        graph.rank,
        duration,
        graph.edge_start,
        graph.edge_from,
        graph.edge_lag,
        release,
        exclusive,
    )
    if not done.all():
        raise DeadlockError(_waiting(graph, ids, done))
    return starts


@njit(cache=True)
def _longest_path(flat, rank_start, rank_of, ticks, edge_start, edge_from, edge_lag, release, exclusive):  # type: ignore[no-untyped-def]
    """Kahn's algorithm over the graph's edges and the ranks' orders: (starts, whether each op was reached).

    An op enters the queue when its rank predecessor and all its graph predecessors are done. A rank's ops
    therefore leave the queue in its order, which is the order in which its transfers enter the links.
    """
    n = len(flat)
    num_ranks = len(rank_start) - 1
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
            if exclusive and rank_of[op] != rank_of[target]:
                sent = max(end, link_free[rank_of[op], rank_of[target]])
                arrival = sent + successor_lag[edge]
                link_free[rank_of[op], rank_of[target]] = arrival
            starts[target] = max(starts[target], arrival)
            waits[target] -= 1
            if waits[target] == 0:
                queue[tail] = target
                tail += 1
    return starts, done


def _waiting(graph: OpGraph, ids: list[Ints], done: Ints) -> list[WaitingRank]:
    waiting = []
    for rank, order in enumerate(ids):
        left = order[~done[order]]
        if len(left):
            awaited = [graph.op(source) for source, _ in graph.predecessors(left[0]) if not done[source]]
            waiting.append(WaitingRank(rank, str(graph.op(left[0])), tuple(map(str, awaited))))
    return waiting
