"""``baseline``: a published schedule on a problem's costs."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from fractions import Fraction

from synth.baselines import BASELINES, baseline_schedule, cut_sequences
from synth.baselines.grouped import in_groups_of
from synth.baselines.sequence import USUAL_SLICES
from synth.cli.arguments import (
    add_json_argument,
    add_output_argument,
    add_problem_arguments,
    whole_number,
)
from synth.cli.exit_codes import DONE, NO_SCHEDULE
from synth.cli.given_orders import answer_with
from synth.cli.loading import load_problem
from synth.cli.showing import check_output_option
from synth.cli.streams import complain
from synth.errors import BaselineUndefinedError, InputError
from synth.problem import Problem
from synth.schedule import Metrics, Schedule, fits
from synth.timing import schedule_orders

SLICED, GROUPED = "seq1f1b", "group-interleaved-1f1b"
"""The baselines that cut sequences, and that group microbatches."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``baseline`` takes."""
    parser.add_argument("name", metavar="NAME", help=", ".join(BASELINES))
    add_problem_arguments(parser)
    slices = parser.add_argument_group(f"sequence slices of {SLICED}")
    slices.add_argument(
        "--slices", type=whole_number(1), metavar="K", help=f"how many (default {USUAL_SLICES}, equal in all)"
    )
    slices.add_argument(
        "--attention-share",
        type=_share,
        metavar="A",
        help="share of a stage's time that causal attention takes, 0 to 1 (default 0)",
    )
    slices.add_argument(
        "--equally-long",
        action="store_true",
        help="slices of equal length, of which the later ones take longer, rather than of equal time",
    )
    parser.add_argument(
        "--group-size",
        type=whole_number(1),
        metavar="G",
        help=f"microbatches per group of {GROUPED} (default: the largest that the memory limit allows)",
    )
    add_output_argument(parser)
    add_json_argument(parser)


def _share(text: str) -> Fraction:
    """An argument type: a number from 0 to 1."""
    try:
        given = float(text)
    except ValueError:
        given = -1.0
    if not 0 <= given <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give a number from 0 to 1")
    return Fraction(str(given))


def run(options: argparse.Namespace) -> int:
    """Put a published schedule on a problem's costs."""
    check_output_option(options)
    problem = load_problem(options)
    begun = time.monotonic()
    schedule = _placed_baseline(problem, options)
    problem = schedule.problem
    metrics = answer_with(schedule, options.name, begun, options)
    return DONE if fits(problem, metrics.peak_memory_bytes) else _over_limit(problem, options.name, metrics)


def _placed_baseline(problem: Problem, options: argparse.Namespace) -> Schedule:
    """A baseline under the first placement that the problem leaves open and it is defined for."""
    for placed in problem.placements[:-1]:
        with suppress(BaselineUndefinedError):
            return _baseline(placed, options)
    return _baseline(problem.placements[-1], options)


def _baseline(problem: Problem, options: argparse.Namespace) -> Schedule:
    """A baseline, in groups or on a problem cut into sequence slices first where that is asked for."""
    if options.group_size is not None:
        if options.name != GROUPED:
            raise InputError(f"{options.name} takes no groups: only {GROUPED} does")
        return schedule_orders(problem, in_groups_of(problem, options.group_size))
    if options.slices is None and options.attention_share is None and not options.equally_long:
        return baseline_schedule(options.name, problem)
    if options.name != SLICED:
        raise InputError(f"{options.name} takes no sequence slices: only {SLICED} does")
    cut = cut_sequences(
        problem,
        options.slices or USUAL_SLICES,
        options.attention_share or Fraction(0),
        balanced=not options.equally_long,
    )
    return baseline_schedule(SLICED, cut)


def _over_limit(problem: Problem, name: str, metrics: Metrics) -> int:
    """Say which rank of a baseline holds more than its limit."""
    for rank, (peak, limit) in enumerate(
        zip(metrics.peak_memory_bytes, problem.memory_limit_bytes or (), strict=True)
    ):
        if peak > limit:
            complain(f"{name} holds {peak} bytes on rank {rank}, limit {limit}")
    return NO_SCHEDULE
