"""One replay of orders, every rank running its next op as soon as it can, and what its transfers did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from synth.compiled.event_loop import Times
from synth.compiled.event_loop import replay as run_compiled
from synth.errors import DeadlockError, InputError, WaitingRank
from synth.ops import Op, OpKind, RankOrders, TimedOp
from synth.problem import Links, Objective, Problem
from synth.schedule import Metrics, Schedule, measure
from synth.simulate.lowering import Lowered, Ticks, lower
from synth.simulate.network import Network, Route, planned_network


@dataclass(frozen=True, slots=True)
class Delivery:
    """A transfer to another rank or an all-reduce, and when it is handed over, leaves and arrives, in ticks.

    Parameters
    ----------
    producer, consumer
        The op that hands it over and the one that waits for it, None for an all-reduce. An all-reduce that
        waits for other ranks too has its own rank's last weight gradient as its producer.
    route
        Its way.
    ready, start, end
        Between ready and start it waits for its channels.
    """

    producer: Op
    consumer: Op | None
    route: Route
    ready: int
    start: int
    end: int


@dataclass(frozen=True)
class Simulation:
    """What a replay over a network gave.

    Parameters
    ----------
    schedule
        The ops' times. They follow from the network, so its problem's transfer ticks need not explain them.
    deliveries
        In the order of their producers, rank by rank.
    """

    schedule: Schedule
    deliveries: tuple[Delivery, ...]

    @cached_property
    def metrics(self) -> Metrics:
        """The schedule's metrics; a rank's last end is that of its last all-reduce where that is later."""
        problem, ranks = self.schedule.problem, self.schedule.ranks
        firsts = np.array([rank[0].start for rank in ranks], object)
        lasts = np.array([rank[-1].end for rank in ranks], object)
        for delivery in self.deliveries:
            if delivery.consumer is None:
                rank = problem.stage_to_rank[delivery.producer.stage]
                lasts[rank] = max(lasts[rank], delivery.end)
        makespan, rank_span = (int(spans_of_ranks(objective, firsts, lasts)) for objective in Objective)
        plain = measure(self.schedule)
        value = makespan if problem.objective is Objective.MAKESPAN else rank_span
        return replace(plain, makespan=makespan, rank_span=rank_span, bubble_ratio=1 - plain.work / value)

    @property
    def value(self) -> int:
        """The value of the problem's objective, ticks."""
        return self.metrics.value(self.schedule.problem.objective)

    @property
    def all_reduce_ticks(self) -> int:
        """By how much the all-reduces lengthen the value."""
        return self.value - self.schedule.value

    @property
    def waited_ticks(self) -> int:
        """How long transfers and all-reduces waited for channels, all of them together."""
        return sum(delivery.start - delivery.ready for delivery in self.deliveries)


def spans_of_ranks(objective: Objective, firsts: Ticks, lasts: Ticks) -> Ticks:
    """The objective's value from each rank's first start and last end; ranks along the first axis."""
    if objective is Objective.MAKESPAN:
        makespan: Ticks = lasts.max(axis=0) - firsts.min(axis=0)
        return makespan
    rank_span: Ticks = (lasts - firsts).max(axis=0)
    return rank_span


def simulate_orders(
    problem: Problem,
    orders: RankOrders,
    *,
    links: Links | None = None,
    release_ticks: Sequence[int] | None = None,
    ticks: Mapping[Op, int] | None = None,
) -> Schedule:
    """Run every rank's order as soon as possible on the problem's own transfer ticks.

    Parameters
    ----------
    problem
        The costs and the placement.
    orders
        For every rank, its ops in execution order: every op of the problem once.
    links
        Used instead of the problem's; the returned schedule's problem has them.
    release_ticks, ticks
        As in :func:`simulate_over`.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold exactly the problem's ops.
    DeadlockError
        When the ranks wait for one another.
    """
    problem = replace(problem, links=problem.links if links is None else links)
    network = planned_network(problem)
    return simulate_over(network, problem, orders, release_ticks=release_ticks, ticks=ticks).schedule


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
        schedule.problem, schedule.orders, links=links, release_ticks=first_starts(schedule)
    )


def replay_over(network: Network, schedule: Schedule) -> Simulation:
    """Run a schedule's orders over a network, each rank released at its planned first start.

    Parameters
    ----------
    network
        The routes of the problem's transfers.
    schedule
        Its orders and the first start of each rank are used, its other times are not.
    """
    release = first_starts(schedule)
    return simulate_over(network, schedule.problem, schedule.orders, release_ticks=release)


