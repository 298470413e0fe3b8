"""A frontier as a picture: bubble against memory, its proved gap, and the published schedules beside it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from textwrap import fill
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, PercentFormatter
from matplotlib.transforms import Bbox

from synth.frontier.points import Point, PointStatus
from synth.frontier.published import PublishedPoint
from synth.frontier.table import Frontier
from synth.memory import smallest_limits_bytes

INCHES, DOTS_PER_INCH = (8.0, 5.4), 100
"""800 pixels wide, with text that can be read at that size."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "svg.hashsalt": "pipesynth",  # else the names inside an SVG differ from one run to the next
    "hatch.linewidth": 0.6,
}

CURVE, BAND, PUBLISHED, SERIES, IMPOSSIBLE = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#999999"
"""Colours that stay apart for colour-blind eyes (Okabe and Ito)."""

LABEL_PLACES = (
    *((dx, dy) for dy in (4, -12) for dx in (7, -7)),
    *((dx, dy) for dy in (13, -21, 26, -34, 39) for dx in (7, -7, 0)),
)
"""Where a label may stand, in points from its mark; of places that are as good the first wins."""

FAR, ON_A_MARK, OUTSIDE = 2.0, 5.0, 4.0
"""What is bad about a place, in square dots of the curve covered: a point away from the mark, a square dot
of a mark or another label covered, and a square dot outside the picture."""

MARGIN = 0.03
"""Of the range of limits, on either side of the picture."""

NO_BREAK = "\u00a0"
"""A space at which no line ends."""

LISTED_COLUMNS = 120
"""Letters in a line of what is outside the picture."""

LONGEST_TITLE = 72
"""Letters of a title that fit the picture."""


def png_bytes(frontier: Frontier) -> bytes:
    """The picture as PNG, the same bytes for the same frontier."""
    with rc_context(STYLE):
        file = io.BytesIO()
        _draw(frontier).savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        return file.getvalue()


def svg_text(frontier: Frontier) -> str:
    """The picture as SVG, the same text for the same frontier."""
    with rc_context(STYLE):
        file = io.BytesIO()
        _draw(frontier).savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue().decode("utf-8")


def _draw(frontier: Frontier) -> Figure:
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    left, right = _range(frontier)
    shown = [point for point in frontier.published if left <= _multiple(frontier, point) <= right]
    beyond = [point for point in frontier.published if point not in shown]
    _impossible(axes, frontier, left)
    _curve(axes, frontier, right)
    axes.set_xlim(left, right)
    axes.set_ylim(0, 1.1 * _highest(frontier, shown))
    _label_axes(axes, frontier)
    axes.grid(alpha=0.25)
    labels = _published(axes, frontier, shown)
    legend = figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    legend.set_title(_listed(frontier, beyond), prop=FontProperties(size=8))
    legend.get_title().set_color("#444444")
    figure.draw_without_rendering()
    taken = [_around(axes, (_multiple(frontier, point), point.bubble_ratio)) for point in shown]
    _place_labels(labels, taken, _steps(axes, frontier, right))
    return figure


def _range(frontier: Frontier) -> tuple[float, float]:
    """The multiples at the edges: the limits, and a margin in which the last step can be seen."""
    multiples = [frontier.axis.multiple(point.limit_bytes) for point in frontier.points]
    low, high = min(multiples), max(multiples)
    margin = max(MARGIN * (high - low), frontier.axis.step_bytes / frontier.axis.unit_bytes / 2, 0.01)
    return low - margin, high + margin


def _multiple(frontier: Frontier, published: PublishedPoint) -> float:
    return frontier.axis.multiple(published.memory_bytes)


def _highest(frontier: Frontier, shown: Sequence[PublishedPoint]) -> float:
    bubbles = [frontier.bubble(point.value) or 0.0 for point in frontier.points]
    return max(0.02, *bubbles, *(point.bubble_ratio for point in shown))


