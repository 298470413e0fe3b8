"""``compare``: every baseline and the synthesized schedule, side by side."""

from __future__ import annotations

import argparse

from synth.baselines import BASELINES, baseline_schedule
from synth.cli.arguments import add_json_argument, add_problem_arguments, add_search_arguments
from synth.cli.exit_codes import DONE
from synth.cli.loading import load_problems
from synth.cli.searching import search
from synth.cli.showing import draw, row_json
from synth.cli.streams import Printer, print_json
from synth.errors import BaselineUndefinedError
from synth.problem import Problem
from synth.report import Row, comparison_table, remarks
from synth.schedule import Schedule, measure
from synth.search.driver import Solver


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``compare`` takes."""
    add_problem_arguments(parser, open_chunks=True)
    add_search_arguments(parser, time_limit=10.0)
    parser.set_defaults(solver=Solver.CPSAT)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Set every baseline that applies beside the synthesized schedule."""
    result = search(load_problems(options), options)
    problem = result.schedule.problem  # its placement is resolved, so all rows are of one problem
    schedules, rows = {}, []
    for name in BASELINES:
        try:
            schedules[name] = baseline_schedule(name, problem)
            rows.append(Row(name, measure(schedules[name]), note=_note(name, schedules[name], problem)))
        except BaselineUndefinedError as error:
            rows.append(Row(name, None, reason=error.reason))
    rows.append(Row("synthesized", result.metrics, result.certificate))
    if options.json:
        print_json([row_json(problem, row) for row in rows])
        return DONE
    printer = Printer()
    best_first = sorted(schedules.items(), key=lambda item: item[1].value)
    draw(printer, {"synthesized": result.schedule, **dict(best_first)})
    printer.table(comparison_table(problem, rows))
    for remark in remarks(rows):
        printer.line(remark)
    return DONE


def _note(name: str, schedule: Schedule, problem: Problem) -> str:
    """What a baseline has made of the problem, if anything."""
    return "" if schedule.problem == problem else BASELINES[name].makes
