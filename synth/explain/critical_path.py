"""The critical path: the chain of ops, each waiting for the one before it, that makes the value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from synth.ops import Op, OpKind, TimedOp
from synth.problem import Objective
from synth.schedule import Schedule
from synth.timeline import Transfer, transfers

MOST_LINES = 16
"""Lines of a path told in words; what is in the middle of a longer one is counted."""


class Cause(StrEnum):
    """Why an op on the path does not start earlier."""

    FIRST = "first"
    """It waits for nothing that is part of the value: the path begins here."""
    RANK = "rank"
    """Its rank ran the op before it until then."""
    TRANSFER = "transfer"
    """Its input came from another rank."""
    SUM = "sum"
    """The last of the weight gradients that it sums was another rank's."""
    SLACK = "slack"
    """It could start earlier: the schedule lets it wait."""


@dataclass(frozen=True, slots=True)
class Step:
    """An op on the critical path.

    Parameters
    ----------
    rank, timed
        The op, where and when it runs.
    cause
        Why it does not start earlier.
    wait_ticks
        From the end of the step before it to its start: in a transfer, queueing for one, or in slack.
    """

    rank: int
    timed: TimedOp
    cause: Cause
    wait_ticks: int


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """A chain of ops without which the value would be smaller, in order of time.

    Parameters
    ----------
    objective
        What the path explains.
    start, end
        The value's first and last tick. Under ``rank_span`` they are those of the rank that takes longest,
        and the path's first op may begin before.
    steps
        The ops.
    """

    objective: Objective
    start: int
    end: int
    steps: tuple[Step, ...]

    @property
    def ops(self) -> tuple[Op, ...]:
        """The ops alone."""
        return tuple(step.timed.op for step in self.steps)

    def ticks(self, cause: Cause) -> int:
        """The ticks that the path spends waiting for one cause."""
        return sum(step.wait_ticks for step in self.steps if step.cause is cause)


def critical_path(schedule: Schedule) -> CriticalPath:
    """The chain that ends with the value's last op, each step being what the next one waited for.

    Where the op before it on its rank and a transfer end at the same tick, the path stays on the rank. Times
    need not be the earliest, nor durations the planned ones: a measured timeline has a path too.

    Parameters
    ----------
    schedule
        What to explain.

    Raises
    ------
    InvalidOrdersError
        When it does not hold exactly its problem's ops.
    """
    arriving: dict[Op, list[Transfer]] = {}
    for transfer in transfers(schedule):
        arriving.setdefault(transfer.consumer, []).append(transfer)
    summed = _summed(schedule)
    rank, start, end = _window(schedule)
    places = {timed.op: (r, n) for r, ran in enumerate(schedule.ranks) for n, timed in enumerate(ran)}
    steps: list[Step] = []
    position = len(schedule.ranks[rank]) - 1
    while True:
        timed = schedule.ranks[rank][position]
        awaited = [] if timed.start <= start else _awaited(schedule, places, arriving, rank, position)
        if timed.op.kind is OpKind.R and timed.start > start:
            awaited += [
                _Awaited(last, min(last.end, timed.start), Cause.SUM) for last in summed[timed.op.stage]
            ]
        if not awaited:
            steps.append(Step(rank, timed, Cause.FIRST, 0))
            break
        last = max(awaited, key=lambda one: (one.until, one.cause is Cause.RANK))
        cause = last.cause if last.until == timed.start else Cause.SLACK
        steps.append(Step(rank, timed, cause, timed.start - last.before.end))
        rank, position = places[last.before.op]
    return CriticalPath(schedule.problem.objective, start, end, tuple(reversed(steps)))


def _summed(schedule: Schedule) -> dict[int, list[TimedOp]]:
    """For every stage with R, the last weight gradient of each of its replicas."""
    last: dict[int, TimedOp] = {}
    for ran in schedule.ranks:
        last |= {timed.op.stage: timed for timed in ran if timed.op.kind in (OpKind.W, OpKind.BW)}
    stages = enumerate(zip(schedule.problem.stages, schedule.problem.replicas_by_stage, strict=True))
    return {
        stage: [last[replica] for replica in held] for stage, (costs, held) in stages if costs.R is not None
    }