def simulate_over(
    network: Network,
    problem: Problem,
    orders: RankOrders,
    *,
    release_ticks: Sequence[int] | None = None,
    ticks: Mapping[Op, int] | None = None,
) -> Simulation:
    """Run every rank's order as soon as possible over a network.

    Parameters
    ----------
    network
        The routes of the problem's transfers.
    problem
        The costs and the placement; its own transfer ticks and links are not used.
    orders
        For every rank, its ops in execution order: every op of the problem once.
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
    release = (0,) * problem.num_ranks if release_ticks is None else tuple(release_ticks)
    if len(release) != problem.num_ranks:
        raise InputError(f"release_ticks is {len(release)} long: give {problem.num_ranks}")
    lowered = lower(problem, orders, network)
    if ticks is not None:
        lowered = replace(lowered, ticks=_overridden(lowered, ticks))
    dtype = object if lowered.sums_are_large(release) else np.int64
    times = run_events(lowered, np.array(lowered.ticks, dtype), np.array(release, dtype))
    starts, sent = times.start.tolist(), times.sent.tolist()
    timed = [
        TimedOp(op, start, start + duration)
        for op, start, duration in zip(lowered.ops, starts, lowered.ticks, strict=True)
    ]
    schedule = Schedule(problem, tuple(tuple(timed[a:b]) for a, b in lowered.spans))
    return Simulation(schedule, tuple(_deliveries(lowered, timed, sent)))


def first_starts(schedule: Schedule) -> tuple[int, ...]:
    """Every rank's planned first start, 0 where it has no op."""
    return tuple(rank[0].start if rank else 0 for rank in schedule.ranks)


def run_events(lowered: Lowered, ticks: Ticks, release_ticks: Ticks) -> Times:
    """Run the event loop to its end, compiled where 64 bits suffice.

    Parameters
    ----------
    lowered
        The ops and their sends.
    ticks, release_ticks
        The ops' durations and the ranks' releases, both of 64-bit integers or both of any.

    Raises
    ------
    DeadlockError
        When the ranks wait for one another.
    """
    is_large = ticks.dtype == object
    times = Times(
        start=np.zeros(len(lowered.ops), ticks.dtype),
        sent=np.zeros(len(lowered.plan.route), ticks.dtype),
        last=release_ticks.copy(),
        free=np.full(lowered.num_channels, min(release_ticks), ticks.dtype),
    )
    run = run_compiled.py_func if is_large else run_compiled
    plan = lowered.plan._replace(route_ticks=lowered.plan.route_ticks.astype(ticks.dtype))
    reached = run(plan, ticks, release_ticks, times)
    _check_finished(lowered, reached.tolist())
    return times


def _check_finished(lowered: Lowered, reached: Sequence[int]) -> None:
    """Refuse orders in which a rank stopped short of its end."""
    ops = lowered.ops
    waiting = []
    for rank, (number, (_, end)) in enumerate(zip(reached, lowered.spans, strict=True)):
        if number < end:
            awaited = [p for p in lowered.producers[number] if p >= reached[lowered.rank(p)]]
            waiting.append(WaitingRank(rank, str(ops[number]), tuple(str(ops[p]) for p in awaited)))
    if waiting:
        raise DeadlockError(waiting)


def _overridden(lowered: Lowered, ticks: Mapping[Op, int]) -> tuple[int, ...]:
    durations = tuple(ticks.get(op, own) for op, own in zip(lowered.ops, lowered.ticks, strict=True))
    for op, duration in zip(lowered.ops, durations, strict=True):
        if duration < 1:
            raise InputError(f"ticks of {op} is {duration}: give an integer ≥ 1")
    return durations


def _deliveries(lowered: Lowered, timed: Sequence[TimedOp], sent: Sequence[int]) -> list[Delivery]:
    """The transfers and all-reduces, without what only counts the inputs of sums."""
    found = []
    leaves = iter(sent)
    ready = [each.end for each in timed] + [timed[own].end for own in lowered.sums]
    for number, sends in enumerate(lowered.sends):
        producer = lowered.sender(number)
        for send in sends:
            start = next(leaves)
            if send.consumer is not None and send.consumer >= len(lowered.ops):
                ready[send.consumer] = max(ready[send.consumer], ready[number])
                continue
            consumer = None if send.consumer is None else lowered.ops[send.consumer]
            if send.route is not None and (consumer is None or consumer.kind is not OpKind.R):
                end = start + send.route.ticks
                found.append(Delivery(producer, consumer, send.route, ready[number], start, end))
    return found
