"""A plain list schedule for any problem and limit: the start that exists even where no published one fits."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from synth.graph import KINDS, OpGraph, build_graph
from synth.memory import serial_orders, smallest_limits_bytes
from synth.ops import OpKind, RankOrders
from synth.problem import Problem

_RANKING = {OpKind.B: 0, OpKind.BW: 0, OpKind.F: 1, OpKind.W: 2}


def greedy_orders(
    problem: Problem, divided: NDArray[np.bool_] | None = None, delay: float = 1.0
) -> RankOrders:
    """Order ops as they become available, with as many microbatches in flight as every limit allows.

    A microbatch enters the first stage only once the one that many before it has left it again. Among
    available ops that fit, a rank prefers backwards, then the forward of its highest stage, then W. Falls
    back on one microbatch at a time.

    Parameters
    ----------
    problem
        A problem whose limits some schedule fits (:func:`synth.memory.check_feasible`).
    divided
        Which [stage, microbatch] backwards are B and W rather than BW; by default all that can be.
    delay
        By how much another op may make a backward late that is known to come, as a share of the op's own
        ticks: with 1 a rank never waits for a backward, with 0 it never lets one wait.
    """
    depth = _depth(problem)
    graph = build_graph(problem, divided)
    ids = None if depth < 2 else _ListSchedule(_admit(graph, depth), delay).run()
    return serial_orders(problem) if ids is None else graph.ids_to_orders(ids)


def _depth(problem: Problem) -> int:
    """How many microbatches fit on every rank, each holding the most it ever does when run alone."""
    if problem.memory_limit_bytes is None:
        return 2 * problem.num_ranks
    ways = zip(
        problem.memory_limit_bytes, problem.static_bytes_by_rank, smallest_limits_bytes(problem), strict=True
    )
    return min((limit - static) // max(1, least - static) for limit, static, least in ways)


def _admit(graph: OpGraph, depth: int) -> OpGraph:
    """The graph with an edge from microbatch i's last backward to the first forward of i + depth."""
    backward = np.maximum(graph.ids[KINDS.index(OpKind.B), 0], graph.ids[KINDS.index(OpKind.BW), 0])
    target = graph.ids[KINDS.index(OpKind.F), 0, depth:]
    at = graph.edge_start[target]
    added = np.zeros(graph.num_ops + 1, dtype=np.int64)
    added[target + 1] = 1
    return replace(
        graph,
        edge_start=graph.edge_start + np.cumsum(added),
        edge_from=np.insert(graph.edge_from, at, backward[: len(target)]),
        edge_lag=np.insert(graph.edge_lag, at, 0),
    )


class _ListSchedule:
    """A list schedule under way: what each rank can run, what it holds, and when to look at it again."""

    def __init__(self, graph: OpGraph, delay: float) -> None:
        problem = graph.problem
        self.graph = graph
        self.delay = delay
        self.successors: list[list[tuple[int, int]]] = [[] for _ in range(graph.num_ops)]
        for number in range(graph.num_ops):
            for source, lag in graph.predecessors(number):
                self.successors[source].append((number, lag))
        self.waits: list[int] = np.diff(graph.edge_start).tolist()
        self.available_at = [0] * graph.num_ops
        self.room = (
            None
            if problem.memory_limit_bytes is None
            else [
                limit - static
                for limit, static in zip(
                    problem.memory_limit_bytes, problem.static_bytes_by_rank, strict=True
                )
            ]
        )
        self.coming: list[list[tuple[int, int]]] = [[] for _ in range(problem.num_ranks)]
        self.available: list[list[tuple[int, int, int]]] = [[] for _ in range(problem.num_ranks)]
        self.rank_free = [0] * problem.num_ranks
        self.orders: list[list[int]] = [[] for _ in range(problem.num_ranks)]
        self.looks: list[tuple[int, int]] = []

    def run(self) -> list[NDArray[np.int64]] | None:
        """Per-rank op numbers, or None where some rank could not go on."""
        for number, waits in enumerate(self.waits):
            if waits == 0:
                self._expect(number, 0)
        while self.looks:
            now, rank = heapq.heappop(self.looks)
            if now >= self.rank_free[rank]:
                chosen = self._choose(rank, now)
                if chosen is not None:
                    self._start(chosen, rank, now)
        if sum(map(len, self.orders)) < self.graph.num_ops:
            return None
        return [np.array(order, dtype=np.int64) for order in self.orders]

    def _expect(self, number: int, at: int) -> None:
        rank = int(self.graph.rank[number])
        heapq.heappush(self.coming[rank], (at, number))
        heapq.heappush(self.looks, (at, rank))

    def _choose(self, rank: int, now: int) -> int | None:
        """Take the best available op that fits."""
        coming, available = self.coming[rank], self.available[rank]
        while coming and coming[0][0] <= now:
            heapq.heappush(available, self._priority(heapq.heappop(coming)[1]))
        passed = []
        chosen = None
        while available and chosen is None:
            entry = heapq.heappop(available)
            if self._fits(entry[2], rank) and self._lets_pass(entry, rank, now):
                chosen = entry[2]
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(available, entry)
        return chosen

    def _fits(self, number: int, rank: int) -> bool:
        return self.room is None or bool(self.graph.alloc_bytes[number] <= self.room[rank])

    def _lets_pass(self, entry: tuple[int, int, int], rank: int, now: int) -> bool:
        """Whether an op does not make the next backward to come too late."""
        if entry[0] == _RANKING[OpKind.B] or not self.coming[rank]:
            return True
        arrival, coming = self.coming[rank][0]
        if self._priority(coming)[0] != _RANKING[OpKind.B]:
            return True
        ticks = int(self.graph.ticks[entry[2]])
        return now + ticks - arrival <= self.delay * ticks

    def _start(self, number: int, rank: int, now: int) -> None:
        graph = self.graph
        end = now + int(graph.ticks[number])
        self.orders[rank].append(number)
        self.rank_free[rank] = end
        if self.room is not None:
            self.room[rank] += int(graph.free_bytes[number] - graph.alloc_bytes[number])
        heapq.heappush(self.looks, (end, rank))
        for target, lag in self.successors[number]:
            self.available_at[target] = max(self.available_at[target], end + lag)
            self.waits[target] -= 1
            if self.waits[target] == 0:
                self._expect(target, self.available_at[target])

    def _priority(self, number: int) -> tuple[int, int, int]:
        kind = KINDS[self.graph.kind[number]]
        stage = int(self.graph.stage[number])
        return (_RANKING[kind], stage if _RANKING[kind] == 0 else -stage, number)
