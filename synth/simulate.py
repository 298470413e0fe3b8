"""The simulator: orders replayed event by event, every rank running its next op as soon as it can.

It makes the same times as the longest path of :mod:`synth.timing` by other means, and the tests hold the two
against each other. Events are taken in a total order, so the same input always gives the same schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import reduce
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.errors import DeadlockError, InputError, InvalidOrdersError, WaitingRank
from synth.ops import Op, OpKind, RankOrders, TimedOp
from synth.problem import LARGEST_SUM, Links, Objective, Problem
from synth.schedule import Schedule


def simulate_orders(
    problem: Problem,
    orders: RankOrders,
    *,
    links: Links | None = None,
    release_ticks: Sequence[int] | None = None,
    ticks: Mapping[Op, int] | None = None,
) -> Schedule:
    """Run every rank's order as soon as possible.

    Parameters
    ----------
    problem
        The costs and the placement.
    orders
        For every rank, its ops in execution order: every op of the problem once.
    links
        Used instead of the problem's; the returned schedule's problem has them.
    release_ticks
        For every rank, a time before which it starts nothing; all 0 by default.
    ticks
        Durations, at least 1, used instead of the problem's for the ops named.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold exactly the problem's ops.
    DeadlockError
        When the ranks wait for one another.
    """
    problem = replace(problem, links=problem.links if links is None else links)
    network = _build_network(problem, orders)
    durations = network.ticks if ticks is None else _overridden(network, ticks)
    release = (0,) * problem.num_ranks if release_ticks is None else release_ticks
    starts = _Run(network, durations, release).starts()
    times = zip(network.ops, starts, durations, strict=True)
    timed = [TimedOp(op, start, start + duration) for op, start, duration in times]
    return Schedule(problem, tuple(tuple(timed[a:b]) for a, b in network.spans))


def replay(schedule: Schedule, *, links: Links | None = None) -> Schedule:
    """Run a schedule's orders, each rank released at its planned first start.

    Parameters
    ----------
    schedule
        Its orders and the first start of each rank are used, its other times are not.
    links
        Used instead of the problem's.
    """
    return simulate_orders(
        schedule.problem, schedule.orders, links=links, release_ticks=_first_starts(schedule)
    )


LARGEST_SIGMA = 10.0
"""Noise beyond this says nothing of a schedule any more."""

FARTHEST_SIGMAS = 40
"""Farther from the mean no normal random number of a generator is."""

LARGEST_BLOCK = 4_000_000
"""Samples times ops that are drawn and replayed at once."""

_Ticks = NDArray[Any]
"""Integers, one for each sample: of 64 bits, or of any size where sums need it."""


@dataclass(frozen=True, slots=True)
class JitterResult:
    """The values of the problem's objective over replays with perturbed op times.

    Parameters
    ----------
    objective
        What the values are of.
    values
        Ticks, one per sample, in the order drawn; at least one.
    """

    objective: Objective
    values: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean value, ticks."""
        return sum(self.values) / len(self.values)

    @property
    def p50(self) -> int:
        """The smallest value that half of the samples do not exceed, ticks."""
        return self.percentile(50)

    @property
    def p95(self) -> int:
        """The smallest value that 95 in 100 samples do not exceed, ticks."""
        return self.percentile(95)

    @property
    def max(self) -> int:
        """The largest value, ticks."""
        return max(self.values)

    def percentile(self, percent: int) -> int:
        """The smallest value that so many in 100 samples do not exceed, ticks; from 1 to 100."""
        return sorted(self.values)[math.ceil(len(self.values) * percent / 100) - 1]


