"""Local search over orders: simulated annealing by swaps of neighbours on a rank, and by forms of backwards.

A swap keeps every stream (one kind of op on one stage) in microbatch order: identical microbatches gain
nothing from overtaking. Links are taken as free while searching; whoever takes the result times it again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from synth.compiled.annealing import (
    DIVIDED,
    WHOLE,
    Forms,
    Ops,
    Orders,
    Scratch,
    anneal,
    first_tails,
    longest_rank,
)
from synth.compiled.longest_path import group_by_source
from synth.graph import KINDS, Ints, OpGraph, build_graph, carried_microbatches, divided_in_orders
from synth.ops import Op, OpKind, RankOrders
from synth.problem import LARGEST_SUM, Links, Objective, Problem
from synth.search.divisions import open_stages, with_halves, without_halves
from synth.timing import earliest_starts


class Annealer:
    """Annealing under way, from given orders: run it in slices and read the best orders in between.

    Parameters
    ----------
    problem
        The problem; where a stage offers BW beside B and W and neither is better in everything, its backwards
        are divided and made whole on the way.
    orders
        What to start from, within the memory limits.
    seed
        Of the random moves; the same seed and slices give the same orders.

    Attributes
    ----------
    graph
        The ops and edges, with open backwards in halves (:mod:`synth.search.divisions`).
    ops, forms, orders
        The compiled graph, and the forms of backwards and the orders where the annealing stands.
    best_value
        The value of the best orders so far, ticks.
    """

    def __init__(self, problem: Problem, orders: RankOrders, seed: int) -> None:
        self._is_rank_span = problem.objective is Objective.RANK_SPAN
        stages = open_stages(problem)
        in_halves, whole = with_halves(orders, stages)
        self.graph = build_graph(problem, divided_in_orders(problem, in_halves))
        self.ops = _compiled_ops(self.graph)
        self.forms = _compiled_forms(self.graph, stages, whole)
        _take_forms(self.ops, self.forms)
        self.orders = _compiled_orders(self.graph, self.ops, self.graph.orders_to_ids(in_halves))
        first_tails(self.ops, self.orders)
        self._scratch = _scratch(self.graph.num_ops)
        self._random = np.random.SeedSequence(seed).generate_state(1, np.uint64) | np.uint64(1)
        self._best = self.orders.flat.copy()
        self._best_form = self.forms.form.copy()
        self.best_value = int(longest_rank(self.ops, self.orders)[0])

    @property
    def best_orders(self) -> RankOrders:
        """The best orders so far."""
        ids = np.split(self._best.astype(np.int64), self.orders.rank_start[1:-1])
        whole = frozenset(map(self.graph.op, self.forms.halves[self._best_form == WHOLE, 0]))
        return without_halves(self.graph.ids_to_orders(ids), whole)

    def forget(self) -> None:
        """Let the best orders be, from now on, the best of those to come."""
        self.best_value = LARGEST_SUM

    def run(self, moves: int, hot_ticks: float, cold_ticks: float) -> None:
        """Try so many moves while the temperature falls geometrically.

        Parameters
        ----------
        moves
            How many moves to try, at least 1.
        hot_ticks, cold_ticks
            The first and the last temperature: how much worse a move may be to be kept one time in e.
        """
        self.best_value = int(
            anneal(
                self.ops,
                self.forms,
                self.orders,
                self._scratch,
                self._random,
                self._is_rank_span,
                moves,
                hot_ticks,
                cold_ticks,
                self.best_value,
                self._best,
                self._best_form,
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
        ticks=graph.ticks.copy(),
        alloc=graph.alloc_bytes.copy(),
        free=graph.free_bytes.copy(),
        stream=_indices(graph.kind * problem.num_stages + graph.stage),
        edge_start=_indices(edge_start),
        edge_from=_indices(edge_from),
        edge_lag=edge_lag,
        successor_start=_indices(successor_start),
        successor=_indices(successor),
        successor_lag=successor_lag,
        room=np.array(room, dtype=np.int64),
    )


def _compiled_forms(graph: OpGraph, stages: frozenset[int], whole: frozenset[Op]) -> Forms:
    halves = _halves(graph, stages)
    form = [WHOLE if graph.op(number) in whole else DIVIDED for number in halves[:, 0]]
    return Forms(
        halves=halves,
        ticks=_by_form(graph, stages, graph.ticks, "ticks"),
        alloc=_by_form(graph, stages, graph.alloc_bytes, "alloc_bytes"),
        free=_by_form(graph, stages, graph.free_bytes, "free_bytes"),
        form=np.array(form, dtype=np.int64),
    )


def _halves(graph: OpGraph, stages: frozenset[int]) -> Ints:
    """The pairs (B, W) of some stages' ops, shape (pairs, 2)."""
    weights = np.flatnonzero((graph.kind == KINDS.index(OpKind.W)) & np.isin(graph.stage, list(stages)))
    backwards = graph.ids[KINDS.index(OpKind.B), graph.stage[weights], graph.microbatch[weights]]
    return np.stack([backwards, weights], axis=1)


