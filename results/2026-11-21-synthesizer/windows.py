"""One stretch of a schedule solved anew with CP-SAT, all outside it kept: see "What did not work as well".

The stretch is what starts between two moments. Some ranks' ops in it may take any order that keeps streams
and the memory limit; the other ranks keep theirs, but may run at other times. What lies before gives
releases, what lies behind gives tails. Only for ``rank_span``, memory of 1 from F to W.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np
from ortools.sat.python import cp_model

from synth import Problem
from synth.cpsat import SolveParams, solve
from synth.graph import KINDS, Ints, build_graph
from synth.ops import OpKind, RankOrders
from synth.timing import earliest_starts

F, W = KINDS.index(OpKind.F), KINDS.index(OpKind.W)
NEVER = -(2**50)

Begins = dict[int, cp_model.IntVar]


class Windows:
    """A schedule whose windows are solved anew, in place."""

    def __init__(self, problem: Problem, orders: RankOrders) -> None:
        self.problem, self.graph = problem, build_graph(problem)
        self.ids = [order.tolist() for order in self.graph.orders_to_ids(orders)]
        self.heads = {order[0] for order in self.ids}
        self.ticks, self.ranks = self.graph.ticks.tolist(), self.graph.rank.tolist()
        self.before = [self.graph.predecessors(op) for op in range(self.graph.num_ops)]
        self.after: list[list[tuple[int, int]]] = [[] for _ in self.before]
        for op, edges in enumerate(self.before):
            for source, lag in edges:
                self.after[source].append((op, lag))
        self._time()

    def _time(self) -> None:
        """Starts, the value, and every op's tail to the end of each rank."""
        self.starts = earliest_starts(self.graph, [np.array(order) for order in self.ids]).tolist()
        self.began = np.array([self.starts[order[0]] for order in self.ids])
        ends = [self.starts[order[-1]] + self.ticks[order[-1]] for order in self.ids]
        self.value = int((np.array(ends) - self.began).max())
        follows = {a: b for order in self.ids for a, b in pairwise(order)}
        self.tails = np.full((self.graph.num_ops, self.problem.num_ranks), NEVER)
        for op in sorted(range(self.graph.num_ops), key=lambda op: -self.starts[op]):
            self.tails[op] = self._tail(op, follows.get(op), ())

    def _tail(self, op: int, behind: int | None, inside: Collection[int]) -> Ints:
        """From an op's start to each rank's end, through ``behind`` and what it feeds outside a window."""
        tail = np.full(self.problem.num_ranks, NEVER)
        if behind is None:
            tail[self.ranks[op]] = 0
        else:
            tail = np.maximum(tail, self.tails[behind])
        for target, lag in self.after[op]:
            if target not in inside:
                tail = np.maximum(tail, self.tails[target] + lag)
        return tail + self.ticks[op]

    def solve(self, low: int, high: int, free: Collection[int], params: SolveParams) -> bool:
        """Solve what starts in [low, high) but for the ranks' first ops; whether the optimum was proved.

        Minimised is the value, and second the sum over ranks of the longest path through their ops inside.
        """
        model = cp_model.CpModel()
        held = [
            [op for op in order if low <= self.starts[op] < high and op not in self.heads]
            for order in self.ids
        ]
        inside = {op for ops in held for op in ops}
        latest = high + int(6 * np.mean(self.ticks))
        begin = {op: model.new_int_var(self._release(op, inside), latest, "") for op in inside}
        for op in inside:
            model.add_hint(begin[op], self.starts[op])
            for source, lag in self.before[op]:
                if source in inside:
                    model.add(begin[op] >= begin[source] + self.ticks[source] + lag)
        value = model.new_int_var(0, self.value, "value")
        longest = []
        for rank, ops in enumerate(held):
            if not ops:
                continue
            end = self.ids[rank].index(ops[0]) + len(ops)
            ready = self.ids[rank][end - len(ops) - 1]
            behind = self.ids[rank][end] if end < len(self.ids[rank]) else None
            longest.append(model.new_int_var(0, self.value, ""))
            model.add(value >= longest[-1])
            for op in ops:
                model.add(begin[op] >= self.starts[ready] + self.ticks[ready])
                tail = self._tail(op, behind, inside)
                model.add(longest[-1] >= begin[op] + int((tail - self.began).max()))
            if rank in free:
                self._any_order(model, begin, ops, self.ids[rank][: end - len(ops)], latest)
            else:
                for first, then in pairwise(ops):
                    model.add(begin[then] >= begin[first] + self.ticks[first])
        model.minimize(2 * len(longest) * value + sum(longest))
        solved = solve(model, params)
        if solved.has_solution:
            for rank, ops in enumerate(held):
                if ops:
                    at = self.ids[rank].index(ops[0])
                    ops.sort(key=lambda op: solved.solver.value(begin[op]))
                    self.ids[rank][at : at + len(ops)] = ops
            self._time()
        return solved.is_proved

    def _release(self, op: int, inside: Collection[int]) -> int:
        """When all that comes from outside a window has arrived."""
        outside = [(source, lag) for source, lag in self.before[op] if source not in inside]
        return max((self.starts[source] + self.ticks[source] + lag for source, lag in outside), default=0)

    def _any_order(
        self, model: cp_model.CpModel, begin: Begins, ops: list[int], earlier: list[int], latest: int
    ) -> None:
        """One op at a time, streams in microbatch order, and no more activations than there is room for."""
        graph = self.graph
        model.add_no_overlap([model.new_fixed_size_interval_var(begin[op], self.ticks[op], "") for op in ops])
        last: dict[tuple[int, int], int] = {}
        for op in ops:
            stream = (graph.kind[op], graph.stage[op])
            if stream in last:
                model.add(begin[op] >= begin[last[stream]] + self.ticks[last[stream]])
            last[stream] = op
        taken = {(graph.stage[op], graph.microbatch[op]): op for op in ops if graph.kind[op] == F}
        freed = {(graph.stage[op], graph.microbatch[op]): op for op in ops if graph.kind[op] == W}
        live = sum(int(graph.alloc_bytes[op] - graph.free_bytes[op]) for op in earlier)
        forever = latest + max(self.ticks)
        held = []
        for key in taken.keys() | freed.keys():
            since = begin[taken[key]] if key in taken else 0
            until = begin[freed[key]] + self.ticks[freed[key]] if key in freed else forever
            held.append(model.new_interval_var(since, model.new_int_var(0, forever, ""), until, ""))
        limits = self.problem.memory_limit_bytes
        assert limits is not None
        never_freed_here = live - len(freed.keys() - taken.keys())
        model.add_cumulative(held, [1] * len(held), limits[self.ranks[ops[0]]] - never_freed_here)
