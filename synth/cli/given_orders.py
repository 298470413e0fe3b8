"""A schedule whose orders no search made: bounded in closed form, written and shown."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from importlib.metadata import version

from synth.bounds import best_bound
from synth.certificate import Certificate, Provenance
from synth.cli.showing import row_json, show
from synth.cli.streams import print_json
from synth.document import ScheduleDocument, write_schedule
from synth.files import write_whole
from synth.report import Row
from synth.schedule import Metrics, Schedule, measure


def answer_with(schedule: Schedule, method: str, begun: float, options: argparse.Namespace) -> Metrics:
    """Write a schedule's document where ``-o`` says, and print it for people or machines.

    Parameters
    ----------
    schedule
        A schedule that breaks no rule, but for the memory limit perhaps.
    method
        What made its orders.
    begun
        When that began, on the monotonic clock.
    options
        With ``output`` and ``json``.

    Returns
    -------
    What the schedule achieves.
    """
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
        method=method,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("pipesynth"),
        wall_seconds=round(time.monotonic() - begun, 3),
    )
    if options.output is not None:
        write_whole(options.output, write_schedule(ScheduleDocument.of(schedule, certificate, provenance)))
    row = Row(method, metrics, certificate)
    if options.json:
        print_json([row_json(problem, row)])
    else:
        show(problem, [row], schedule, options)
    return metrics
