"""The building block: the ops of one period, and how long every stage holds a microbatch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from synth.export.figure import style
from synth.export.figure.ops_panel import TimeAxis, draw_ops
from synth.export.steady_state import SteadyState, find_steady_state, ops_of
from synth.ops import OpKind, TimedOp
from synth.schedule import Schedule

MOST_BARS = 4
"""A rank with more lifespans than this shows none: they would be hairlines."""

SHORTEST_ARROW_POINTS = 8.0
ARROW_POINTS = 3.2
"""How far above the first row the period's arrow is."""


@dataclass(frozen=True, slots=True)
class Block:
    """What the panel shows: some microbatches' ops on every rank, and the steady state they stand for."""

    schedule: Schedule
    steady: SteadyState | None
    ranks: tuple[tuple[TimedOp, ...], ...]

    @classmethod
    def of(cls, schedule: Schedule) -> Block:
        """The block in the middle of the steady state, or the middle microbatch where there is none."""
        steady = find_steady_state(schedule)
        shown = steady.middle if steady else (schedule.problem.num_microbatches // 2,)
        return cls(schedule, steady, ops_of(schedule, shown))

    @property
    def start(self) -> int:
        """The first op's start."""
        return min(timed.start for rank in self.ranks for timed in rank)

    @property
    def ticks(self) -> int:
        """From the first op's start to the last one's end, or to the next block's start."""
        end = max(timed.end for rank in self.ranks for timed in rank)
        return max(end - self.start, self.steady.period_ticks if self.steady else 0)

    @property
    def title(self) -> str:
        """What the panel shows, in words."""
        microbatches = sorted({timed.op.microbatch for rank in self.ranks for timed in rank})
        if self.steady is None:
            return f"microbatch {microbatches[0]} (no steady state)"
        count = len(microbatches)
        return "building block" if count == 1 else f"building block of {count} microbatches"


def draw_block(axes: Axes, block: Block, axis: TimeAxis, period: str) -> None:
    """Draw the block's ops, below them the lifespan of every stage, and above them the period.

    A lifespan is from the start of a stage's F to the end of its last op: its length in periods is how many
    microbatches the stage holds (arXiv 2405.15362, equation 1).
    """
    draw_ops(axes, block.schedule.problem, block.ranks, axis)
    bars = list(_lifespans(block, axis))
    # Light against dark, so that the bars of a rank's chunks can be told apart.
    for dark, colour in ((False, "#B5B5B5"), (True, "#6A6A6A")):
        found = [bar for bar, odd in bars if odd is dark]
        collection = PolyCollection(found, facecolors=[colour], linewidths=[0])
        collection.set_gid(f"lifespans-{'dark' if dark else 'light'}")
        axes.add_collection(collection, autolim=False)
    if block.steady is not None:
        _draw_period(axes, axis, block.steady.period_ticks * axis.per_tick, period)


def _lifespans(block: Block, axis: TimeAxis) -> Iterator[tuple[list[tuple[float, float]], bool]]:
    """A bar for every stage and microbatch, and whether it is dark: that of an even chunk."""
    chunks = block.schedule.problem.chunk_by_stage
    for rank, row in enumerate(block.ranks):
        spans: dict[tuple[int, int], tuple[int, int]] = {}
        for op, start, end in row:
            key = (op.microbatch, op.stage)
            begun = start if op.kind is OpKind.F else spans.get(key, (start, end))[0]
            spans[key] = (begun, max(end, spans.get(key, (start, end))[1]))
        if len(spans) > MOST_BARS:
            continue
        height = (style.STRIP_BOTTOM - style.STRIP_TOP) / len(spans)
        for number, ((_, stage), (start, end)) in enumerate(sorted(spans.items())):
            top = rank + style.STRIP_TOP + number * height
            bottom = top + 0.75 * height
            left, right = axis.at(start), axis.at(end)
            yield [(left, top), (right, top), (right, bottom), (left, bottom)], chunks[stage] % 2 == 0


def _draw_period(axes: Axes, axis: TimeAxis, length: float, text: str) -> None:
    """The period's length above the first row, behind a double arrow where that is long enough to be seen."""
    arrow = {"arrowstyle": "<->", "lw": 0.7, "color": style.INK, "shrinkA": 0, "shrinkB": 0}
    row = -ARROW_POINTS / 72 / style.row_inches(round(axes.get_ylim()[0]))
    is_long = length * axis.points >= SHORTEST_ARROW_POINTS
    if is_long:
        ends = ((0, row), (length, row))
        axes.annotate("", *ends, arrowprops={**arrow, "mutation_scale": 5}, annotation_clip=False)
    axes.annotate(
        text,
        (length if is_long else 0, row),
        xytext=(3 if is_long else 0, 0),
        textcoords="offset points",
        fontsize=style.TEXT_POINTS,
        color=style.INK,
        va="center",
        annotation_clip=False,
    )