def _curve(axes: Axes, frontier: Frontier, right: float) -> None:
    """Steps from each limit to the next: the best value, and the least that the bounds leave possible."""
    points = [point for point in frontier.points if point.document is not None]
    if not points:
        return
    multiples = [frontier.axis.multiple(point.limit_bytes) for point in points]
    edges = [*multiples, right]
    values = [frontier.bubble(point.value) or 0.0 for point in points]
    axes.step(edges, [*values, values[-1]], where="post", color=CURVE, linewidth=1.8, label="synthesized")
    bounds = [_bound_until_next(frontier, points, n) for n in range(len(points))]
    axes.fill_between(
        edges,
        [*bounds, bounds[-1]],
        [*values, values[-1]],
        step="post",
        color=BAND,
        alpha=0.35,
        linewidth=0,
        label="not decided: between bound and value",
    )
    for is_proved, marker, label in ((True, "o", "proved optimal"), (False, "o", "best found")):
        chosen = [
            (multiple, value)
            for point, multiple, value in zip(points, multiples, values, strict=True)
            if (point.status is PointStatus.OPTIMAL) is is_proved
        ]
        if chosen:
            face = CURVE if is_proved else "white"
            axes.plot(
                *zip(*chosen, strict=True),
                linestyle="none",
                marker=marker,
                markersize=5,
                color=CURVE,
                markerfacecolor=face,
                label=label,
                zorder=4,
            )


def _bound_until_next(frontier: Frontier, points: Sequence[Point], n: int) -> float:
    """What no schedule beats from one limit up to the next.

    Just under the next limit its bound is what holds, unless there is no limit in between that differs.
    """
    own = frontier.bubble(points[n].lower_bound) or 0.0
    if n + 1 == len(points):
        return own
    if points[n + 1].limit_bytes - points[n].limit_bytes <= frontier.axis.step_bytes:
        return own
    return frontier.bubble(points[n + 1].lower_bound) or 0.0


def _impossible(axes: Axes, frontier: Frontier, left: float) -> None:
    """The limits that no schedule can do with."""
    needs = [
        frontier.axis.needed(placed, smallest_limits_bytes(placed)) for placed in frontier.problem.placements
    ]
    least = frontier.axis.multiple(min(needs))
    if least > left:
        axes.axvspan(
            left,
            least,
            facecolor="none",
            edgecolor=IMPOSSIBLE,
            hatch="///",
            linewidth=0,
            label="no schedule exists",
        )


