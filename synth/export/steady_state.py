"""The steady state of a schedule: where its microbatches repeat, and after how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synth.ops import OpKind, TimedOp
from synth.schedule import Schedule

MOST_TOGETHER = 8
"""How many microbatches, at most, are tried as what repeats."""

BLOCKS_IN_A_ROW = 3
"""How often a block must stand in a row before it counts as repeating."""

Key = tuple[OpKind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """The repeating middle of a schedule.

    Parameters
    ----------
    period_ticks
        After so long the next ``num_together`` microbatches do the same.
    num_together
        How many microbatches one building block holds.
    first, last
        The microbatches of the steady state, both included.
    """

    period_ticks: int
    num_together: int
    first: int
    last: int

    @property
    def middle(self) -> tuple[int, ...]:
        """The microbatches of the block in the middle of the steady state."""
        blocks = (self.last - self.first + 1) // self.num_together
        start = self.first + blocks // 2 * self.num_together
        return tuple(range(start, start + self.num_together))


def find_steady_state(schedule: Schedule) -> SteadyState | None:
    """Find the fewest microbatches that repeat around the middle one, and their interval.

    K microbatches repeat where every op of microbatch i + K starts and ends one period after the same op of
    microbatch i. A block stands :data:`BLOCKS_IN_A_ROW` times in a row or more, the middle microbatch is
    among them, and no rank has more work in a block than the period: where one has, as all the forwards of
    GPipe in a row would, the likeness is no steady state (DESIGN.md, Mathematics, 3 and 4).

    >>> from synth.baselines import baseline_orders
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> stage = StageCosts(F=OpCost(ticks=2), BW=OpCost(ticks=5))
    >>> problem = uniform_problem(4, 12, stage)
    >>> find_steady_state(schedule_orders(problem, baseline_orders("1f1b", problem)))
    SteadyState(period_ticks=7, num_together=1, first=4, last=11)

    Returns
    -------
    None where nothing repeats, or stages carry different microbatches, as those of two directions.
    """
    if len({feed.microbatches for feed in schedule.problem.feeds}) > 1:
        return None  # the microbatches of one direction do not repeat those of another
    microbatches = _times_by_microbatch(schedule)
    for num_together in range(1, min(MOST_TOGETHER, len(microbatches) // BLOCKS_IN_A_ROW) + 1):
        found = _repeating(microbatches, num_together)
        if found and found.period_ticks >= _work_ticks(schedule, microbatches, found):
            return found
    return None


def ops_of(schedule: Schedule, microbatches: Sequence[int]) -> tuple[tuple[TimedOp, ...], ...]:
    """The ops of some microbatches on every rank, in execution order; sums of gradients are of none."""
    wanted = set(microbatches)
    return tuple(
        tuple(timed for timed in rank if timed.op.microbatch in wanted and timed.op.kind is not OpKind.R)
        for rank in schedule.ranks
    )


def _times_by_microbatch(schedule: Schedule) -> list[dict[Key, tuple[int, int]]]:
    """The start and end of every (kind, stage) of every microbatch."""
    microbatches: list[dict[Key, tuple[int, int]]] = [{} for _ in range(schedule.problem.num_microbatches)]
    for rank in schedule.ranks:
        for op, start, end in rank:
            if op.kind is OpKind.R:
                continue
            microbatches[op.microbatch][op.kind, op.stage] = (start, end)
    return microbatches


def _repeating(microbatches: list[dict[Key, tuple[int, int]]], num_together: int) -> SteadyState | None:
    """The longest stretch around the middle in which so many microbatches repeat."""
    intervals = [
        _interval(earlier, later)
        for earlier, later in zip(microbatches, microbatches[num_together:], strict=False)
    ]
    middle = min(len(microbatches) // 2, len(intervals) - 1)
    period = intervals[middle]
    if period is None:
        return None
    first = last = middle
    while first > 0 and intervals[first - 1] == period:
        first -= 1
    while last + 1 < len(intervals) and intervals[last + 1] == period:
        last += 1
    if last + num_together - first + 1 < BLOCKS_IN_A_ROW * num_together:
        return None
    return SteadyState(period_ticks=period, num_together=num_together, first=first, last=last + num_together)


def _interval(earlier: dict[Key, tuple[int, int]], later: dict[Key, tuple[int, int]]) -> int | None:
    """How much later all ops of one microbatch start and end than another's, None where they differ."""
    if earlier.keys() != later.keys():
        return None
    found = {later[key][side] - times[side] for key, times in earlier.items() for side in (0, 1)}
    return found.pop() if len(found) == 1 else None


def _work_ticks(
    schedule: Schedule, microbatches: list[dict[Key, tuple[int, int]]], found: SteadyState
) -> int:
    """The work of the busiest rank in one block."""
    work = [0] * schedule.problem.num_ranks
    for microbatch in found.middle:
        for (_, stage), (start, end) in microbatches[microbatch].items():
            work[schedule.problem.stage_to_rank[stage]] += end - start
    return max(work)
