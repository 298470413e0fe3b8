"""Schedules as coloured strips for a terminal: a line per rank, time to the right."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import groupby

from rich.style import Style
from rich.text import Text

from synth.colours import shade
from synth.ops import OpKind, TimedOp
from synth.problem import Problem
from synth.schedule import Schedule
from synth.stage_names import how_stages_read

IDLE = "·"


def coloured_strips(schedule: Schedule, columns: int, *, ticks: int | None = None) -> Text:
    """Draw a schedule in so many columns, an op in the colour of its kind and chunk.

    A column shows the op that runs in its middle. An op says its microbatch where it is wide enough.

    Parameters
    ----------
    schedule
        What to draw.
    columns
        The width of the terminal.
    ticks
        What the whole width stands for, so that several schedules share an axis; by default the schedule's
        own length.
    """
    heads = [f"rank {rank} " for rank in range(len(schedule.ranks))]
    margin = max(map(len, heads))
    first = min(rank[0].start for rank in schedule.ranks)
    last = max(rank[-1].end for rank in schedule.ranks)
    width = max(1, columns - margin)
    length = max(last - first, ticks or 0)
    middles = [first + (2 * column + 1) * length // (2 * width) for column in range(width)]
    styles = _styles(schedule.problem)
    text = Text()
    for head, rank in zip(heads, schedule.ranks, strict=True):
        text.append(head.rjust(margin))
        for timed, cells in groupby(middles, partial(_running, rank)):
            count = len(list(cells))
            if timed is None:
                text.append(IDLE * count, Style(dim=True))
            else:
                label = "R" if timed.op.kind is OpKind.R else str(timed.op.microbatch)
                shown = label if len(label) < count else ""
                text.append(shown.ljust(count), styles[timed.op.stage, timed.op.kind])
        text.append("\n")
    return text


def legend(problem: Problem) -> Text:
    """The colours of the kinds of op that a problem has, by chunk where a rank holds several.

    Of a flow, chunks are the stages of a rank, and one line says how a stage's number reads.
    """
    styles = _styles(problem)
    text = Text()
    reading = how_stages_read(problem)
    chunks = max(problem.stages_by_rank, key=len)
    for kind in OpKind:
        for chunk, stage in enumerate(chunks):
            if (stage, kind) in styles:
                number = f" chunk {chunk}" if len(chunks) > 1 else ""
                text.append(f" {kind}{number} ", styles[stage, kind])
                text.append(" ")
    text.append(f"{IDLE} idle")
    return text.append(f"\n {reading}; a chunk is one of a rank's stages") if reading else text


def _styles(problem: Problem) -> dict[tuple[int, OpKind], Style]:
    styles = {}
    for held in problem.stages_by_rank:
        for chunk, stage in enumerate(held):
            for kind, _ in problem.stages[stage].offered:
                colours = shade(kind, chunk, len(held))
                styles[stage, kind] = Style(color=colours.text, bgcolor=colours.fill)
    return styles


def _running(rank: Sequence[TimedOp], tick: int) -> TimedOp | None:
    """The op that a rank runs at a tick."""
    position = bisect_right(rank, tick, key=lambda timed: timed.start) - 1
    return rank[position] if position >= 0 and tick < rank[position].end else None
