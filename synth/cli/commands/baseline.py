"""``baseline``: a published schedule on a problem's costs."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version

from synth.baselines import BASELINES, baseline_orders
from synth.bounds import best_bound
from synth.certificate import Certificate, Provenance
from synth.cli.arguments import add_json_argument, add_output_argument, add_problem_arguments
from synth.cli.exit_codes import DONE, NO_SCHEDULE
from synth.cli.loading import load_problem
from synth.cli.showing import check_output_option, row_json, show
from synth.cli.streams import complain, print_json
from synth.document import ScheduleDocument, write_schedule
from synth.errors import BaselineUndefinedError
from synth.files import write_whole
from synth.problem import Problem
from synth.report import Row
from synth.schedule import Metrics, Schedule, fits, measure
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
    problem, metrics = schedule.problem, measure(schedule)
    bound = best_bound(problem)
    value = metrics.value(problem.objective)
    certificate = Certificate(
        objective=problem.objective,
        value=value,
        lower_bound=min(value, bound.ticks),
        bound_from=f"{bound.name}: {bound.argument}",
    )
    provenance = Provenance(
        method=options.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("pipesynth"),
        wall_seconds=round(time.monotonic() - begun, 3),
    )
    if options.output is not None:
        write_whole(options.output, write_schedule(ScheduleDocument.of(schedule, certificate, provenance)))
    row = Row(options.name, metrics, certificate)
    if options.json:
        print_json([row_json(problem, row)])
    else:
        show(problem, [row], schedule, options)
    return DONE if fits(problem, metrics.peak_memory_bytes) else _over_limit(problem, options.name, metrics)


def _placed_baseline(problem: Problem, name: str) -> Schedule:
    """A baseline under the first placement that the problem leaves open and it is defined for."""
    for placed in problem.placements[:-1]:
        with suppress(BaselineUndefinedError):
            return schedule_orders(placed, baseline_orders(name, placed))
    placed = problem.placements[-1]
    return schedule_orders(placed, baseline_orders(name, placed))


def _over_limit(problem: Problem, name: str, metrics: Metrics) -> int:
    """Say which rank of a baseline holds more than its limit."""
    for rank, (peak, limit) in enumerate(
        zip(metrics.peak_memory_bytes, problem.memory_limit_bytes or (), strict=True)
    ):
        if peak > limit:
            complain(f"{name} holds {peak} bytes on rank {rank}, limit {limit}")
    return NO_SCHEDULE
