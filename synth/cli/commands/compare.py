"""``compare``: every baseline and the synthesized schedule, side by side."""

from __future__ import annotations

import argparse

from synth.baselines import BASELINES, baseline_orders
from synth.cli.arguments import add_json_argument, add_problem_arguments, add_search_arguments
from synth.cli.exit_codes import DONE
from synth.cli.loading import load_problems
from synth.cli.searching import search
from synth.cli.showing import draw, row_json
from synth.cli.streams import Printer, print_json
from synth.errors import BaselineUndefinedError
from synth.report import Row, comparison_table, reasons
from synth.schedule import measure
from synth.search.driver import Solver
from synth.timing import schedule_orders


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
            held = BASELINES[name].with_versions(problem)
            schedules[name] = schedule_orders(held, baseline_orders(name, problem))
            rows.append(Row(name, measure(schedules[name])))
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
    for reason in reasons(rows):
        printer.line(reason)
    return DONE
