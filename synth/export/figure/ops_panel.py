"""Ops as boxes on the rows of their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from synth.export.figure import style
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Problem

Floats = NDArray[np.float64]

OUTLINE_POINTS = 0.35
NARROWEST_OUTLINED_POINTS = 1.2
"""Narrower boxes, on the average, are drawn without an outline, which would hide their colour."""
PADDING_POINTS = 1.0
"""Around a number, in its box."""
NUMBER_OF_BOX = 0.75
"""The largest size of a number, as a share of its box's height."""
LEFT_OUT = (0.05, 0.34, 0.67)
"""The shares of boxes that may stay without their number, where it needs that to be readable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAxis:
    """How ticks lie on the axis of a panel.

    Parameters
    ----------
    from_tick
        Where the axis is 0.
    per_tick
        The length of a tick in the axis's unit.
    points
        The length of one of those units, in points.
    """

    from_tick: int
    per_tick: float
    points: float

    def at(self, tick: int) -> float:
        """Where a tick lies."""
        return (tick - self.from_tick) * self.per_tick


def draw_ops(
    axes: Axes,
    problem: Problem,
    ranks: Sequence[Sequence[TimedOp]],
    axis: TimeAxis,
    *,
    marked: Sequence[Op] = (),
) -> None:
    """Draw every op as a box of its colour, with its microbatch's number where it fits."""
    chunks = problem.chunk_by_stage
    num_chunks = max(chunks) + 1
    placed = [(rank, timed) for rank, row in enumerate(ranks) for timed in row]
    placed.sort(key=lambda item: (item[1].op.kind, chunks[item[1].op.stage]))
    outlined = _are_wide(placed, axis)
    for (kind, chunk), group in groupby(placed, lambda item: (item[1].op.kind, chunks[item[1].op.stage])):
        colour = style.shade(kind, chunk, num_chunks)
        boxes = PolyCollection(
            [_box(rank, timed, axis) for rank, timed in group],
            facecolors=[colour],
            edgecolors=[style.INK],
            linewidths=[OUTLINE_POINTS if outlined else 0],
            snap=None if outlined else False,  # a box of half a pixel must not become a whole one
            clip_on=False,  # half an outline would be cut off at either end of the axis
        )
        boxes.set_gid(f"ops-{kind}-chunk-{chunk}")
        axes.add_collection(boxes, autolim=False)
    _mark(axes, placed, axis, set(marked))
    _number(axes, placed, axis)


def _are_wide(placed: Sequence[tuple[int, TimedOp]], axis: TimeAxis) -> bool:
    """Whether boxes have room for an outline."""
    return sum(_points(timed, axis) for _, timed in placed) / len(placed) >= NARROWEST_OUTLINED_POINTS


def _box(rank: int, timed: TimedOp, axis: TimeAxis) -> Floats:
    left, right = axis.at(timed.start), axis.at(timed.end)
    top, bottom = rank + style.OPS_TOP, rank + style.OPS_BOTTOM
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _mark(axes: Axes, placed: Sequence[tuple[int, TimedOp]], axis: TimeAxis, marked: set[Op]) -> None:
    """Draw a thick frame around the ops to point out."""
    boxes = [_box(rank, timed, axis) for rank, timed in placed if timed.op in marked]
    frames = PolyCollection(
        boxes, facecolors="none", edgecolors="black", linewidths=1.1, clip_on=False, zorder=3
    )
    frames.set_gid("marked")
    axes.add_collection(frames, autolim=False)


def _number(axes: Axes, placed: Sequence[tuple[int, TimedOp]], axis: TimeAxis) -> None:
    """Write microbatch numbers, all in one size, into the boxes that are wide enough for it."""
    size = _number_points(axes, placed, axis)
    for rank, timed in placed:
        text = number_of(timed.op)
        if _points(timed, axis) < size * style.DIGIT_WIDTH * len(text) + PADDING_POINTS:
            continue
        axes.text(
            (axis.at(timed.start) + axis.at(timed.end)) / 2,
            rank + (style.OPS_TOP + style.OPS_BOTTOM) / 2,
            text,
            fontsize=size,
            color="white" if timed.op.kind in style.LIGHT_TEXT else style.INK,
            ha="center",
            va="center_baseline",
        )


def _number_points(axes: Axes, placed: Sequence[tuple[int, TimedOp]], axis: TimeAxis) -> float:
    """The size at which nearly all boxes hold their number, else at which most do, else infinite."""
    digits = max((len(number_of(timed.op)) for _, timed in placed), default=1)
    widths = sorted(_points(timed, axis) for _, timed in placed)
    largest = min(style.LARGEST_NUMBER_POINTS, NUMBER_OF_BOX * 72 * _ops_inches(axes))
    for share in LEFT_OUT:
        fitting = (widths[int(len(widths) * share)] - PADDING_POINTS) / (digits * style.DIGIT_WIDTH)
        if min(fitting, largest) >= style.SMALLEST_NUMBER_POINTS:
            return min(fitting, largest)
    return float("inf")


def _points(timed: TimedOp, axis: TimeAxis) -> float:
    """How wide an op's box is."""
    return (timed.end - timed.start) * axis.per_tick * axis.points


def _ops_inches(axes: Axes) -> float:
    """How tall the boxes are."""
    rows = abs(axes.get_ylim()[0] - axes.get_ylim()[1])
    figure_inches = axes.figure.get_figure(root=True).get_size_inches()[1]
    return float(axes.get_position().height * figure_inches / rows * (style.OPS_BOTTOM - style.OPS_TOP))


def number_of(op: Op) -> str:
    """What an op's box says: its microbatch, or R for a sum of gradients, which has none."""
    return "R" if op.kind is OpKind.R else str(op.microbatch)


def kinds_of(ranks: Sequence[Sequence[TimedOp]]) -> list[OpKind]:
    """The kinds of op that occur, in the order of :class:`~synth.ops.OpKind`."""
    found = {timed.op.kind for rank in ranks for timed in rank}
    return [kind for kind in OpKind if kind in found]
