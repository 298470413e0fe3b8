"""Lower bounds for flows that are no plain chain: directions, slices, sums of gradients.

They come from the op graph alone: what must pass before an op may start (its head), what must follow its end
(its tail), and that a rank runs one op at a time. Memory limits are left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from synth.bounds.bound import Bound
from synth.compiled.longest_path import group_by_source, longest_path
from synth.graph import Ints, OpGraph, build_graph
from synth.ops import OpKind
from synth.problem import Objective, OpCost, Problem, StageCosts

NEVER = -(2**62)
"""A head of what nothing leads to."""


def flow_bounds(problem: Problem) -> tuple[Bound, ...]:
    """All bounds of a flow, the strongest first."""
    graph = build_graph(_eased(problem))
    forward, backward = _Edges.down(graph), _Edges.up(graph)
    bounds = [_work_bound(problem)]
    if problem.objective is Objective.MAKESPAN:
        heads = forward.heads(np.zeros(graph.num_ops, dtype=np.int64))
        tails = backward.heads(np.zeros(graph.num_ops, dtype=np.int64))
        bounds += [_path_bound(graph, heads, tails), _rank_bound(graph, heads, tails)]
    else:
        bounds.append(_span_bound(graph, forward, backward))
    return tuple(sorted(bounds, key=lambda bound: -bound.ticks))


def _eased(problem: Problem) -> Problem:
    """The problem with the shorter of both ways through every backward, whichever a schedule takes.

    A backward takes at least the shorter of B and BW before it hands on its gradient, and with W or without
    at least the shorter of both ways in all. So B of the first length with W of what is left of the second
    loosens either way.
    """
    return replace(problem, stages=tuple(map(_eased_stage, problem.stages)), memory_limit_bytes=None)


def _eased_stage(costs: StageCosts) -> StageCosts:
    if costs.must_divide or not costs.can_divide:
        return costs
    first = min(costs.cost(OpKind.B).ticks, costs.cost(OpKind.BW).ticks)
    rest = costs.least_backward_ticks - first
    if rest == 0:
        return replace(costs, B=None, W=None, BW=OpCost(ticks=first))
    return replace(costs, B=OpCost(ticks=first), W=OpCost(ticks=rest), BW=None)


@dataclass(frozen=True, slots=True)
class _Edges:
    """The graph's edges with identical microbatches in order, one way or the other."""

    ticks: Ints
    start: Ints
    source: Ints
    lag: Ints

    @classmethod
    def down(cls, graph: OpGraph) -> _Edges:
        """From what must come before."""
        pieces = [
            (
                np.repeat(np.arange(graph.num_ops), np.diff(graph.edge_start)),
                graph.edge_from,
                graph.edge_lag,
            )
        ]
        for stream in _streams(graph):
            pieces.append((stream[1:], stream[:-1], np.zeros(len(stream) - 1, dtype=np.int64)))
        target, source, lag = map(np.concatenate, zip(*pieces, strict=True))
        by_target = np.argsort(target, kind="stable")
        start = np.zeros(graph.num_ops + 1, dtype=np.int64)
        np.cumsum(np.bincount(target, minlength=graph.num_ops), out=start[1:])
        return cls(graph.ticks, start, source[by_target], lag[by_target])

    @classmethod
    def up(cls, graph: OpGraph) -> _Edges:
        """The same edges turned round."""
        down = cls.down(graph)
        return cls(graph.ticks, *group_by_source(down.start, down.source, down.lag))

    def heads(self, release: Ints) -> Ints:
        """The longest way to the start of every op, from releases of its own and of what it follows."""
        each = np.arange(len(self.ticks), dtype=np.int64)
        alone = np.arange(len(self.ticks) + 1, dtype=np.int64)
        starts: Ints
        starts, _ = longest_path(
            each, alone, each, self.ticks, self.start, self.source, self.lag, release, False
        )
        return starts


