"""The whole figure: schedules below one another on one time axis, titles, numbers and the legend."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from synth.export.captions import caption
from synth.export.figure import style
from synth.export.figure.block_panel import Block, draw_block
from synth.export.figure.memory_strip import draw_memory, write_peaks
from synth.export.figure.ops_panel import TimeAxis, draw_ops, kinds_of
from synth.export.shown import Shown
from synth.export.units import BytesUnit, TimeUnit, bytes_unit, time_unit
from synth.schedule import measure
from synth.stage_names import how_stages_read

SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same everywhere
    "svg.fonttype": "path",  # numbers were measured to fit their boxes: another font would not
    "pdf.fonttype": 42,  # TrueType: venues refuse Type 3
    "svg.hashsalt": "pipesynth",
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
}
NO_DATES: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
"""The same schedules give the same bytes, whenever they are drawn."""

LONGEST_TITLE, NOTE_COLUMNS = 84, 95
"""In characters: a title is cut off after so many, a note goes on in the next line."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What the panels of a figure have in common.

    Parameters
    ----------
    time, memory
        The units.
    length, block_length
        The longest schedule and the longest block, in the unit of time.
    full_bytes
        What fills a memory strip to the top.
    has_blocks
        Whether building blocks are shown: where any schedule has a steady state.
    """

    time: TimeUnit
    memory: BytesUnit
    length: float
    block_length: float
    full_bytes: int
    has_blocks: bool

    @classmethod
    def of(cls, shown: Sequence[Shown], blocks: Sequence[Block]) -> Sheet:
        """Axes that hold every one of these schedules."""
        time = time_unit(shown)
        amounts = [
            amount
            for one in shown
            for amount in (
                *measure(one.schedule).peak_memory_bytes,
                *(one.schedule.problem.memory_limit_bytes or ()),
            )
        ]
        return cls(
            time=time,
            memory=bytes_unit(amounts),
            length=_longest(time, [(one, measure(one.schedule).makespan) for one in shown]),
            block_length=_longest(time, [(one, b.ticks) for one, b in zip(shown, blocks, strict=True)]),
            full_bytes=max(amounts),
            has_blocks=any(block.steady for block in blocks),
        )


def render(shown: Sequence[Shown], suffix: str) -> bytes:
    """Draw schedules as a file of this suffix: svg, png or pdf."""
    with matplotlib.style.context(["default", SETTINGS]), warnings.catch_warnings():
        # A title in a script that the font lacks shows boxes, and there is nothing to be done about it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        file = BytesIO()
        draw(shown).savefig(file, format=suffix, dpi=style.DOTS_PER_INCH, metadata=NO_DATES[suffix])
    return file.getvalue()


def draw(shown: Sequence[Shown]) -> Figure:
    """Draw schedules below one another: ranks as rows, ops, memory, and the building block beside.

    A schedule without a steady state shows its middle microbatch beside others that have one, and nothing
    where none has.
    """
    blocks = [Block.of(one.schedule) for one in shown]
    sheet = Sheet.of(shown, blocks)
    width = style.WIDTH_INCHES - style.LEFT_INCHES - style.PEAKS_INCHES - style.RIGHT_INCHES
    if sheet.has_blocks:
        width -= style.BLOCK_INCHES
    texts = [_lines(one, sheet) for one in shown]
    height = style.LEGEND_INCHES + style.AXIS_INCHES
    height += sum(_inches(one, lines) for one, lines in zip(shown, texts, strict=True))
    figure = Figure(figsize=(style.WIDTH_INCHES, height))
    _legend(figure, shown)
    top = height - style.LEGEND_INCHES
    for one, block, lines in zip(shown, blocks, texts, strict=True):
        bottom = top - _inches(one, lines)
        is_last = one is shown[-1]
        _write(figure, one.title, lines, top)
        _draw_schedule(_axes(figure, one, (bottom, width), sheet, is_last=is_last), one, sheet)
        if sheet.has_blocks:
            _draw_block(_block_axes(figure, one, bottom, sheet, is_last=is_last), block, sheet)
        top = bottom
    return figure


def _longest(time: TimeUnit, spans: list[tuple[Shown, int]]) -> float:
    return max(ticks * time.per_tick(one.schedule.problem) for one, ticks in spans)


def _lines(shown: Shown, sheet: Sheet) -> list[str]:
    """The numbers, how the stages of a flow read, then the notes."""
    notes = [line for note in shown.notes for line in textwrap.wrap(note, NOTE_COLUMNS)]
    reading = how_stages_read(shown.schedule.problem)
    return [caption(shown, sheet.time, sheet.memory), *([reading] if reading else []), *notes]


def _panel_inches(shown: Shown) -> float:
    ranks = shown.schedule.problem.num_ranks
    return ranks * style.row_inches(ranks)


def _inches(shown: Shown, lines: list[str]) -> float:
    """How tall a schedule is with its title, its lines and the spaces around its panel."""
    above = style.TITLE_INCHES + len(lines) * style.LINE_INCHES + style.ABOVE_PANEL_INCHES
    return above + _panel_inches(shown) + style.BELOW_PANEL_INCHES


def _write(figure: Figure, title: str, lines: list[str], top: float) -> None:
    """The title, and below it the lines."""
    width, height = figure.get_size_inches()
    plain: dict[str, Any] = {"color": style.INK, "parse_math": False}  # a title may hold dollar signs
    x = style.LEFT_INCHES / width
    y = top - style.TITLE_INCHES
    if len(title) > LONGEST_TITLE:
        title = title[: LONGEST_TITLE - 1] + "…"
    figure.text(x, y / height, title, fontsize=style.TITLE_POINTS, weight="bold", **plain)
    for line in lines:
        y -= style.LINE_INCHES
        figure.text(x, y / height, line, fontsize=style.TEXT_POINTS, **plain | {"color": style.MUTED})


def _axes(figure: Figure, shown: Shown, place: tuple[float, float], sheet: Sheet, *, is_last: bool) -> Axes:
    bottom, width = place
    axes = _panel(figure, (style.LEFT_INCHES, bottom + style.BELOW_PANEL_INCHES, width, _panel_inches(shown)))
    ranks = shown.schedule.problem.num_ranks
    every = -(-ranks // 16)
    axes.set_yticks(
        [rank + (style.OPS_TOP + style.OPS_BOTTOM) / 2 for rank in range(0, ranks, every)],
        [f"rank {rank}" for rank in range(0, ranks, every)],
    )
    _finish(axes, (0, sheet.length), f"time ({sheet.time.name})", is_last=is_last)
    return axes


def _block_axes(figure: Figure, shown: Shown, bottom: float, sheet: Sheet, *, is_last: bool) -> Axes:
    left = style.WIDTH_INCHES - style.RIGHT_INCHES - style.BLOCK_INCHES
    axes = _panel(figure, (left, bottom + style.BELOW_PANEL_INCHES, style.BLOCK_INCHES, _panel_inches(shown)))
    axes.set_yticks([])
    _finish(axes, (0, sheet.block_length), f"time in the block ({sheet.time.name})", is_last=is_last)
    return axes


def _panel(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    """Axes at a place in inches."""
    width, height = figure.get_size_inches()
    left, bottom, wide, tall = place
    return figure.add_axes((left / width, bottom / height, wide / width, tall / height))


def _finish(axes: Axes, limits: tuple[float, float], label: str, *, is_last: bool) -> None:
    """Time to the right, written out below the last schedule only, and no frame but the axis."""
    axes.set_xlim(*limits)
    axes.tick_params(length=2, pad=2, labelsize=style.TEXT_POINTS, colors=style.INK)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=is_last)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    if is_last:
        axes.set_xlabel(label, fontsize=style.TEXT_POINTS, labelpad=1.5, color=style.INK)


def _draw_schedule(axes: Axes, shown: Shown, sheet: Sheet) -> None:
    schedule = shown.schedule
    axes.set_ylim(schedule.problem.num_ranks, 0)
    axis = _time_axis(axes, shown, min(rank[0].start for rank in schedule.ranks), sheet, sheet.length)
    spans = [
        _span(rank, axis.at(row[0].start), axis.at(row[-1].end)) for rank, row in enumerate(schedule.ranks)
    ]
    idle = PolyCollection(spans, facecolors=[style.IDLE], linewidths=[0], zorder=0)
    idle.set_gid("spans")
    axes.add_collection(idle, autolim=False)
    draw_ops(axes, schedule.problem, schedule.ranks, axis, marked=shown.marked)
    draw_memory(axes, schedule, axis, sheet.full_bytes)
    write_peaks(axes, schedule, sheet.memory, sheet.length)


def _span(rank: int, left: float, right: float) -> list[tuple[float, float]]:
    """Where a rank is at work or idle: from its first start to its last end."""
    top, bottom = rank + style.OPS_TOP, rank + style.OPS_BOTTOM
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _draw_block(axes: Axes, block: Block, sheet: Sheet) -> None:
    problem = block.schedule.problem
    axes.set_ylim(problem.num_ranks, 0)
    axis = TimeAxis(
        from_tick=block.start,
        per_tick=sheet.time.per_tick(problem),
        points=72 * style.BLOCK_INCHES / sheet.block_length,
    )
    period = "" if block.steady is None else sheet.time.write(problem, block.steady.period_ticks)
    draw_block(axes, block, axis, f"T = {period}")
    axes.set_title(block.title, fontsize=style.TEXT_POINTS, color=style.INK, loc="left", pad=11)


def _time_axis(axes: Axes, shown: Shown, start: int, sheet: Sheet, length: float) -> TimeAxis:
    inches = axes.get_position().width * style.WIDTH_INCHES
    per_tick = sheet.time.per_tick(shown.schedule.problem)
    return TimeAxis(from_tick=start, per_tick=per_tick, points=72 * inches / length)


def _legend(figure: Figure, shown: Sequence[Shown]) -> None:
    entries = list(_entries(shown))
    figure.legend(
        handles=[handle for handle, _ in entries],
        labels=[label for _, label in entries],
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        loc="upper left",
        bbox_to_anchor=(style.LEFT_INCHES / style.WIDTH_INCHES, 1.0),
        ncols=len(entries),
        fontsize=style.TEXT_POINTS,
        frameon=False,
        borderpad=0.3,
        borderaxespad=0,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.4,
    )


def _entries(shown: Sequence[Shown]) -> Iterator[tuple[Patch | Line2D | tuple[Patch, ...], str]]:
    """Every kind of op in its chunks' shades, idle time, memory and its limit."""
    several = any(max(one.schedule.problem.chunk_by_stage) for one in shown)
    for kind in kinds_of([row for one in shown for row in one.schedule.ranks]):
        colours = [style.shade(kind, chunk, 1 + several) for chunk in range(1 + several)]
        patches = (Patch(facecolor=colour, edgecolor=style.INK, linewidth=0.35) for colour in colours)
        yield tuple(patches), kind.value
    yield Patch(facecolor=style.IDLE), "idle"
    yield Patch(facecolor=style.MEMORY), "memory"
    if any(one.schedule.problem.memory_limit_bytes for one in shown):
        yield Line2D([], [], color=style.LIMIT, linewidth=0.7, linestyle=(0, (3, 1.5))), "limit"
    if any(one.marked for one in shown):
        yield Patch(facecolor="none", edgecolor="black", linewidth=1.1), "marked"
    if several:
        part = "stage" if any(how_stages_read(one.schedule.problem) for one in shown) else "chunk"
        yield Line2D([], [], linewidth=0), f"light to dark: a rank's first to last {part}"
