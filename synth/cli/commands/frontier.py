"""``frontier``: the best value against the memory limit."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from synth.cli.arguments import (
    LIMIT_FORMS,
    add_json_argument,
    add_problem_arguments,
    add_search_arguments,
    whole_number,
)
from synth.cli.exit_codes import DONE, INTERRUPTED, NO_SCHEDULE
from synth.cli.loading import load_unlimited
from synth.cli.streams import Printer, complain, print_json
from synth.cli.sweeping import limit_name, watching
from synth.errors import InputError
from synth.files import STANDARD_STREAM, write_whole
from synth.frontier import (
    Axis,
    Folder,
    Frontier,
    Point,
    PointStatus,
    PublishedPoint,
    Sweep,
    above_curve,
    choose_limits,
    csv_text,
    published_points,
    read_range,
    rows,
    sweep,
)
from synth.frontier.sweeps import is_searched
from synth.problem import Problem
from synth.report import empty_table, with_whole_numbers

MOST_POINTS = 1000
"""More limits than any picture can show."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``frontier`` takes."""
    add_problem_arguments(parser, open_chunks=True, own_limit=False)
    add = parser.add_argument
    add("--from", dest="first", default="0.4x", metavar="X", help=f"{LIMIT_FORMS} (default %(default)s)")
    add("--to", dest="last", default="1x", metavar="X", help="the largest limit (default %(default)s)")
    add(
        "--steps",
        type=whole_number(2, MOST_POINTS),
        metavar="N",
        help="how many limits, besides those that published schedules need "
        "(default: all that differ where they are at most 32, else 13)",
    )
    add(
        "-o",
        "--output",
        metavar="FOLDER",
        help="write frontier.csv, .png, .svg and the schedules in points/; the same command again goes on",
    )
    add_search_arguments(parser, time_limit=60.0)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Find the best schedule at every memory limit in a range, beside the published ones."""
    if options.output is not None and options.output in ("", STANDARD_STREAM):
        raise InputError("-o of frontier writes several files: give it the name of a folder")
    stated = load_unlimited(options)
    problems = stated.problems
    axis, first, last = read_range(options.first, options.last, problems, stated.bytes_scale)
    published = published_points(problems, axis)
    limits = choose_limits(axis, first, last, options.steps, [point.memory_bytes for point in published])
    folder = Folder(options.output, problems, axis, options.seed) if options.output is not None else None
    known = _known(folder, options, limits)
    swept = _sweep(problems, axis, limits, known, folder, options)
    frontier = Frontier(problem=problems[0], axis=axis, points=swept.points, published=published)
    _show(frontier, options)
    if folder is not None:
        _write(folder, frontier)
        if not options.json:
            Printer().line(f"written: {folder.path}")
    return _conclude(swept, limits, options)


def _known(folder: Folder | None, options: argparse.Namespace, limits: Sequence[int]) -> tuple[Point, ...]:
    """What an earlier sweep has left, said on standard error."""
    if folder is None:
        return ()
    kept = folder.read()
    for complaint in kept.complaints:
        complain(complaint)
    there = [point.limit_bytes for point in kept.points if is_searched(point, options.time_limit)]
    resumed = [limit for limit in limits if limit in there]
    if resumed:
        complain(f"{len(resumed)} of {len(limits)} limits are in {folder.path} already and stay")
    return kept.points


def _sweep(
    problems: Sequence[Problem],
    axis: Axis,
    limits: Sequence[int],
    known: tuple[Point, ...],
    folder: Folder | None,
    options: argparse.Namespace,
) -> Sweep:
    there = {point.limit_bytes for point in known if is_searched(point, options.time_limit)}
    with watching(axis, options.time_limit, len([n for n in limits if n not in there])) as watcher:

        def note(point: Point) -> None:
            if folder is not None:
                _save(folder, point)
            watcher.point(point)

        return sweep(
            problems,
            axis,
            limits,
            time_limit=options.time_limit,
            workers=options.workers,
            seed=options.seed,
            known=known,
            on_progress=watcher.progress,
            on_point=note,
        )


def _save(folder: Folder, point: Point) -> None:
    """Keep a point for a later sweep; where that fails, this one goes on."""
    try:
        folder.save(point)
    except InputError as error:
        complain(error)


def _write(folder: Folder, frontier: Frontier) -> None:
    from synth.frontier.picture import png_bytes, svg_text  # matplotlib takes a while to import

    for point in frontier.points:
        folder.save(point)
    write_whole(folder.file("frontier.csv"), csv_text(frontier))
    if frontier.points:
        write_whole(folder.file("frontier.png"), png_bytes(frontier))
        write_whole(folder.file("frontier.svg"), svg_text(frontier))


def _show(frontier: Frontier, options: argparse.Namespace) -> None:
    if options.json:
        print_json(_json(frontier))
        return
    printer = Printer()
    printer.table(_points_table(frontier))
    for line in _notes(frontier.points, frontier.axis):
        printer.line(line)
    printer.table(_published_table(frontier))


def _conclude(swept: Sweep, limits: Sequence[int], options: argparse.Namespace) -> int:
    for point in swept.points:
        if point.status is PointStatus.FAILED or (point.reason and point.document is not None):
            complain(f"limit {point.limit_bytes}: {point.reason}")
    if swept.interrupted:
        goes_on = "the same command goes on from there" if options.output else "with -o it could go on"
        complain(f"interrupted: {len(swept.points)} of {len(limits)} limits have a point; {goes_on}")
        return INTERRUPTED
    return DONE if any(point.document for point in swept.points) else NO_SCHEDULE


def _json(frontier: Frontier) -> dict[str, Any]:
    problem, axis = frontier.problem, frontier.axis
    return {
        "name": problem.name,
        "objective": problem.objective.value,
        "unit_bytes": axis.unit_bytes,
        "adds_static_bytes": axis.adds_static,
        "points": rows(frontier),
    }


def _points_table(frontier: Frontier) -> Table:
    """One row for each limit."""
    problem = frontier.problem
    table = empty_table(f"{problem.name or 'problem'}: {problem.objective} against the memory limit")
    for heading in ("limit", "bytes", "ticks", "seconds", "bubble", "bound", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("found by", no_wrap=True)
    for point in frontier.points:
        table.add_row(
            limit_name(frontier.axis, point.limit_bytes), str(point.limit_bytes), *_cells(frontier, point)
        )
    return with_whole_numbers(table)


def _cells(frontier: Frontier, point: Point) -> list[str]:
    bound = "" if point.lower_bound is None else str(point.lower_bound)
    if point.document is None or point.value is None:
        return ["", "", "", bound, "", point.status.value, ""]
    found_by = point.document.provenance.method
    if point.taken_from_bytes is not None:
        found_by += f", at {limit_name(frontier.axis, point.taken_from_bytes)}"
    return [
        str(point.value),
        f"{point.value * frontier.problem.tick_seconds:.4g}",
        f"{point.document.metrics.bubble_ratio:.4f}",
        bound,
        f"{point.gap:.2%}",
        point.status.value,
        found_by,
    ]


def _published_table(frontier: Frontier) -> Table:
    """One row for each published schedule, with how far it is above the synthesized curve."""
    table = empty_table("Published schedules on the same model, at their own peak memory")
    table.add_column("schedule", no_wrap=True)
    for heading in ("needs", "bytes", "ticks", "bubble", "beside the curve"):
        table.add_column(heading, justify="right", no_wrap=True)
    for published in sorted(frontier.published, key=lambda point: (point.memory_bytes, point.value)):
        table.add_row(
            published.name,
            limit_name(frontier.axis, published.memory_bytes),
            str(published.memory_bytes),
            str(published.value),
            f"{published.bubble_ratio:.4f}",
            _beside(frontier, published),
        )
    return with_whole_numbers(table)


def _beside(frontier: Frontier, published: PublishedPoint) -> str:
    above = above_curve(frontier.points, published)
    if above is None:
        limits = [point.limit_bytes for point in frontier.points]
        return "right of it" if not limits or published.memory_bytes > max(limits) else "left of it"
    if above == 0:
        return "on it"
    return f"{above:.2%} above" if above > 0 else f"{-above:.2%} below"


def _notes(points: Sequence[Point], axis: Axis) -> list[str]:
    """What a table has no room for: why there is no schedule, and what would do."""
    lines = []
    infeasible = [point for point in points if point.status is PointStatus.INFEASIBLE]
    if infeasible and infeasible[-1].smallest_limit_bytes is not None:
        least = infeasible[-1].smallest_limit_bytes
        lines.append(
            f"no schedule exists up to {limit_name(axis, infeasible[-1].limit_bytes)}: "
            f"the smallest limit that would do is {least} bytes, {limit_name(axis, least)}"
        )
    unknown = (point for point in points if point.status in (PointStatus.UNKNOWN, PointStatus.FAILED))
    lines += [f"{limit_name(axis, point.limit_bytes)}: {point.reason}" for point in unknown]
    return lines