def replay_with_jitter(
    schedule: Schedule, *, sigma: float, samples: int, seed: int, links: Links | None = None
) -> JitterResult:
    """Replay a schedule again and again with op times that vary.

    Every op's ticks are multiplied by ``max(0, 1 + sigma * z)``, z standard normal and drawn anew for each op
    and sample, then rounded, and last at least 1 tick. Transfers do not vary. All samples are replayed at
    once, op by op.

    Parameters
    ----------
    schedule
        Its orders and the first start of each rank are used.
    sigma
        Relative standard deviation, at least 0; with 0 every value is that of :func:`replay`.
    samples
        How many replays, at least 1.
    seed
        Of the random numbers.
    links
        Used instead of the problem's.
    """
    if not 0 <= sigma <= LARGEST_SIGMA:
        raise InputError(f"sigma is {sigma}: give a number from 0 to {LARGEST_SIGMA}")
    if samples < 1:
        raise InputError(f"samples is {samples}: give an integer ≥ 1")
    problem = replace(schedule.problem, links=schedule.problem.links if links is None else links)
    network = _build_network(problem, schedule.orders)
    release = _first_starts(schedule)
    planned = np.array(network.ticks, dtype=np.int64)
    # An op's inputs have started before it, whatever the durations: this order suits every sample.
    starts = _Run(network, network.ticks, release).starts()
    sequence = sorted(range(len(planned)), key=starts.__getitem__)
    exact = _sums_pass_64_bits(network, release, sigma)
    random = np.random.default_rng(seed)
    values: list[int] = []
    while len(values) < samples:
        rows = min(samples - len(values), max(1, LARGEST_BLOCK // len(planned)))
        noise = np.maximum(-1, sigma * random.standard_normal((rows, len(planned))))
        change = np.rint(planned * noise)
        change = np.vectorize(int, otypes=[object])(change) if exact else change.astype(np.int64)
        durations = np.ascontiguousarray(np.maximum(1, planned + change).T)
        values += map(int, _values(network, sequence, durations, release))
    return JitterResult(problem.objective, tuple(values))


def _first_starts(schedule: Schedule) -> tuple[int, ...]:
    return tuple(rank[0].start if rank else 0 for rank in schedule.ranks)


def _sums_pass_64_bits(network: _Network, release: Sequence[int], sigma: float) -> bool:
    """Whether noise could make a sum of ticks too large for 64 bits: then integers of any size are used."""
    transfers = max(map(max, network.problem.transfer_ticks)) * len(network.ops)
    largest = max(map(abs, release)) + sum(network.ticks) * (1 + FARTHEST_SIGMAS * sigma) + transfers
    return largest >= LARGEST_SUM


def _values(network: _Network, sequence: Sequence[int], durations: _Ticks, release: Sequence[int]) -> _Ticks:
    """The objective's value for every sample at once, ops in a sequence in which they can start.

    On one rank an op begins when the one before it has ended; from other ranks its inputs arrive, and an
    exclusive link takes them in the sender's order, which is that of the sequence.

    Parameters
    ----------
    network, release
        The ops with their inputs, and the time before which each rank starts nothing.
    sequence
        Every op's number, inputs first, and each rank's in its order.
    durations
        Ticks, shape (ops, samples).
    """
    problem = network.problem
    rank_free: list[_Ticks] = [np.full_like(durations[0], ticks) for ticks in release]
    firsts: dict[int, _Ticks] = {}
    arrivals: dict[int, _Ticks] = {}
    link_free: dict[tuple[int, int], _Ticks] = {}
    for number in sequence:
        sender, start = network.rank[number], rank_free[network.rank[number]]
        if number in arrivals:
            start = np.maximum(start, arrivals.pop(number))
        firsts.setdefault(sender, start)
        end = rank_free[sender] = start + durations[number]
        for consumer in network.consumers[number]:
            link = sender, network.rank[consumer]
            if link[0] == link[1]:
                continue
            sent = end
            if problem.links is Links.EXCLUSIVE and link in link_free:
                sent = np.maximum(end, link_free[link])
            arrival = link_free[link] = sent + problem.transfer_ticks[link[0]][link[1]]
            arrivals[consumer] = np.maximum(arrival, arrivals.get(consumer, arrival))
    if problem.objective is Objective.MAKESPAN:
        makespan: _Ticks = reduce(np.maximum, rank_free) - reduce(np.minimum, firsts.values())
        return makespan
    rank_span: _Ticks = reduce(np.maximum, [rank_free[rank] - first for rank, first in firsts.items()])
    return rank_span


@dataclass(frozen=True, slots=True)
class _Network:
    """Ops numbered rank by rank in execution order, and which feed which.

    ``spans`` has each rank's first number and the one after its last; the other lists go by number.
    """

    problem: Problem
    spans: list[tuple[int, int]]
    ops: list[Op]
    rank: list[int]
    ticks: list[int]
    producers: list[list[int]]
    consumers: list[list[int]]


def _build_network(problem: Problem, orders: RankOrders) -> _Network:
    _check_orders(problem, orders)
    ops = [op for order in orders for op in order]
    number = {op: n for n, op in enumerate(ops)}
    producers = [[number[p] for p in _awaited(problem, op) if p in number] for op in ops]
    consumers: list[list[int]] = [[] for _ in ops]
    for n, feeding in enumerate(producers):
        for producer in feeding:
            consumers[producer].append(n)
    spans: list[tuple[int, int]] = []
    for order in orders:
        begin = spans[-1][1] if spans else 0
        spans.append((begin, begin + len(order)))
    return _Network(
        problem=problem,
        spans=spans,
        ops=ops,
        rank=[problem.stage_to_rank[op.stage] for op in ops],
        ticks=[problem.stages[op.stage].cost(op.kind).ticks for op in ops],
        producers=producers,
        consumers=consumers,
    )


def _awaited(problem: Problem, op: Op) -> list[Op]:
    """What an op waits for (FORMATS.md, Dependencies); of the next stage's B and BW the orders hold one."""
    kind, stage, i = op
    if kind is OpKind.F:
        return [Op(OpKind.F, stage - 1, i)] if stage > 0 else []
    if kind is OpKind.W:
        return [Op(OpKind.B, stage, i)]
    awaited = [Op(OpKind.F, stage, i)]
    if stage + 1 < problem.num_stages:
        awaited += [Op(OpKind.B, stage + 1, i), Op(OpKind.BW, stage + 1, i)]
    return awaited


def _check_orders(problem: Problem, orders: RankOrders) -> None:
    """Refuse orders that do not hold each op once, on its rank."""
    if len(orders) != problem.num_ranks:
        raise InvalidOrdersError(f"orders are given for {len(orders)} ranks; give {problem.num_ranks}")
    offered = {(s, kind) for s, costs in enumerate(problem.stages) for kind, _ in costs.offered}
    seen: set[Op] = set()
    for rank, order in enumerate(orders):
        for op in order:
            if (op.stage, op.kind) not in offered or not 0 <= op.microbatch < problem.num_microbatches:
                raise InvalidOrdersError(f"rank {rank} runs {op}, which the problem lacks")
            own = problem.stage_to_rank[op.stage]
            if own != rank:
                raise InvalidOrdersError(f"rank {rank} runs {op}, which belongs on rank {own}")
            if op in seen:
                raise InvalidOrdersError(f"rank {rank} runs {op} twice")
            seen.add(op)
    for stage in range(problem.num_stages):
        for microbatch in range(problem.num_microbatches):
            _check_complete(seen, stage, microbatch)


def _check_complete(seen: set[Op], stage: int, microbatch: int) -> None:
    forward, inputs, weights, whole = (Op(kind, stage, microbatch) for kind in OpKind)
    if forward not in seen:
        raise InvalidOrdersError(f"no rank runs {forward}")
    divided = inputs in seen, weights in seen
    if whole in seen and any(divided):
        raise InvalidOrdersError(f"{whole} runs beside {inputs} or {weights}; run BW, or B and W")
    if whole not in seen and not all(divided):
        raise InvalidOrdersError(f"neither {whole} runs, nor both {inputs} and {weights}")


def _overridden(network: _Network, ticks: Mapping[Op, int]) -> list[int]:
    durations = [ticks.get(op, own) for op, own in zip(network.ops, network.ticks, strict=True)]
    for op, duration in zip(network.ops, durations, strict=True):
        if duration < 1:
            raise InputError(f"ticks of {op} is {duration}: give an integer ≥ 1")
    return durations


class _Event(IntEnum):
    """What happens at a moment, in the order in which one moment's events are taken."""

    RELEASE = 0
    END = 1
    ARRIVAL = 2


class _Run:
    """One replay: the events still to come, and what every rank and link is at.

    An event names a rank (RELEASE), the op that ends (END), or the op whose input arrives (ARRIVAL).
    """

    def __init__(self, network: _Network, durations: Sequence[int], release_ticks: Sequence[int]) -> None:
        if len(release_ticks) != len(network.spans):
            raise InputError(f"release_ticks is {len(release_ticks)} long: give {len(network.spans)}")
        self._network, self._durations = network, durations
        self._starts = [0] * len(network.ops)
        self._waits = [len(producers) for producers in network.producers]
        self._next = [begin for begin, _ in network.spans]
        self._idle = [False] * len(network.spans)
        self._link_free: dict[tuple[int, int], int] = {}
        self._events = [(ticks, _Event.RELEASE, rank) for rank, ticks in enumerate(release_ticks)]
        heapify(self._events)

    def starts(self) -> list[int]:
        """Run to the end; the start of every op in ticks, by number."""
        while self._events:
            time, event, number = heappop(self._events)
            rank = number if event is _Event.RELEASE else self._network.rank[number]
            if event is _Event.ARRIVAL:
                self._waits[number] -= 1
            else:
                self._idle[rank] = True
            if event is _Event.END:
                self._next[rank] += 1
                self._feed(number, time)
            self._start_next(rank, time)
        self._check_finished()
        return self._starts

    def _feed(self, number: int, time: int) -> None:
        """Hand an ended op's result to its consumers."""
        sender = self._network.rank[number]
        for consumer in self._network.consumers[number]:
            receiver = self._network.rank[consumer]
            if receiver == sender:
                self._waits[consumer] -= 1
            else:
                heappush(self._events, (self._arrival(sender, receiver, time), _Event.ARRIVAL, consumer))

    def _arrival(self, sender: int, receiver: int, time: int) -> int:
        """When a transfer handed over now arrives; an exclusive link takes them as they come."""
        problem, link = self._network.problem, (sender, receiver)
        if problem.links is Links.EXCLUSIVE:
            time = max(time, self._link_free.get(link, time))
            self._link_free[link] = time + problem.transfer_ticks[sender][receiver]
        return time + problem.transfer_ticks[sender][receiver]

    def _start_next(self, rank: int, time: int) -> None:
        """Start a rank's next op if the rank is idle and the op's inputs are there."""
        number = self._next[rank]
        if self._idle[rank] and number < self._network.spans[rank][1] and self._waits[number] == 0:
            self._idle[rank] = False
            self._starts[number] = time
            heappush(self._events, (time + self._durations[number], _Event.END, number))

    def _check_finished(self) -> None:
        ops, spans = self._network.ops, self._network.spans
        waiting = []
        for rank, (number, (_, end)) in enumerate(zip(self._next, spans, strict=True)):
            if number < end:
                awaited = [str(ops[p]) for p in self._network.producers[number] if not self._has_ended(p)]
                waiting.append(WaitingRank(rank, str(ops[number]), tuple(awaited)))
        if waiting:
            raise DeadlockError(waiting)

    def _has_ended(self, number: int) -> bool:
        return number < self._next[self._network.rank[number]]
