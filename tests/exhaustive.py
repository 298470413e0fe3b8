"""Optimal values of tiny problems, by trying every order in plain Python.

Nothing of the package is used but the problem's own data, so that it can disagree with everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from synth.ops import PASSES, Op, OpKind, RankOrders
from synth.problem import Links, Objective, Problem

Starts = dict[Op, int]


def best_value(problem: Problem, *, fifo: bool = True, delayed: bool = True) -> int | None:
    """The least value of the problem's objective over all orders within the limits, None where none fits.

    Parameters
    ----------
    problem
        A handful of ops.
    fifo
        Keep every stream (one kind on one stage) in microbatch order, which loses nothing.
    delayed
        For ``rank_span`` over free links, let ranks begin later than they could, which may shorten their
        spans. The makespan gains nothing from it.
    """
    best: list[int] = []
    is_makespan = problem.objective is Objective.MAKESPAN
    for orders, starts in timed_orders(problem, fifo=fifo, below=best if is_makespan else []):
        if is_makespan:
            value = max(end_of(problem, op, start) for op, start in starts.items())
        elif delayed:
            value = least_rank_span(problem, orders, starts)
        else:
            value = max(_spans(problem, orders, starts))
        best[:] = [min([value, *best])]
    return best[0] if best else None


def timed_orders(
    problem: Problem, *, fifo: bool = True, below: Sequence[int] = ()
) -> Iterator[tuple[RankOrders, Starts]]:
    """Every set of rank orders that fits the limits, with its earliest starts.

    ``below`` holds a makespan that is to be beaten, if it holds any, and may change between two yields.
    """
    return _Walk(problem, fifo, below).extend((-1, ""))


def end_of(problem: Problem, op: Op, start: int) -> int:
    """When an op ends that starts then."""
    return start + problem.stages[op.stage].cost(op.kind).ticks


def least_rank_span(problem: Problem, orders: RankOrders, starts: Starts) -> int:
    """The rank span of given orders with the best times: a rank's first op may wait.

    The least length of which every rank can begin no earlier than that long before its last end.
    """
    low, high = max(_works(problem, orders)), max(_spans(problem, orders, starts))
    while low < high:
        middle = (low + high) // 2
        if _fits_span(problem, orders, starts, middle):
            high = middle
        else:
            low = middle + 1
    return low


def smallest_peak(problem: Problem, rank: int) -> int:
    """The least peak of one rank, static bytes included, over all orders of its ops.

    Other ranks are left out: a microbatch's backward on a stage needs its forwards on all of the rank's
    stages, and its backward on the rank's next one. Microbatches need not stay in order.
    """
    held = problem.stages_by_rank[rank]
    streams = {(kind, s): cost for s in held for kind, cost in problem.stages[s].offered}
    best: dict[frozenset[Op], tuple[int, int]] = {}  # what has run: (peak, live); live follows from the set
    start = problem.static_bytes_by_rank[rank]
    frontier = {frozenset[Op](): (start, start)}
    least = None
    while frontier:
        best, frontier = frontier, {}
        for done, (peak, live) in best.items():
            following = [
                Op(kind, s, i)
                for kind, s in streams
                for i in range(problem.num_microbatches)
                if _may_follow(Op(kind, s, i), done, held)
            ]
            if not following:
                least = peak if least is None else min(least, peak)
            for op in following:
                cost = streams[op.kind, op.stage]
                state = max(peak, live + cost.alloc_bytes), live + cost.alloc_bytes - cost.free_bytes
                reached = done | {op}
                if reached not in frontier or state < frontier[reached]:
                    frontier[reached] = state
    assert least is not None
    return least


def _may_follow(op: Op, done: frozenset[Op], held: tuple[int, ...]) -> bool:
    kind, stage, i = op
    if op in done:
        return False
    place = held.index(stage)
    if kind is OpKind.F:
        return place == 0 or Op(kind, held[place - 1], i) in done
    if kind is OpKind.W:
        return Op(OpKind.B, stage, i) in done
    if not done.isdisjoint({Op(OpKind.B, stage, i), Op(OpKind.BW, stage, i)}):
        return False
    if place == len(held) - 1:
        return Op(OpKind.F, stage, i) in done
    return not done.isdisjoint({Op(OpKind.B, held[place + 1], i), Op(OpKind.BW, held[place + 1], i)})


def _works(problem: Problem, orders: RankOrders) -> list[int]:
    return [sum(end_of(problem, op, 0) for op in order) for order in orders]


def _spans(problem: Problem, orders: RankOrders, starts: Starts) -> list[int]:
    return [end_of(problem, order[-1], starts[order[-1]]) - starts[order[0]] for order in orders]


def _inputs(problem: Problem, op: Op) -> list[tuple[Op, ...]]:
    """What an op needs: of every group, one."""
    kind, stage, i = op
    if kind is OpKind.W:
        return [(Op(OpKind.B, stage, i),)]
    if kind is OpKind.F:
        return [(Op(OpKind.F, s, i),) for s in problem.inputs_by_stage[stage]]
    if kind is OpKind.R:
        alike = [
            s for s, feed in enumerate(problem.feeds) if feed.model_stage == problem.feeds[stage].model_stage
        ]
        return [(Op(OpKind.W, s, n), Op(OpKind.BW, s, n)) for s in alike for n in problem.microbatches_of(s)]
    after = problem.outputs_by_stage[stage]
    return [(Op(OpKind.F, stage, i),), *((Op(OpKind.B, s, i), Op(OpKind.BW, s, i)) for s in after)]


def _fits_span(problem: Problem, orders: RankOrders, starts: Starts, span: int) -> bool:
    """Whether starts exist with every rank's span within this, links being free.

    Pushes starts up until nothing is left to push; a rank can be pushed by its own last end only as often as
    there are ranks, unless round and round.
    """
    starts = dict(starts)
    edges = [(a, b, 0) for order in orders for a, b in pairwise(order)]
    for op in starts:
        for group in _inputs(problem, op):
            source = next(source for source in group if source in starts)
            lag = 0 if op.kind is OpKind.R else problem.lag_ticks(source.stage, op.stage)
            edges.append((source, op, lag))
    for _ in range(problem.num_ranks + 1):
        pushed = True
        while pushed:
            pushed = False
            for source, op, lag in edges:
                ready = end_of(problem, source, starts[source]) + lag
                if starts[op] < ready:
                    starts[op], pushed = ready, True
        late = [
            order
            for order in orders
            if end_of(problem, order[-1], starts[order[-1]]) - span > starts[order[0]]
        ]
        if not late:
            return True
        for order in late:
            starts[order[0]] = end_of(problem, order[-1], starts[order[-1]]) - span
    return False


class _Walk:
    """A depth-first walk over dispatches in the order of their starts; every step is taken back."""

    def __init__(self, problem: Problem, fifo: bool, below: Sequence[int]) -> None:
        self.problem, self.fifo, self.below = problem, fifo, below
        self.starts: Starts = {}
        self.arrivals: dict[Op, int] = {}  # when an op's output is where its chain goes next
        self.orders: list[list[Op]] = [[] for _ in range(problem.num_ranks)]
        self.rank_free = [0] * problem.num_ranks
        self.live = list(problem.static_bytes_by_rank)
        self.link_free: dict[tuple[int, int], int] = {}
        passes = sum(len(problem.microbatches_of(s)) for s in range(problem.num_stages))
        sums = sum(costs.R is not None for costs in problem.stages)
        self.unfinished = 2 * passes + sums  # an F and a BW or W of each

    def extend(self, last: tuple[int, str]) -> Iterator[tuple[RankOrders, Starts]]:
        if self.unfinished == 0:
            yield tuple(map(tuple, self.orders)), dict(self.starts)
            return
        for op, ready in self._available():
            rank = self.problem.stage_to_rank[op.stage]
            start = max(ready, self.rank_free[rank])
            now = (start, str(op))  # each set of orders once: equal starts in the order of names
            if now > last and self._fits(op, rank) and self._may_win(rank, start):
                take_back = self._dispatch(op, rank, start)
                yield from self.extend(now)
                take_back()

    def _available(self) -> list[tuple[Op, int]]:
        found = []
        for stage, costs in enumerate(self.problem.stages):
            for kind, _ in costs.offered:
                for i in (0,) if kind is OpKind.R else self.problem.microbatches_of(stage):
                    op = Op(kind, stage, i)
                    if op in self.starts or self._runs_otherwise(op):
                        continue
                    ready = self._ready(op)
                    if ready is not None:
                        found.append((op, ready))
                    if self.fifo:
                        break
        return found

    def _runs_otherwise(self, op: Op) -> bool:
        """Whether the microbatch's backward runs in the other form."""
        other = {OpKind.BW: OpKind.B, OpKind.B: OpKind.BW, OpKind.W: OpKind.BW}.get(op.kind)
        return other is not None and op._replace(kind=other) in self.starts

    def _ready(self, op: Op) -> int | None:
        ready = 0
        for group in _inputs(self.problem, op):
            there = [source for source in group if source in self.starts]
            if not there:
                return None
            source = there[0]
            own = end_of(self.problem, source, self.starts[source])
            ranks = self.problem.stage_to_rank
            here = op.kind is OpKind.R or ranks[source.stage] == ranks[op.stage]
            ready = max(ready, own if here else self.arrivals[source])
        return ready

    def _fits(self, op: Op, rank: int) -> bool:
        limits = self.problem.memory_limit_bytes
        cost = self.problem.stages[op.stage].cost(op.kind)
        return limits is None or self.live[rank] + cost.alloc_bytes <= limits[rank]

    def _may_win(self, rank: int, start: int) -> bool:
        return not self.below or start + self._left_ticks(rank) < self.below[0]

    def _left_ticks(self, rank: int) -> int:
        """The least that a rank still has to work."""
        total = 0
        for stage in self.problem.stages_by_rank[rank]:
            costs = self.problem.stages[stage]
            total += 0 if Op(OpKind.R, stage, 0) in self.starts else costs.reduce_ticks
            for i in self.problem.microbatches_of(stage):
                ran = {kind for kind in PASSES if Op(kind, stage, i) in self.starts}
                total += 0 if OpKind.F in ran else costs.F.ticks
                if OpKind.B in ran:
                    total += 0 if OpKind.W in ran else costs.cost(OpKind.W).ticks
                elif OpKind.BW not in ran:
                    total += costs.least_backward_ticks
        return total

    def _dispatch(self, op: Op, rank: int, start: int) -> Callable[[], None]:
        problem, cost = self.problem, self.problem.stages[op.stage].cost(op.kind)
        before = self.rank_free[rank], self.live[rank], dict(self.link_free), self.unfinished
        end = start + cost.ticks
        self.starts[op] = start
        self.orders[rank].append(op)
        self.rank_free[rank] = end
        self.live[rank] += cost.alloc_bytes - cost.free_bytes
        self.unfinished -= op.kind is not OpKind.B
        ranks = problem.stage_to_rank
        ways = {OpKind.F: problem.outputs_by_stage, OpKind.W: None, OpKind.R: None}
        feeds = ways.get(op.kind, problem.inputs_by_stage)
        away = [s for s in feeds[op.stage] if ranks[s] != rank] if feeds else []
        assert len(away) <= 1, "an op's output goes to one other rank at most"
        for to in away:
            self.arrivals[op] = self._send(rank, ranks[to], end)

        def take_back() -> None:
            del self.starts[op]
            self.orders[rank].pop()
            self.rank_free[rank], self.live[rank], self.link_free, self.unfinished = before

        return take_back

    def _send(self, sender: int, receiver: int, end: int) -> int:
        if sender == receiver:
            return end
        ticks = self.problem.transfer_ticks[sender][receiver]
        if self.problem.links is Links.EXCLUSIVE:
            end = max(end, self.link_free.get((sender, receiver), 0))
            self.link_free[sender, receiver] = end + ticks
        return end + ticks
