"""What every rank holds over time, and its limit, as a strip below its ops."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from synth.export.figure import style
from synth.export.figure.ops_panel import Floats, TimeAxis
from synth.export.units import BytesUnit
from synth.schedule import Schedule, measure
from synth.timeline import MemoryStep, memory_steps


def draw_memory(axes: Axes, schedule: Schedule, axis: TimeAxis, full_bytes: int) -> None:
    """Draw a strip for every rank; ``full_bytes`` fills one to the top, and a dashed line is the limit."""
    outlines = [_outline(rank, steps, axis, full_bytes) for rank, steps in enumerate(memory_steps(schedule))]
    strips = PolyCollection(outlines, facecolors=[style.MEMORY], linewidths=[0])
    strips.set_gid("memory")
    axes.add_collection(strips, autolim=False)
    limits = schedule.problem.memory_limit_bytes
    if limits is None:
        return
    lines = [
        [(axis.at(row[0].start), height), (axis.at(row[-1].end), height)]
        for row, height in zip(schedule.ranks, _heights(limits, full_bytes), strict=True)
    ]
    dashes = LineCollection(lines, colors=[style.LIMIT], linewidths=[0.7], linestyles=[(0, (3, 1.5))])
    dashes.set_gid("limits")
    axes.add_collection(dashes, autolim=False)


def write_peaks(axes: Axes, schedule: Schedule, unit: BytesUnit, end: float) -> None:
    """Write every rank's peak, and its limit, to the right of its row."""
    limits = schedule.problem.memory_limit_bytes
    for rank, peak in enumerate(measure(schedule).peak_memory_bytes):
        text = unit.number(peak) + ("" if limits is None else f" of {unit.number(limits[rank])}")
        axes.annotate(
            text,
            (end, rank + (style.STRIP_TOP + style.STRIP_BOTTOM) / 2),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=style.SMALL_POINTS,
            color=style.MUTED,
            va="center",
            annotation_clip=False,
        )


def _outline(rank: int, steps: tuple[MemoryStep, ...], axis: TimeAxis, full_bytes: int) -> Floats:
    """The strip's outline: along the bottom, and back over the steps."""
    bottom = rank + style.STRIP_BOTTOM
    ordered = sorted(steps)
    times = np.array([axis.at(step.tick) for step in ordered])
    height = (style.STRIP_BOTTOM - style.STRIP_TOP) / max(1, full_bytes)
    levels = bottom - np.array([step.live_bytes * height for step in ordered])
    x = np.repeat(times, 2)[1:]
    y = np.repeat(levels, 2)[:-1]
    return np.column_stack([[x[0], *x, x[-1]], [bottom, *y, bottom]])


def _heights(limits: tuple[int, ...], full_bytes: int) -> list[float]:
    height = (style.STRIP_BOTTOM - style.STRIP_TOP) / max(1, full_bytes)
    return [rank + style.STRIP_BOTTOM - limit * height for rank, limit in enumerate(limits)]
