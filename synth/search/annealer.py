"""Local search over orders: simulated annealing by swaps of neighbours on a rank.

A swap keeps every stream (one kind of op on one stage) in microbatch order: identical microbatches gain
nothing from overtaking. Links are taken as free while searching; whoever takes the result times it again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from synth.compiled.annealing import Ops, Orders, Scratch, anneal, first_tails, longest_rank
from synth.compiled.longest_path import group_by_source
from synth.graph import KINDS, Ints, OpGraph
from synth.ops import OpKind
from synth.problem import LARGEST_SUM, Links, Objective
from synth.timing import earliest_starts


class Annealer:
    """Annealing under way, from given orders: run it in slices and read the best orders in between.

    Parameters
    ----------
    graph
        The ops and edges.
    ids
        Per-rank op numbers to start from, within the memory limits.
    seed
        Of the random moves; the same seed and slices give the same orders.

    Attributes
    ----------
    ops, orders
        The compiled graph, and the orders where the annealing stands.
    best_value
        The value of the best orders so far, ticks.
    """

    def __init__(self, graph: OpGraph, ids: list[Ints], seed: int) -> None:
        self._is_rank_span = graph.problem.objective is Objective.RANK_SPAN
        self.ops = _compiled_ops(graph)
        self.orders = _compiled_orders(graph, ids)
        first_tails(self.ops, self.orders)
        self._scratch = _scratch(graph.num_ops)
        self._random = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
        self._best = self.orders.flat.copy()
        self.best_value = int(longest_rank(self.ops, self.orders)[0])

    @property
    def best_ids(self) -> list[Ints]:
        """The best per-rank op numbers so far."""
        return np.split(self._best.astype(np.int64), self.orders.rank_start[1:-1])

    def run(self, moves: int, hot_ticks: float, cold_ticks: float) -> None:
        """Try so many swaps while the temperature falls geometrically.

        Parameters
        ----------
        moves
            How many swaps to try, at least 1.
        hot_ticks, cold_ticks
            The first and the last temperature: how much worse a move may be to be kept one time in e.
        """
        self.best_value = int(
            anneal(
                self.ops,
                self.orders,
                self._scratch,
                self._random,
                self._is_rank_span,
                moves,
                hot_ticks,
                cold_ticks,
                self.best_value,
                self._best,
            )
        )


def _compiled_ops(graph: OpGraph) -> Ops:
    problem = graph.problem
    edge_start, edge_from, edge_lag = _needed_edges(graph)
    limits, static = problem.memory_limit_bytes, problem.static_bytes_by_rank
    room = [LARGEST_SUM] * problem.num_ranks if limits is None else np.subtract(limits, static).tolist()
    successor_start, successor, successor_lag = group_by_source(edge_start, edge_from, edge_lag)
    return Ops(
        rank=_indices(graph.rank),
        ticks=graph.ticks,
        alloc=graph.alloc_bytes,
        free=graph.free_bytes,
        stream=_indices(graph.kind * problem.num_stages + graph.stage),
        edge_start=_indices(edge_start),
        edge_from=_indices(edge_from),
        edge_wait=graph.ticks[edge_from] + edge_lag,
        successor_start=_indices(successor_start),
        successor=_indices(successor),
        successor_lag=successor_lag,
        room=np.array(room, dtype=np.int64),
    )


def _needed_edges(graph: OpGraph) -> tuple[Ints, Ints, Ints]:
    """All edges but those from F to B or BW of a stage before the last, which the chains imply."""
    target = np.repeat(np.arange(graph.num_ops), np.diff(graph.edge_start))
    source = graph.edge_from
    turns = (graph.kind[source] == KINDS.index(OpKind.F)) & (graph.kind[target] != KINDS.index(OpKind.F))
    needed = ~turns | (graph.stage[target] == graph.problem.num_stages - 1)
    start = np.concatenate([[0], np.cumsum(np.bincount(target[needed], minlength=graph.num_ops))])
    return start, source[needed], graph.edge_lag[needed]


def _indices(column: Ints) -> NDArray[np.uint32]:
    """Numbers of ops, ranks or spots, unsigned: numba need not ask whether they count from the end."""
    return column.astype(np.uint32)


def _compiled_orders(graph: OpGraph, ids: list[Ints]) -> Orders:
    flat = np.concatenate(ids)
    rank_start = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(order) for order in ids], out=rank_start[1:])
    net = graph.alloc_bytes - graph.free_bytes
    free_links = replace(graph, problem=replace(graph.problem, links=Links.FREE))
    starts = earliest_starts(free_links, ids)
    began = np.zeros(len(ids), dtype=np.int64)
    if graph.problem.objective is Objective.RANK_SPAN:
        began[:] = [starts[order[0]] for order in ids]
    # Every op takes at least a tick, so starts rise along edges.
    topological = np.argsort(starts, kind="stable")
    return Orders(
        flat=_indices(flat),
        spot=_indices(np.argsort(flat)),
        rank_start=_indices(rank_start),
        level=np.concatenate([np.cumsum(net[order]) - net[order] for order in ids]),
        starts=starts,
        tails=np.zeros(graph.num_ops, dtype=np.int64),
        began=began,
        topological=_indices(topological),
        place=_indices(np.argsort(topological)),
    )


def _scratch(num_ops: int) -> Scratch:
    flags = [np.zeros(num_ops, dtype=np.bool_) for _ in range(2)]
    numbers = [np.empty(num_ops, dtype=np.uint32) for _ in range(2)]
    return Scratch(*flags, *numbers)