def _streams(graph: OpGraph) -> Iterator[Ints]:
    """The ops of one kind on one stage for identical microbatches: they may as well run in order."""
    problem = graph.problem
    carriers: dict[int, tuple[int, ...]] = {}
    for stage in range(problem.num_stages):
        for i in problem.microbatches_of(stage):
            carriers[i] = (*carriers.get(i, ()), stage)
    number = {stages: n for n, stages in enumerate(dict.fromkeys(carriers.values()))}
    alike = np.array([number[carriers[i]] for i in range(problem.num_microbatches)], dtype=np.int64)
    keys = np.stack([graph.kind, graph.stage, alike[graph.microbatch]])
    order = np.lexsort((graph.microbatch, *keys[::-1]))
    changes = np.flatnonzero((np.diff(keys[:, order]) != 0).any(axis=0)) + 1
    yield from np.split(order, changes)


def _work_bound(problem: Problem) -> Bound:
    work = problem.work_ticks_by_rank
    rank = work.index(max(work))
    return Bound("work", work[rank], f"rank {rank} works this long")


def _path_bound(graph: OpGraph, heads: Ints, tails: Ints) -> Bound:
    """The longest way through the graph; holds for the makespan."""
    ways = heads + graph.ticks + tails
    op = graph.op(int(ways.argmax()))
    return Bound("path", int(ways.max()), f"the longest way through the ops, one of which is {op}")


def _rank_bound(graph: OpGraph, heads: Ints, tails: Ints) -> Bound:
    """Each rank's ops one at a time, between their heads and tails; holds for the makespan.

    Jackson's preemptive schedule is the best that one machine can do with ops that it may interrupt.
    """
    found = []
    for rank in range(graph.problem.num_ranks):
        held = np.flatnonzero(graph.rank == rank)
        found.append(_preemptive(heads[held], graph.ticks[held], tails[held]))
    rank = found.index(max(found))
    return Bound("one rank", found[rank], f"rank {rank} alone, every op between what it follows and leads to")


def _span_bound(graph: OpGraph, forward: _Edges, backward: _Edges) -> Bound:
    """Each rank's ops one at a time behind the one it begins with; holds for the rank span.

    A rank begins with the first op of a stream of forwards, and whatever that op leads to waits for it.
    """
    found = []
    for rank in range(graph.problem.num_ranks):
        held = np.flatnonzero(graph.rank == rank)
        ends = np.full(graph.num_ops, NEVER, dtype=np.int64)
        ends[held] = 0
        tails = backward.heads(ends)[held]
        firsts = [
            int(stream[0])
            for stream in _streams(graph)
            if graph.kind[stream[0]] == 0 and graph.rank[stream[0]] == rank
        ]
        spans = []
        for first in firsts:
            release = np.full(graph.num_ops, NEVER, dtype=np.int64)
            release[held] = 0
            behind = np.full(graph.num_ops, NEVER, dtype=np.int64)
            behind[first] = 0
            heads = np.maximum(forward.heads(behind), release)[held]
            spans.append(_preemptive(heads, graph.ticks[held], tails))
        found.append(min(spans))
    rank = found.index(max(found))
    return Bound("one rank", found[rank], f"rank {rank} alone, every op behind the rank's first")


def _preemptive(heads: Ints, ticks: Ints, tails: Ints) -> int:
    """The length of Jackson's preemptive schedule: the longest tail first among what has come."""
    order = np.argsort(heads, kind="stable").tolist()
    waiting: list[tuple[int, int]] = []  # (minus the tail, ticks left)
    now = longest = 0
    for place, number in enumerate(order):
        now = max(now, int(heads[number]))
        heapq.heappush(waiting, (-int(tails[number]), int(ticks[number])))
        until = int(heads[order[place + 1]]) if place + 1 < len(order) else None
        while waiting and (until is None or now < until):
            tail, left = heapq.heappop(waiting)
            run = left if until is None else min(left, until - now)
            now += run
            longest = max(longest, now - tail)
            if run < left:
                heapq.heappush(waiting, (tail, left - run))
    return longest
