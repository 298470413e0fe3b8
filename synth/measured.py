"""What really happened: when each op ran on its device, in nanoseconds, and what a plan says in ticks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from synth.ops import Op, RankOrders, TimedOp
from synth.problem import Problem
from synth.schedule import Schedule

NS_PER_S = 1_000_000_000


class MeasuredOp(NamedTuple):
    """An op with its real start and end, in nanoseconds of one clock for all ranks."""

    op: Op
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBytes:
    """What one rank held from op to op of a step, as its device's allocator says.

    Parameters
    ----------
    start_bytes
        Before its first op.
    most_bytes
        For each of its ops in execution order, the most from the end of the op before to its own end.
    after_bytes
        For each of them, behind it.
    """

    start_bytes: int
    most_bytes: tuple[int, ...]
    after_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One executed step (``pipesynth.timeline``).

    Parameters
    ----------
    problem
        What was scheduled, its placement resolved; its ``tick_seconds`` relates plan and reality.
    ranks
        For every rank its ops in execution order, at least one.
    peak_memory_bytes
        The device allocator's peak on every rank, None where there is no such number.
    held_bytes
        For every rank what it held from op to op, None where nobody looked; only beside peaks, which may be
        higher by what a rank keeps to use again.
    source
        Where the numbers come from.
    """

    problem: Problem
    ranks: tuple[tuple[MeasuredOp, ...], ...]
    peak_memory_bytes: tuple[int, ...] | None = None
    held_bytes: tuple[HeldBytes, ...] | None = None
    source: str = ""

    @property
    def orders(self) -> RankOrders:
        """The orders alone."""
        return tuple(tuple(measured.op for measured in rank) for rank in self.ranks)

    @property
    def length_ns(self) -> int:
        """From the first start to the last end over all ranks."""
        return max(rank[-1].end_ns for rank in self.ranks) - min(rank[0].start_ns for rank in self.ranks)

    @property
    def schedule(self) -> Schedule:
        """The same in ticks, from 0 on: every time is rounded to the nearest tick."""
        first = min(rank[0].start_ns for rank in self.ranks)
        tick_ns = self.problem.tick_seconds * NS_PER_S

        def ticks(time_ns: int) -> int:
            return round((time_ns - first) / tick_ns)

        return Schedule(
            self.problem,
            tuple(
                tuple(TimedOp(op, ticks(start), ticks(end)) for op, start, end in rank) for rank in self.ranks
            ),
        )
