"""A schedule against the timeline that a run of it recorded."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

from synth.cli.streams import Printer, check_output
from synth.comparison import Times, compare_with_timeline
from synth.document import read_timeline, write_problem
from synth.errors import InputError
from synth.files import STANDARD_STREAM, read_text, write_whole
from synth.measured import Timeline
from synth.measured_costs import caveats, measured_problem
from synth.report import timeline_tables
from synth.schedule import Schedule, measure
from synth.simulate import replay


def add_timeline_arguments(parser: argparse.ArgumentParser) -> None:
    """The timeline, and what to make of it."""
    parser.add_argument(
        "--against", metavar="TIMELINE", help="a timeline document of this schedule: compare plan and reality"
    )
    parser.add_argument(
        "--measured-problem",
        metavar="PROBLEM",
        help="write the problem with the timeline's costs, to plan with again: times, each op's with what "
        "its rank does to get there, transfers, and where the timeline says them bytes; - for stdout",
    )


def check_timeline_options(options: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    InputError
        Saying which.
    """
    if options.measured_problem is not None and options.against is None:
        raise InputError(
            "--measured-problem is given without --against: name the timeline to take costs from"
        )
    if options.json and options.measured_problem == STANDARD_STREAM:
        raise InputError("--json and --measured-problem - both write to standard output: give a file")
    check_output(options.measured_problem)


def load_timeline(options: argparse.Namespace) -> Timeline | None:
    """The timeline that a command names, if it names one."""
    if options.against is None:
        return None
    return read_timeline(read_text(options.against), options.against)


def write_measured(timeline: Timeline, options: argparse.Namespace) -> None:
    """Write the problem with the measured costs, if a path is given, and say what in it was not measured."""
    path = options.measured_problem
    if path is None:
        return
    write_whole(path, write_problem(measured_problem(timeline)))
    if not options.json:
        printer = Printer(path)
        for caveat in caveats(timeline):
            printer.line(f"measured problem: {caveat}")


def compare_json(schedule: Schedule, timeline: Timeline) -> dict[str, Any]:
    """The comparison, and what the orders take when the measured costs are replayed."""
    comparison = compare_with_timeline(schedule, timeline)
    again = Times(_replayed_s(timeline), comparison.makespan.measured_s)
    return {
        "makespan": _times_json(comparison.makespan),
        "rank_span": _times_json(comparison.rank_span),
        "predicted_from_measured_ops": _times_json(again),
        "not_measured": list(caveats(timeline)),
        "ranks": [
            {
                "rank": row.rank,
                "span": _times_json(row.span),
                "busy": _times_json(row.busy),
                "planned_peak_bytes": row.planned_peak_bytes,
                "measured_peak_bytes": row.measured_peak_bytes,
            }
            for row in comparison.ranks
        ],
        "ops": [
            {"op": row.kind.value, "stage": row.stage, "count": row.count, **_times_json(row.times)}
            for row in comparison.ops
        ],
    }


def _replayed_s(timeline: Timeline) -> float:
    """The makespan of a replay of the timeline's orders on its measured costs."""
    measured = replace(timeline.schedule, problem=measured_problem(timeline))
    return measure(replay(measured)).makespan * timeline.problem.tick_seconds


def _times_json(times: Times) -> dict[str, float]:
    return {**asdict(times), "error": times.error}


def show_comparison(schedule: Schedule, timeline: Timeline, again: dict[str, float]) -> None:
    """Print the tables of the comparison, and the replay on the measured costs."""
    printer = Printer()
    for table in timeline_tables(compare_with_timeline(schedule, timeline)):
        printer.table(table)
    printer.line(
        f"replayed on the measured costs, the orders take {again['planned_s']:.4g} s: "
        f"{again['error']:+z.1%} of what was measured"
    )
