"""Plan beside reality: a schedule against the timeline of one executed step, and the costs it shows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from synth.errors import InputError
from synth.measured import NS_PER_S, MeasuredOp, Timeline
from synth.ops import Op, OpKind
from synth.problem import OpCost, Problem, StageCosts
from synth.schedule import Schedule, measure
from synth.timeline import transfers


@dataclass(frozen=True, slots=True)
class Times:
    """What was planned and what it took, in seconds."""

    planned_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """The prediction error: by how much of the measured time the plan is too long; below 0, short."""
        return self.planned_s / self.measured_s - 1 if self.measured_s else 0.0


@dataclass(frozen=True, slots=True)
class OpComparison:
    """The ops of one kind on one stage: the mean over its microbatches."""

    stage: int
    kind: OpKind
    count: int
    times: Times


@dataclass(frozen=True, slots=True)
class RankComparison:
    """One rank: from its first start to its last end, the sum of its ops' times, and its peak memory."""

    rank: int
    span: Times
    busy: Times
    planned_peak_bytes: int
    measured_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A plan and a measured step, by op, by rank and in total."""

    ops: tuple[OpComparison, ...]
    ranks: tuple[RankComparison, ...]
    makespan: Times
    rank_span: Times


def compare_with_timeline(schedule: Schedule, timeline: Timeline) -> Comparison:
    """Set a schedule beside what was measured of it.

    Parameters
    ----------
    schedule
        The plan; its ``tick_seconds`` makes its ticks seconds.
    timeline
        One step that ran the same orders.

    Raises
    ------
    InputError
        When the timeline is of other orders.
    """
    _check_same_orders(schedule, timeline)
    tick_s = schedule.problem.tick_seconds
    planned = [(timed.op, (timed.end - timed.start) * tick_s) for rank in schedule.ranks for timed in rank]
    measured = [(op, _seconds(end - start)) for rank in timeline.ranks for op, start, end in rank]
    means, real = _means(planned), _means(measured)
    ops = [
        OpComparison(stage, OpKind(kind), count, Times(mean, real[stage, kind][0]))
        for (stage, kind), (mean, count) in sorted(means.items())
    ]
    peaks = measure(schedule).peak_memory_bytes
    ranks = tuple(_rank(rank, schedule, timeline, peaks[rank]) for rank in range(schedule.problem.num_ranks))
    plan = measure(schedule)
    first = min(rank[0].start_ns for rank in timeline.ranks)
    last = max(rank[-1].end_ns for rank in timeline.ranks)
    return Comparison(
        ops=tuple(ops),
        ranks=ranks,
        makespan=Times(plan.makespan * tick_s, _seconds(last - first)),
        rank_span=Times(plan.rank_span * tick_s, max(rank.span.measured_s for rank in ranks)),
    )


def measured_problem(timeline: Timeline) -> Problem:
    """The timeline's problem with what was measured for costs: feed it back to plan again.

    An op takes the median over its stage's microbatches, at least a tick. A transfer takes, for each ordered
    pair of ranks, the median over those messages whose consumer stood ready before their producer ended;
    where no consumer ever did, the problem's own ticks stay. Memory stays as it was.
    """
    problem = timeline.problem
    tick_ns = problem.tick_seconds * NS_PER_S
    times: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
    for rank in timeline.ranks:
        for op, start, end in rank:
            times[op.stage, op.kind].append(end - start)

    timed = with_op_times(problem, times)
    matrix = [list(row) for row in problem.transfer_ticks]
    for (sender, receiver), waits in _waits_ns(timeline).items():
        matrix[sender][receiver] = max(0, round(statistics.median(waits) / tick_ns))
    return replace(
        timed,
        transfer_ticks=tuple(map(tuple, matrix)),
        source=f"measured: {timeline.source}" if timeline.source else "measured",
    )


def with_op_times(problem: Problem, times_ns: Mapping[tuple[int, OpKind], Sequence[int]]) -> Problem:
    """A problem whose ops take what was measured of them: the median, at least a tick.

    Parameters
    ----------
    problem
        Gives all else, and the length of a tick.
    times_ns
        By stage and kind; an op of which there are none keeps its ticks.
    """
    tick_ns = problem.tick_seconds * NS_PER_S

    def cost(stage: int, kind: OpKind, own: OpCost) -> OpCost:
        times = times_ns.get((stage, kind))
        return replace(own, ticks=max(1, round(statistics.median(times) / tick_ns))) if times else own

    stages = tuple(
        _with_costs(costs, {kind: cost(s, kind, own) for kind, own in costs.offered})
        for s, costs in enumerate(problem.stages)
    )
    return replace(problem, stages=stages)


def _with_costs(costs: StageCosts, measured: dict[OpKind, OpCost]) -> StageCosts:
    return replace(
        costs,
        F=measured[OpKind.F],
        B=measured.get(OpKind.B),
        W=measured.get(OpKind.W),
        BW=measured.get(OpKind.BW),
    )


def _check_same_orders(schedule: Schedule, timeline: Timeline) -> None:
    for rank, (planned, ran) in enumerate(zip(schedule.orders, timeline.orders, strict=False)):
        for n, (op, other) in enumerate(zip(planned, ran, strict=False)):
            if op != other:
                raise InputError(
                    f"the timeline is of another schedule: op {n} of rank {rank} is {other} there, {op} here"
                )
    lengths = [len(order) for order in schedule.orders], [len(order) for order in timeline.orders]
    if lengths[0] != lengths[1]:
        raise InputError(
            f"the timeline is of another schedule: its ranks ran {lengths[1]} ops, not {lengths[0]}"
        )


def _rank(rank: int, schedule: Schedule, timeline: Timeline, peak: int) -> RankComparison:
    tick_s, plan, real = schedule.problem.tick_seconds, schedule.ranks[rank], timeline.ranks[rank]
    span = Times((plan[-1].end - plan[0].start) * tick_s, _seconds(real[-1].end_ns - real[0].start_ns))
    busy = Times(
        sum(timed.end - timed.start for timed in plan) * tick_s,
        _seconds(sum(ran.end_ns - ran.start_ns for ran in real)),
    )
    peaks = timeline.peak_memory_bytes
    return RankComparison(rank, span, busy, peak, None if peaks is None else peaks[rank])


def _waits_ns(timeline: Timeline) -> dict[tuple[int, int], list[int]]:
    """For each ordered pair of ranks: how long messages took whose consumer's rank was waiting for them."""
    ran: dict[Op, MeasuredOp] = {}
    idle_from: dict[Op, int] = {}
    for rank in timeline.ranks:
        before = 0
        for measured in rank:
            ran[measured.op], idle_from[measured.op] = measured, before
            before = measured.end_ns
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for transfer in transfers(timeline.schedule):
        produced = ran[transfer.producer].end_ns
        if idle_from[transfer.consumer] <= produced:
            waited = ran[transfer.consumer].start_ns - produced
            found[transfer.from_rank, transfer.to_rank].append(waited)
    return found


def _means(durations: Iterable[tuple[Op, float]]) -> dict[tuple[int, str], tuple[float, int]]:
    """By stage and kind: the mean and the count."""
    by_kind: dict[tuple[int, str], list[float]] = defaultdict(list)
    for op, duration in durations:
        by_kind[op.stage, op.kind.value].append(duration)
    return {key: (statistics.fmean(found), len(found)) for key, found in by_kind.items()}


def _seconds(duration_ns: int) -> float:
    return duration_ns / NS_PER_S
