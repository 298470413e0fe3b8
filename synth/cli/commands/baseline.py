"""``baseline``: a published schedule on a problem's costs."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress

from synth.baselines import BASELINES, baseline_orders
from synth.cli.arguments import add_json_argument, add_output_argument, add_problem_arguments
from synth.cli.exit_codes import DONE, NO_SCHEDULE
from synth.cli.given_orders import answer_with
from synth.cli.loading import load_problem
from synth.cli.showing import check_output_option
from synth.cli.streams import complain
from synth.errors import BaselineUndefinedError
from synth.problem import Problem
from synth.schedule import Metrics, Schedule, fits
from synth.timing import schedule_orders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``baseline`` takes."""
    parser.add_argument("name", metavar="NAME", help=", ".join(BASELINES))
    add_problem_arguments(parser)
    add_output_argument(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Put a published schedule on a problem's costs."""
    check_output_option(options)
    problem = load_problem(options)
    begun = time.monotonic()
    schedule = _placed_baseline(problem, options.name)
    problem = schedule.problem
    metrics = answer_with(schedule, options.name, begun, options)
    return DONE if fits(problem, metrics.peak_memory_bytes) else _over_limit(problem, options.name, metrics)


def _placed_baseline(problem: Problem, name: str) -> Schedule:
    """A baseline under the first placement that the problem leaves open and it is defined for."""
    for placed in problem.placements[:-1]:
        with suppress(BaselineUndefinedError):
            return _schedule(placed, name)
    return _schedule(problem.placements[-1], name)


def _schedule(problem: Problem, name: str) -> Schedule:
    orders = baseline_orders(name, problem)
    return schedule_orders(BASELINES[name].with_versions(problem), orders)


def _over_limit(problem: Problem, name: str, metrics: Metrics) -> int:
    """Say which rank of a baseline holds more than its limit."""
    for rank, (peak, limit) in enumerate(
        zip(metrics.peak_memory_bytes, problem.memory_limit_bytes or (), strict=True)
    ):
        if peak > limit:
            complain(f"{name} holds {peak} bytes on rank {rank}, limit {limit}")
    return NO_SCHEDULE