def _published(axes: Axes, frontier: Frontier, shown: Sequence[PublishedPoint]) -> list[Annotation]:
    """The marks of published schedules: a name that comes again is one series, the others get labels."""
    times = Counter(point.name for point in shown)
    for name in dict.fromkeys(point.name for point in shown if times[point.name] > 1):
        spots = [(_multiple(frontier, p), p.bubble_ratio) for p in shown if p.name == name]
        _mark(axes, spots, marker="^", color=SERIES, label=name)
    names: dict[tuple[float, float], list[str]] = {}
    for point in shown:
        if times[point.name] == 1:
            names.setdefault((_multiple(frontier, point), point.bubble_ratio), []).append(point.name)
    if names:
        _mark(axes, list(names), marker="D", color=PUBLISHED, label="published schedules")
    line = {"arrowstyle": "-", "color": PUBLISHED, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    labels = [
        axes.annotate(
            "\n".join(words),
            spot,
            textcoords="offset points",
            xytext=LABEL_PLACES[0],
            fontsize=9,
            color="#7a3600",
            zorder=6,
            arrowprops=line,
        )
        for spot, words in names.items()
    ]
    for label in labels:
        label.set_in_layout(False)  # a label that sticks out for now is not to shrink the axes
    return labels


def _mark(axes: Axes, spots: Sequence[tuple[float, float]], *, marker: str, color: str, label: str) -> None:
    axes.plot(
        *zip(*spots, strict=True),
        linestyle="none",
        marker=marker,
        markersize=7,
        color=color,
        markeredgecolor="white",
        markeredgewidth=0.7,
        label=label,
        zorder=5,
    )


def _place_labels(labels: Sequence[Annotation], taken: list[Bbox], steps: list[Bbox]) -> None:
    """Give every label, from the top down, the best place that is left."""
    for label in sorted(labels, key=lambda label: (-label.xy[1], label.xy[0])):
        assert label.axes is not None
        frame = label.axes.get_window_extent()
        best = min(LABEL_PLACES, key=lambda place: _badness(label, place, taken, steps, frame))
        _move(label, best)
        taken.append(Text.get_window_extent(label))


def _move(label: Annotation, place: tuple[int, int]) -> None:
    label.set_position(place)
    label.set_horizontalalignment("left" if place[0] > 0 else "right" if place[0] < 0 else "center")


def _badness(
    label: Annotation, place: tuple[int, int], taken: Sequence[Bbox], steps: Sequence[Bbox], frame: Bbox
) -> float:
    """How much a label would cover at a place, how much of it would be cut off, and how far it would be."""
    _move(label, place)
    box = Text.get_window_extent(label)  # without the line to its mark
    covered = sum(_overlap(box, other) for other in steps)
    hidden = sum(_overlap(box, other) for other in taken)
    outside = box.width * box.height - _overlap(box, frame)
    return covered + ON_A_MARK * hidden + OUTSIDE * outside + FAR * abs(place[1])


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height


def _steps(axes: Axes, frontier: Frontier, right: float) -> list[Bbox]:
    """The room that the curve takes, in dots."""
    points = [point for point in frontier.points if point.document is not None]
    spots = [(frontier.axis.multiple(p.limit_bytes), frontier.bubble(p.value) or 0.0) for p in points]
    room = []
    for (x, y), (next_x, next_y) in pairwise([*spots, (right, spots[-1][1])] if spots else []):
        room += [_around(axes, (x, y), (next_x, y)), _around(axes, (next_x, y), (next_x, next_y))]
    return room


def _around(axes: Axes, *spots: tuple[float, float]) -> Bbox:
    dots = axes.transData.transform(spots)
    (left, low), (right, high) = dots.min(axis=0), dots.max(axis=0)
    return Bbox.from_extents(left - 4, low - 4, right + 4, high + 4)


def _shortened(title: str) -> str:
    return title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"


def _label_axes(axes: Axes, frontier: Frontier) -> None:
    problem, axis = frontier.problem, frontier.axis
    axes.set_title(_shortened(problem.name or "problem"), loc="left", fontsize=11, parse_math=False)
    axes.set_xlabel("memory limit per rank, in multiples of what 1F1B holds")
    axes.set_ylabel(f"bubble ({problem.objective.value})")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda multiple, _: f"{multiple:.3g}x"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    size, unit = _unit(axis.unit_bytes)

    def in_unit(multiple: Any) -> Any:
        return (multiple * axis.unit_bytes + axis.static_bytes) / size

    def from_unit(held: Any) -> Any:
        return axis.multiple(held * size)

    top = axes.secondary_xaxis("top", functions=(in_unit, from_unit))
    added = ", static memory aside" if axis.adds_static and any(problem.static_bytes_by_rank) else ""
    top.set_xlabel(f"in {unit}{added}", fontsize=9)


def _unit(typical_bytes: int) -> tuple[int, str]:
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if typical_bytes >= 2 * size:
            return size, name
    return 1, "bytes as the problem counts them"


def _listed(frontier: Frontier, beyond: Sequence[PublishedPoint]) -> str:
    """The published schedules that are not in the range, in lines; nothing where there is none."""
    listed = sorted(beyond, key=lambda point: (point.memory_bytes, point.name))
    # Each stays on one line.
    items = [f"{point.name} {_multiple(frontier, point):.3g}x {point.bubble_ratio:.1%}" for point in listed]
    kept = "; ".join(item.replace(" ", NO_BREAK) for item in items)
    wrapped = fill(f"outside the picture: {kept}", LISTED_COLUMNS, break_on_hyphens=False)
    return wrapped.replace(NO_BREAK, " ") if items else ""
