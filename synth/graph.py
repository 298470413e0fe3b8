"""The op graph: every op of a problem with its rank, ticks and bytes, and the edges between ops.

Everything that times, searches or bounds works on this graph and never on stages and microbatches, so a
new feature of the problem becomes ops and edges here and nowhere else. Only the verifier derives its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synth.errors import InvalidOrdersError, InvalidProblemError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

Ints = NDArray[np.int64]
KINDS = (OpKind.F, OpKind.B, OpKind.W, OpKind.BW, OpKind.R)
"""The kinds by their code in :attr:`OpGraph.kind`."""
_F, _B, _W, _BW, _R = range(5)

MOST_OPS = 3_000_000
"""Problems with more ops than this are not put into a graph: it would not fit the memory of a machine."""


@dataclass(frozen=True, slots=True, eq=False)
class OpGraph:
    """Ops as columns, edges as rows of predecessors.

    Parameters
    ----------
    problem
        What the graph was built from.
    kind, stage, microbatch
        What op n is, shape (ops,); ``kind`` indexes :data:`KINDS`.
    rank, ticks, alloc_bytes, free_bytes
        Where it runs and what it takes, shape (ops,).
    edge_start, edge_from, edge_lag
        The predecessors of op n are ``edge_from[edge_start[n]:edge_start[n + 1]]``; n may start once each has
        ended and its lag in ticks has passed. Shapes (ops + 1,), (edges,), (edges,).
    ids
        The op's number by [kind, stage, microbatch], -1 where the graph has no such op.
    """

    problem: Problem
    kind: Ints
    stage: Ints
    microbatch: Ints
    rank: Ints
    ticks: Ints
    alloc_bytes: Ints
    free_bytes: Ints
    edge_start: Ints
    edge_from: Ints
    edge_lag: Ints
    ids: Ints

    @property
    def num_ops(self) -> int:
        """How many ops there are."""
        return len(self.kind)

    def op(self, number: int) -> Op:
        """Op n as a value."""
        return Op(KINDS[self.kind[number]], int(self.stage[number]), int(self.microbatch[number]))

    def predecessors(self, number: int) -> list[tuple[int, int]]:
        """The (op, lag) pairs op n waits for."""
        span = slice(self.edge_start[number], self.edge_start[number + 1])
        return list(zip(self.edge_from[span].tolist(), self.edge_lag[span].tolist(), strict=True))

    def orders_to_ids(self, orders: RankOrders) -> list[Ints]:
        """Per-rank op numbers of per-rank ops.

        Raises
        ------
        InvalidOrdersError
            When the orders do not hold exactly the graph's ops, each on its rank.
        """
        _, num_stages, num_microbatches = self.ids.shape
        result = []
        seen = np.zeros(self.num_ops, dtype=bool)
        for rank, order in enumerate(orders):
            kinds, stages, microbatches = _columns(order)
            inside = (
                (stages >= 0)
                & (stages < num_stages)
                & (microbatches >= 0)
                & (microbatches < num_microbatches)
            )
            if not inside.all():
                raise InvalidOrdersError(
                    f"rank {rank} runs {order[int(np.argmin(inside))]}, which the problem lacks"
                )
            numbers = self.ids[kinds, stages, microbatches]
            if (numbers < 0).any():
                raise InvalidOrdersError(
                    f"rank {rank} runs {order[int(np.argmax(numbers < 0))]}, which the problem lacks"
                )
            misplaced = self.rank[numbers] != rank
            if misplaced.any():
                wrong = numbers[misplaced][0]
                raise InvalidOrdersError(
                    f"rank {rank} runs {self.op(wrong)}, which belongs on rank {self.rank[wrong]}"
                )
            seen[numbers] = True
            if len(np.unique(numbers)) != len(numbers):
                values, counts = np.unique(numbers, return_counts=True)
                raise InvalidOrdersError(f"rank {rank} runs {self.op(values[counts > 1][0])} twice")
            result.append(numbers)
        if not seen.all():
            missing = int(np.argmin(seen))
            raise InvalidOrdersError(
                f"no rank runs {self.op(missing)}; it belongs on rank {self.rank[missing]}"
            )
        return result

    def ids_to_orders(self, ids: list[Ints]) -> RankOrders:
        """Per-rank ops of per-rank op numbers."""
        kinds = [KINDS[kind] for kind in self.kind.tolist()]
        ops = list(map(Op, kinds, self.stage.tolist(), self.microbatch.tolist()))
        return tuple(tuple(map(ops.__getitem__, order.tolist())) for order in ids)


def check_size(problem: Problem) -> None:
    """Make sure that a problem's ops can be laid out one by one.

    Raises
    ------
    InvalidProblemError
        When there are more than :data:`MOST_OPS`.
    """
    most = MOST_OPS // (3 * problem.num_stages)
    if problem.num_microbatches > most:
        raise InvalidProblemError(
            "num_microbatches",
            problem.num_microbatches,
            f"with {problem.num_stages} stages give at most {most}; a steady state repeats after far fewer",
        )


def divided_backwards(problem: Problem) -> NDArray[np.bool_]:
    """The default choice of [stage, microbatch] backwards to divide: wherever a stage offers B and W."""
    divided = np.array([costs.can_divide for costs in problem.stages])
    return divided[:, None] & carried_microbatches(problem)


def carried_microbatches(problem: Problem) -> NDArray[np.bool_]:
    """Which [stage, microbatch] there are: in a plain chain, all."""
    if not problem.feeds:
        return np.ones((problem.num_stages, problem.num_microbatches), dtype=bool)
    carried = np.zeros((problem.num_stages, problem.num_microbatches), dtype=bool)
    for stage, feed in enumerate(problem.feeds):
        carried[stage, list(feed.microbatches)] = True
    return carried


def divided_in_orders(problem: Problem, orders: RankOrders) -> NDArray[np.bool_]:
    """Which [stage, microbatch] backwards the orders divide: those with a B."""
    divided = np.zeros((problem.num_stages, problem.num_microbatches), dtype=bool)
    for order in orders:
        kinds, stages, microbatches = _columns(order)
        known = (kinds == _B) & (stages < problem.num_stages) & (microbatches < problem.num_microbatches)
        divided[stages[known], microbatches[known]] = True
    return divided


def _columns(order: Sequence[Op]) -> tuple[Ints, Ints, Ints]:
    """Kind codes, stages and microbatches of an order."""
    if not order:
        return (np.zeros(0, dtype=np.int64),) * 3
    code = {kind: n for n, kind in enumerate(KINDS)}
    kinds, stages, microbatches = zip(*order, strict=True)
    codes = np.array(list(map(code.__getitem__, kinds)), dtype=np.int64)
    return codes, np.array(stages, dtype=np.int64), np.array(microbatches, dtype=np.int64)


def build_graph(problem: Problem, divided: NDArray[np.bool_] | None = None) -> OpGraph:
    """Build the op graph of a problem.

    F waits for the F of its stage's inputs, in a chain F(s) for F(s-1); B or BW for its stage's F and the
    backwards of the stages it feeds; W for B; an edge between ranks has the pair's transfer time as its lag
    (FORMATS.md, Dependencies). R waits for all weight gradients of its stage and of the stage's replicas.

    Parameters
    ----------
    problem
        The problem.
    divided
        Which [stage, microbatch] backwards are B and W rather than BW; by default all that can be.
    """
    check_size(problem)
    if divided is None:
        divided = divided_backwards(problem)
    shape = (problem.num_stages, problem.num_microbatches)
    carried = carried_microbatches(problem)
    present = np.zeros((len(KINDS), *shape), dtype=bool)
    present[_F] = carried
    present[_B] = present[_W] = carried & divided
    present[_BW] = carried & ~divided
    present[_R, :, 0] = [costs.R is not None for costs in problem.stages]
    for s, costs in enumerate(problem.stages):
        if (present[_B, s].any() and not costs.can_divide) or (present[_BW, s].any() and costs.must_divide):
            missing = OpKind.BW if costs.must_divide else OpKind.B
            raise InvalidOrdersError(f"stage {s} runs {missing}, which its costs do not offer")
    ids = np.full((len(KINDS), *shape), -1, dtype=np.int64)
    kind, stage, microbatch = (column.astype(np.int64) for column in np.nonzero(present))
    ids[kind, stage, microbatch] = np.arange(len(kind))
    edge_start, edge_from, edge_lag = _edges(problem, ids, len(kind))

    def column(name: str) -> Ints:
        table = np.zeros((len(KINDS), problem.num_stages), dtype=np.int64)
        for s, costs in enumerate(problem.stages):
            for k, op_kind in enumerate(KINDS):
                cost = getattr(costs, op_kind.value)
                table[k, s] = 0 if cost is None else getattr(cost, name)
        return table[kind, stage]

    return OpGraph(
        problem=problem,
        kind=kind,
        stage=stage,
        microbatch=microbatch,
        rank=np.array(problem.stage_to_rank, dtype=np.int64)[stage],
        ticks=column("ticks"),
        alloc_bytes=column("alloc_bytes"),
        free_bytes=column("free_bytes"),
        edge_start=edge_start,
        edge_from=edge_from,
        edge_lag=edge_lag,
        ids=ids,
    )


def _edges(problem: Problem, ids: Ints, num_ops: int) -> tuple[Ints, Ints, Ints]:
    """All edges, grouped by the op they lead to."""
    backward = np.maximum(ids[_B], ids[_BW])
    pieces: list[tuple[Ints, Ints, int]] = []  # (from, to, lag); what is not there is -1
    inputs, outputs = problem.inputs_by_stage, problem.outputs_by_stage
    for stage in range(problem.num_stages):
        for before in inputs[stage]:
            pieces.append((ids[_F, before], ids[_F, stage], problem.lag_ticks(before, stage)))
        pieces.append((ids[_F, stage], backward[stage], 0))
        for after in outputs[stage]:
            pieces.append((backward[after], backward[stage], problem.lag_ticks(after, stage)))
        pieces.append((ids[_B, stage], ids[_W, stage], 0))
    if any(costs.R is not None for costs in problem.stages):
        gradient = np.maximum(ids[_W], ids[_BW])
        for stage, replicas in enumerate(problem.replicas_by_stage):
            for replica in replicas:
                reduced = np.full(problem.num_microbatches, ids[_R, stage, 0])
                pieces.append((gradient[replica], reduced, 0))
    source = np.concatenate([piece[0] for piece in pieces])
    target = np.concatenate([piece[1] for piece in pieces])
    lag = np.concatenate([np.full(len(piece[0]), piece[2], dtype=np.int64) for piece in pieces])
    there = (source >= 0) & (target >= 0)
    source, target, lag = source[there], target[there], lag[there]
    by_target = np.argsort(target, kind="stable")
    start = np.zeros(num_ops + 1, dtype=np.int64)
    np.cumsum(np.bincount(target, minlength=num_ops), out=start[1:])
    return start, source[by_target], lag[by_target]
