"""``synthesize``: the main job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from synth.baselines import baseline_orders
from synth.bounds import best_bound
from synth.certificate import Certificate
from synth.chunks import merge_into_ranks
from synth.cli.arguments import (
    add_json_argument,
    add_output_argument,
    add_problem_arguments,
    add_search_arguments,
    noise,
)
from synth.cli.exit_codes import DONE
from synth.cli.loading import load_problems
from synth.cli.searching import search
from synth.cli.showing import check_output_option, show
from synth.cli.streams import Printer, print_json
from synth.document import ScheduleDocument, write_schedule
from synth.errors import InvalidProblemError
from synth.files import write_whole
from synth.problem import Problem
from synth.report import Row, other_objective
from synth.schedule import measure
from synth.search.driver import Solver
from synth.search.robust import Robustness
from synth.search.synthesizer import Result
from synth.timing import schedule_orders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``synthesize`` takes."""
    add_problem_arguments(parser, open_chunks=True)
    add_output_argument(parser)
    add_search_arguments(parser, time_limit=60.0)
    parser.add_argument(
        "--robust",
        type=noise,
        metavar="SIGMA",
        help="prefer, within 1%% of the best value, what does best when every op's ticks vary by this share",
    )
    solvers = [solver.value for solver in Solver]
    text = "the solver behind the search (default %(default)s)"
    parser.add_argument("--solver", choices=solvers, default=solvers[0], help=text)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Find the best schedule for a problem and prove how far from optimal it can be."""
    check_output_option(options)
    problems = load_problems(options)
    result = search(problems, options, options.robust)
    document = ScheduleDocument.of(result.schedule, result.certificate, result.provenance)
    if options.output is not None:
        write_whole(options.output, write_schedule(document))
    rows = [Row("synthesized", result.metrics, result.certificate), *one_f_one_b_rows(problems[0])]
    if options.json:
        print_json(_result_json(result, rows, options.output))
        return DONE
    show(result.schedule.problem, rows, result.schedule, options)
    printer = Printer(options.output)
    printer.line(f"{result.status}, found by {result.provenance.method}")
    printer.line(f"bound: {result.certificate.bound_from}")
    for line in _robustness_lines(result.robustness):
        printer.line(line)
    printer.line(f"also: {other_objective(result.metrics, result.certificate.objective)}")
    if options.output is not None and options.output != "-":
        printer.line(f"written: {options.output}")
    return DONE


def one_f_one_b_rows(problem: Problem) -> list[Row]:
    """1F1B of the same total model, one chunk per rank, for comparison; none where no chain is behind it."""
    try:
        merged = merge_into_ranks(problem)
    except InvalidProblemError:
        return []
    metrics = measure(schedule_orders(merged, baseline_orders("1f1b", merged)))
    bound = best_bound(merged)
    value = metrics.value(problem.objective)
    certificate = Certificate(
        objective=problem.objective, value=value, lower_bound=bound.ticks, bound_from=bound.argument
    )
    return [Row("1f1b", metrics, certificate)]


def _robustness_lines(robustness: Robustness | None) -> list[str]:
    """What noise does to the schedule with the best value and to the one chosen, where that was asked."""
    if robustness is None:
        return []
    lines = [
        f"robust: chosen under {robustness.sigma:.1%} noise among {robustness.compared} schedules within "
        f"1% of the best value, {robustness.samples} samples each"
    ]
    for name, schedule in (("best value", robustness.best), ("chosen", robustness.chosen)):
        noisy = ", ".join(f"{ticks} under {sigma:.1%}" for sigma, ticks in schedule.p95.items())
        lines.append(f"  {name}: {schedule.value} ticks, 95th percentile {noisy}; {schedule.method}")
    return lines


def _result_json(result: Result, rows: Sequence[Row], output: str | None) -> dict[str, Any]:
    problem = result.schedule.problem
    limits = problem.memory_limit_bytes
    return {
        "name": problem.name,
        "objective": problem.objective.value,
        "value": result.value,
        "bubble_ratio": result.metrics.bubble_ratio,
        "lower_bound": result.lower_bound,
        "gap": result.gap,
        "status": result.status.value,
        "bound_from": result.certificate.bound_from,
        "peak_memory_bytes": list(result.metrics.peak_memory_bytes),
        "memory_limit_bytes": None if limits is None else list(limits),
        "metrics": asdict(result.metrics),
        "provenance": asdict(result.provenance),
        "robustness": asdict(result.robustness) if result.robustness else None,
        "baseline_1f1b": asdict(rows[1].metrics) if rows[1].metrics else None,
        "output": output,
    }
