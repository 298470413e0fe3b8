"""Plan beside reality: a schedule against the timeline of one executed step."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from synth.errors import InputError
from synth.measured import NS_PER_S, Timeline
from synth.measured_costs import with_time_before
from synth.ops import Op, OpKind
from synth.schedule import Schedule, measure


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

    To an op measured belongs the time before it in which its rank gets there
    (:func:`~synth.measured_costs.with_time_before`), as it does in the ops of a measured problem: in all that
    is compared, so that a step begins with what comes before its first op.

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
    whole = with_time_before(timeline)
    measured = [(op, _seconds(end - start)) for rank in whole.ranks for op, start, end in rank]
    means, real = _means(planned), _means(measured)
    ops = [
        OpComparison(stage, OpKind(kind), count, Times(mean, real[stage, kind][0]))
        for (stage, kind), (mean, count) in sorted(means.items())
    ]
    peaks = measure(schedule).peak_memory_bytes
    ranks = tuple(_rank(rank, schedule, whole, peaks[rank]) for rank in range(schedule.problem.num_ranks))
    plan = measure(schedule)
    return Comparison(
        ops=tuple(ops),
        ranks=ranks,
        makespan=Times(plan.makespan * tick_s, _seconds(whole.length_ns)),
        rank_span=Times(plan.rank_span * tick_s, max(rank.span.measured_s for rank in ranks)),
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


def _means(durations: Iterable[tuple[Op, float]]) -> dict[tuple[int, str], tuple[float, int]]:
    """By stage and kind: the mean and the count."""
    by_kind: dict[tuple[int, str], list[float]] = defaultdict(list)
    for op, duration in durations:
        by_kind[op.stage, op.kind.value].append(duration)
    return {key: (statistics.fmean(found), len(found)) for key, found in by_kind.items()}


def _seconds(duration_ns: int) -> float:
    return duration_ns / NS_PER_S