def _by_form(graph: OpGraph, stages: frozenset[int], divided: Ints, name: str) -> Ints:
    """What every op takes while its backward is divided, and while it is whole, shape (2, ops)."""
    whole = divided.copy()
    for stage in stages:
        of_stage = graph.stage == stage
        whole[of_stage & (graph.kind == KINDS.index(OpKind.B))] = getattr(
            graph.problem.stages[stage].cost(OpKind.BW), name
        )
        whole[of_stage & (graph.kind == KINDS.index(OpKind.W))] = 0
    return np.stack([divided, whole])


def _take_forms(ops: Ops, forms: Forms) -> None:
    """Give the ops the ticks and bytes of their forms."""
    changed = forms.halves[forms.form == WHOLE].ravel()
    ops.ticks[changed] = forms.ticks[WHOLE, changed]
    ops.alloc[changed] = forms.alloc[WHOLE, changed]
    ops.free[changed] = forms.free[WHOLE, changed]


def _needed_edges(graph: OpGraph) -> tuple[Ints, Ints, Ints]:
    """All edges but those from F to the backward of a stage that feeds another: its way there implies it."""
    target = np.repeat(np.arange(graph.num_ops), np.diff(graph.edge_start))
    source = graph.edge_from
    turns = (graph.kind[source] == KINDS.index(OpKind.F)) & (graph.kind[target] != KINDS.index(OpKind.F))
    carried = carried_microbatches(graph.problem)
    feeds_on = np.zeros_like(carried)
    for stage, outputs in enumerate(graph.problem.outputs_by_stage):
        feeds_on[stage] = carried[stage] & carried[list(outputs)].any(axis=0)
    needed = ~turns | ~feeds_on[graph.stage[target], graph.microbatch[target]]
    start = np.concatenate([[0], np.cumsum(np.bincount(target[needed], minlength=graph.num_ops))])
    return start, source[needed], graph.edge_lag[needed]


def _indices(column: Ints) -> NDArray[np.uint32]:
    """Numbers of ops, ranks or spots, unsigned: numba need not ask whether they count from the end."""
    return column.astype(np.uint32)


def _compiled_orders(graph: OpGraph, ops: Ops, ids: list[Ints]) -> Orders:
    flat = np.concatenate(ids)
    rank_start = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(order) for order in ids], out=rank_start[1:])
    spot = np.argsort(flat)
    net = ops.alloc - ops.free
    free_links = replace(graph, problem=replace(graph.problem, links=Links.FREE), ticks=ops.ticks)
    starts = earliest_starts(free_links, ids)
    began = np.zeros(len(ids), dtype=np.int64)
    if graph.problem.objective is Objective.RANK_SPAN:
        began[:] = [starts[order[0]] for order in ids]
    # Starts rise along edges and orders, but for the W of a whole backward, which takes no time.
    topological = np.lexsort((spot, starts))
    return Orders(
        flat=_indices(flat),
        spot=_indices(spot),
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
