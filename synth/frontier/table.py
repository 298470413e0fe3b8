"""A frontier as rows: the CSV file, with a column for everything that is known of a point."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from synth.frontier.axis import Axis
from synth.frontier.points import Point
from synth.frontier.published import PublishedPoint, above_curve
from synth.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The best value against the memory limit, and the published schedules beside it.

    Parameters
    ----------
    problem
        The problem, as first stated.
    axis
        What its limits mean.
    points, published
        The synthesized points, ascending by limit, and the baselines.
    """

    problem: Problem
    axis: Axis
    points: tuple[Point, ...]
    published: tuple[PublishedPoint, ...]

    def bubble(self, ticks: int | None) -> float | None:
        """The bubble of a value or a bound of the problem, ``1 - work / value``."""
        return None if ticks is None else max(0.0, 1 - self.problem.work_ticks / ticks)


COLUMNS = (
    "kind",
    "name",
    "limit_bytes",
    "limit_multiple",
    "value_ticks",
    "value_seconds",
    "bubble_ratio",
    "lower_bound_ticks",
    "lower_bound_bubble_ratio",
    "gap",
    "status",
    "found_by",
    "taken_from_bytes",
    "smallest_limit_bytes",
    "above_curve",
    "time_limit_seconds",
    "note",
)
"""The columns of ``frontier.csv``, of which more may come at the end.

``kind`` is ``synthesized`` or ``published``, ``name`` the objective or the baseline. ``limit_bytes`` is the
memory limit, for a published schedule the least that it fits, ``limit_multiple`` the same in activations of
1F1B. ``taken_from_bytes`` is the smaller limit at which the schedule was found, ``smallest_limit_bytes`` what
would do where the limit does not, ``above_curve`` the share by which a published value is above the best at
its memory. What is not known is empty.
"""


def csv_text(frontier: Frontier) -> str:
    """The frontier as CSV, one row for each point, with :data:`COLUMNS`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(frontier))
    return file.getvalue()


def rows(frontier: Frontier) -> list[dict[str, object]]:
    """A row for each point, by the names of :data:`COLUMNS`; what is not known is None."""
    synthesized = [_synthesized_row(frontier, point) for point in frontier.points]
    published = [_published_row(frontier, point) for point in frontier.published]
    return [{column: row.get(column) for column in COLUMNS} for row in (*synthesized, *published)]


def _synthesized_row(frontier: Frontier, point: Point) -> dict[str, object]:
    document = point.document
    return {
        "kind": "synthesized",
        "name": frontier.problem.objective.value,
        **_place_and_value(frontier, point.limit_bytes, point.value),
        "bubble_ratio": None if document is None else document.metrics.bubble_ratio,
        "lower_bound_ticks": point.lower_bound,
        "lower_bound_bubble_ratio": frontier.bubble(point.lower_bound),
        "gap": point.gap,
        "status": point.status.value,
        "found_by": None if document is None else document.provenance.method,
        "taken_from_bytes": point.taken_from_bytes,
        "smallest_limit_bytes": point.smallest_limit_bytes,
        "time_limit_seconds": round(point.time_limit_s, 3),
        "note": point.reason or None,
    }


def _published_row(frontier: Frontier, published: PublishedPoint) -> dict[str, object]:
    return {
        "kind": "published",
        "name": published.name,
        **_place_and_value(frontier, published.memory_bytes, published.value),
        "bubble_ratio": published.bubble_ratio,
        "above_curve": above_curve(frontier.points, published),
        "note": published.source,
    }


def _place_and_value(frontier: Frontier, limit_bytes: int, value: int | None) -> dict[str, object]:
    return {
        "limit_bytes": limit_bytes,
        "limit_multiple": frontier.axis.multiple(limit_bytes),
        "value_ticks": value,
        "value_seconds": None if value is None else float(f"{value * frontier.problem.tick_seconds:.12g}"),
    }
