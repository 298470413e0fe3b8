"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

from synth.cli.loading import AUTO_CHUNKS
from synth.errors import InputError
from synth.memory import parse_size
from synth.placement import PlacementKind
from synth.problem import LARGEST_SUM, Objective
from synth.search.synthesizer import LARGEST_SEED, MOST_WORKERS
from synth.simulate import LARGEST_SIGMA

Name = TypeVar("Name", bound=StrEnum)

LIMIT_FORMS = "bytes, a size such as 12GiB, or a multiple of 1F1B's such as 0.5x"


def add_problem_arguments(
    parser: argparse.ArgumentParser, *, open_chunks: bool = False, own_limit: bool = True
) -> None:
    """The problem and what overrides parts of it."""
    add = parser.add_argument
    add("problem", metavar="PROBLEM", help="a problem document, - for standard input, or a shipped instance")
    if own_limit:
        add("--memory-limit", metavar="X", help=LIMIT_FORMS)
    add("--microbatches", type=whole_number(1), metavar="M", help="overrides the problem's")
    named = [kind for kind in PlacementKind if kind is not PlacementKind.MAP]
    add_name_argument(parser, "--placement", named, help_text="overrides the problem's")
    add(
        "--chunks",
        type=_chunks if open_chunks else whole_number(1),
        metavar="V",
        help="cut each stage into V equal parts (one stage per rank)"
        + (", or auto for the best of 1, 2 and 4" if open_chunks else ""),
    )
    add_name_argument(parser, "--objective", list(Objective), help_text="overrides the problem's")


def add_search_arguments(parser: argparse.ArgumentParser, time_limit: float) -> None:
    """How long and with how many threads to search."""
    add = parser.add_argument
    add("--time-limit", type=seconds, default=time_limit, metavar="S", help="seconds (default %(default)s)")
    workers = whole_number(1, MOST_WORKERS)
    add("--workers", type=workers, default=2, metavar="N", help="threads (default %(default)s)")
    add_seed_argument(parser)


def _chunks(text: str) -> int | str:
    """An argument type: a count of chunks, or to try several."""
    return text if text == AUTO_CHUNKS else whole_number(1, or_else=AUTO_CHUNKS)(text)


def seconds(text: str) -> float:
    """An argument type: a finite time above 0."""
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give a finite number of seconds above 0")
    return given


def noise(text: str) -> float:
    """An argument type: the relative standard deviation of op times."""
    try:
        given = float(text)
    except ValueError:
        given = -1.0
    if not 0 <= given <= LARGEST_SIGMA:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give a number from 0 to {LARGEST_SIGMA}")
    return given


def size(text: str) -> int:
    """An argument type: bytes, below 2**62."""
    try:
        given = parse_size(text)
    except InputError:
        given = LARGEST_SUM
    if given >= LARGEST_SUM:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write bytes, or a size such as 32MiB")
    return given


def add_seed_argument(parser: argparse.ArgumentParser) -> None:
    """The seed of all random choices."""
    parser.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="of all random choices (default %(default)s)",
    )


def add_schedule_argument(parser: argparse.ArgumentParser) -> None:
    """The schedule document to read."""
    parser.add_argument("schedule", metavar="SCHEDULE", help="a schedule document, or - for standard input")


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Where the schedule document goes."""
    parser.add_argument(
        "-o", "--output", metavar="SCHEDULE", help="write the schedule document, - for stdout"
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Machine-readable results."""
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")


def add_name_argument(
    parser: argparse.ArgumentParser, flag: str, names: Sequence[Name], *, help_text: str
) -> None:
    """An argument that is one of several names."""

    def read(text: str) -> Name:
        for name in names:
            if name == text:
                return name
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")

    parser.add_argument(flag, type=read, metavar=f"{{{','.join(names)}}}", help=help_text)


def whole_number(least: int, most: int | None = None, *, or_else: str = "") -> Callable[[str], int]:
    """A reader of integers within bounds; what else the argument accepts is in its complaint."""
    accepted = f"an integer ≥ {least}" if most is None else f"an integer from {least} to {most}"
    accepted += f", or {or_else}" * bool(or_else)

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise argparse.ArgumentTypeError(f"{shown!r} is given; give {accepted}")
        return number

    return read
