"""Timing: the earliest times of given orders, by longest path. The one place where times are made.

Under exclusive links the transfers of one ordered rank pair queue up in the order in which the sending rank
ends their producers; that order follows from the sender's own order, so timing stays a longest path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synth.compiled.longest_path import longest_path
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
        For every rank, a time before which it starts nothing, at least 0; all 0 by default.

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
    ends = starts + graph.ticks
    ranks = tuple(
        tuple(map(TimedOp, order, starts[numbers].tolist(), ends[numbers].tolist()))
        for order, numbers in zip(orders, ids, strict=True)
    )
    return Schedule(problem, ranks)


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
        Per rank, a time before which it starts nothing, at least 0.

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
    starts, done = longest_path(
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


def _waiting(graph: OpGraph, ids: list[Ints], done: Ints) -> list[WaitingRank]:
    waiting = []
    for rank, order in enumerate(ids):
        left = order[~done[order]]
        if len(left):
            awaited = [graph.op(source) for source, _ in graph.predecessors(left[0]) if not done[source]]
            waiting.append(WaitingRank(rank, str(graph.op(left[0])), tuple(map(str, awaited))))
    return waiting
