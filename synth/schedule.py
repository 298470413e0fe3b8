"""Schedules: timed ops per rank, and the numbers a schedule is judged by."""

from __future__ import annotations

from dataclasses import dataclass

from synth.ops import RankOrders, TimedOp
from synth.problem import Objective, Problem


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a schedule achieves.

    Parameters
    ----------
    makespan
        First start to last end over all ranks, ticks.
    rank_span
        The largest, over ranks, of last end minus first start, ticks.
    work
        The largest total op time of any rank, ticks.
    bubble_ratio
        ``1 - work / value`` of the problem's objective.
    peak_memory_bytes
        The peak of every rank, static bytes included.
    """

    makespan: int
    rank_span: int
    work: int
    bubble_ratio: float
    peak_memory_bytes: tuple[int, ...]

    def value(self, objective: Objective) -> int:
        """The value of one objective, ticks."""
        return self.makespan if objective is Objective.MAKESPAN else self.rank_span


@dataclass(frozen=True, slots=True)
class Schedule:
    """Timed ops per rank, in execution order.

    Parameters
    ----------
    problem
        What is scheduled.
    ranks
        For every rank its ops with planned start and end.
    """

    problem: Problem
    ranks: tuple[tuple[TimedOp, ...], ...]

    @property
    def orders(self) -> RankOrders:
        """The orders alone."""
        return tuple(tuple(timed.op for timed in rank) for rank in self.ranks)

    @property
    def value(self) -> int:
        """The value of the problem's objective, ticks."""
        return measure(self).value(self.problem.objective)


def measure(schedule: Schedule) -> Metrics:
    """Compute the metrics of a schedule whose ranks are ordered by time."""
    problem = schedule.problem
    filled = [rank for rank in schedule.ranks if rank]
    makespan = max(rank[-1].end for rank in filled) - min(rank[0].start for rank in filled)
    rank_span = max(rank[-1].end - rank[0].start for rank in filled)
    work = max(sum(timed.end - timed.start for timed in rank) for rank in filled)
    value = makespan if problem.objective is Objective.MAKESPAN else rank_span
    return Metrics(
        makespan=makespan,
        rank_span=rank_span,
        work=work,
        bubble_ratio=1 - work / value,
        peak_memory_bytes=peak_memory_bytes(problem, schedule.orders),
    )


def peak_memory_bytes(problem: Problem, orders: RankOrders) -> tuple[int, ...]:
    """The peak of every rank: a function of its order alone, static bytes included.

    An op allocates at its start and frees at its end, and a rank runs one op at a time, so walking the order
    and adding up is exact (FORMATS.md, Memory).
    """
    cost = {(s, kind): cost for s, costs in enumerate(problem.stages) for kind, cost in costs.offered}
    peaks = []
    for static, order in zip(problem.static_bytes_by_rank, orders, strict=True):
        live = peak = static
        for op in order:
            spent = cost[op.stage, op.kind]
            live += spent.alloc_bytes
            peak = max(peak, live)
            live -= spent.free_bytes
        peaks.append(peak)
    return tuple(peaks)


def fits(problem: Problem, peaks_bytes: tuple[int, ...]) -> bool:
    """Whether every rank's peak is within its limit."""
    limits = problem.memory_limit_bytes
    return limits is None or all(peak <= limit for peak, limit in zip(peaks_bytes, limits, strict=True))