def _window(schedule: Schedule) -> tuple[int, int, int]:
    """The rank whose last op ends the value, and the value's first and last tick."""
    if schedule.problem.objective is Objective.MAKESPAN:
        rank = max(range(len(schedule.ranks)), key=lambda r: schedule.ranks[r][-1].end)
        return rank, min(ran[0].start for ran in schedule.ranks), schedule.ranks[rank][-1].end
    spans = [ran[-1].end - ran[0].start for ran in schedule.ranks]
    rank = spans.index(max(spans))
    return rank, schedule.ranks[rank][0].start, schedule.ranks[rank][-1].end


@dataclass(frozen=True, slots=True)
class _Awaited:
    """An op that another one waited for, until when, and what came between them."""

    before: TimedOp
    until: int
    cause: Cause


def _awaited(
    schedule: Schedule,
    places: dict[Op, tuple[int, int]],
    arriving: dict[Op, list[Transfer]],
    rank: int,
    position: int,
) -> list[_Awaited]:
    """The op before it on its rank and those that sent its inputs."""
    timed = schedule.ranks[rank][position]
    found = []
    for transfer in arriving.get(timed.op, ()):
        sender, sent = places[transfer.producer]
        # A measured op may start before its transfer was planned to arrive: then it came just in time.
        until = min(transfer.end, timed.start)
        found.append(_Awaited(schedule.ranks[sender][sent], until, Cause.TRANSFER))
    if position > 0:
        before = schedule.ranks[rank][position - 1]
        found.append(_Awaited(before, before.end, Cause.RANK))
    return found


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive steps of the path on one rank.

    Parameters
    ----------
    steps
        At least one; each but the first begins when the one before it ends.
    """

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        ops = str(first.timed.op)
        if len(self.steps) > 1:
            ops += f" to {last.timed.op} ({len(self.steps)} ops)"
        return f"{first.timed.start} to {last.timed.end}: rank {first.rank} runs {ops}{_wait(first)}"


def _wait(step: Step) -> str:
    if step.cause is Cause.SUM:
        return ", behind the other weight gradients of its sum"
    if step.cause is Cause.SLACK:
        return f", {step.wait_ticks} ticks later than it could"
    return f", {step.wait_ticks} ticks behind what it was sent" * (step.wait_ticks > 0)


def stretches(path: CriticalPath) -> list[Stretch]:
    """The path cut wherever it changes ranks or waits."""
    found: list[list[Step]] = []
    for step in path.steps:
        if step.cause is Cause.RANK:
            found[-1].append(step)
        else:
            found.append([step])
    return [Stretch(tuple(steps)) for steps in found]


def in_words(path: CriticalPath, most_lines: int = MOST_LINES) -> list[str]:
    """The path as sentences: what it sums up to, then stretch by stretch in order of time.

    Parameters
    ----------
    path
        The path.
    most_lines
        How many stretches to tell; the middle of a longer path is only counted.
    """
    computing = path.end - path.start - path.ticks(Cause.TRANSFER) - path.ticks(Cause.SLACK)
    counts = Counter(step.timed.op.kind for step in path.steps)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    total = (
        f"{path.objective} {path.end - path.start} ticks = {computing} computing ({kinds}) + "
        f"{path.ticks(Cause.TRANSFER)} in transfers"
    )
    if path.ticks(Cause.SLACK):
        total += f" + {path.ticks(Cause.SLACK)} in ops that start later than they could"
    told = [str(stretch) for stretch in stretches(path)]
    if len(told) > most_lines + 1:
        head, tail = told[: most_lines // 2], told[-(most_lines // 2) :]
        told = [*head, f"… {len(told) - len(head) - len(tail)} stretches more …", *tail]
    return [total, *told]
