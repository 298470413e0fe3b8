"""``import``: orders that another tool wrote, as a schedule of a problem."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from enum import StrEnum

from synth.cli.arguments import (
    add_json_argument,
    add_name_argument,
    add_output_argument,
    add_problem_arguments,
)
from synth.cli.exit_codes import DONE, NO_SCHEDULE
from synth.cli.given_orders import answer_with
from synth.cli.loading import load_problem
from synth.cli.showing import check_output_option
from synth.cli.streams import complain
from synth.errors import InputError
from synth.export.torch_csv import schedule_from_torch_csv
from synth.files import STANDARD_STREAM, read_text
from synth.problem import Problem
from synth.schedule import Schedule
from synth.slot_table import schedule_from_slot_table
from synth.verify import verify_schedule


class Source(StrEnum):
    """The formats that can be read."""

    TORCH_CSV = "torch-csv"
    """PyTorch's compute-only pipelining CSV."""
    SLOT_CSV = "slot-csv"
    """A table of ranks by time slots."""


READERS: dict[Source, Callable[[str, Problem, str], Schedule]] = {
    Source.TORCH_CSV: schedule_from_torch_csv,
    Source.SLOT_CSV: schedule_from_slot_table,
}
"""Each takes text, problem and the text's name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``import`` takes."""
    parser.add_argument("orders", metavar="ORDERS", help="the file to read, - for standard input")
    add_problem_arguments(parser)
    add_name_argument(parser, "--from", list(Source), help_text="the format of ORDERS")
    parser.set_defaults(**{"from": Source.TORCH_CSV})
    add_output_argument(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Put orders that another tool wrote on a problem's costs: timed, bounded and verified."""
    check_output_option(options)
    if options.orders == options.problem == STANDARD_STREAM:
        raise InputError("ORDERS and PROBLEM are both standard input: give one of them as a file")
    begun = time.monotonic()
    problem = load_problem(options)
    source = getattr(options, "from")
    schedule = READERS[source](read_text(options.orders), problem, options.orders)
    answer_with(schedule, f"orders from {source}", begun, options)
    violations = verify_schedule(schedule)
    for violation in violations:
        complain(violation)
    return NO_SCHEDULE if violations else DONE
