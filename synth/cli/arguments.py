"""What the commands take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.metadata import version
from typing import NoReturn, TypeVar

from synth.baselines import BASELINES
from synth.cli import commands
from synth.cli.loading import AUTO_CHUNKS
from synth.errors import InputError
from synth.placement import PlacementKind
from synth.problem import Links, Objective
from synth.search.driver import Solver
from synth.search.synthesizer import LARGEST_SEED, MOST_WORKERS

Name = TypeVar("Name", bound=StrEnum)


class Parser(argparse.ArgumentParser):
    """Refuses wrong arguments in one sentence, as any other wrong input."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise InputError(f"{message}; see {self.prog} --help")


def pipesynth_parser() -> argparse.ArgumentParser:
    """The parser of ``pipesynth`` and its commands."""
    parser = Parser(
        prog="pipesynth", description="Optimal pipeline-parallel training schedules, with proofs."
    )
    _add_version(parser)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(command=run, json=False)
        return added

    _synthesize_arguments(command("synthesize", commands.run_synthesize))
    _json_argument(command("instances", commands.run_instances))
    baseline = command("baseline", commands.run_baseline)
    baseline.add_argument("name", metavar="NAME", help=", ".join(BASELINES))
    _problem_arguments(baseline)
    _output_argument(baseline)
    _json_argument(baseline)
    compare = command("compare", commands.run_compare)
    _problem_arguments(compare, open_chunks=True)
    _search_arguments(compare, time_limit=10.0)
    compare.set_defaults(solver=Solver.CPSAT)
    _json_argument(compare)
    bound = command("bound", commands.run_bound)
    _problem_arguments(bound)
    _search_arguments(bound, time_limit=10.0)
    _json_argument(bound)
    verify = command("verify", commands.run_verify)
    verify.add_argument("schedule", metavar="SCHEDULE", help="a schedule document, or - for standard input")
    _json_argument(verify)
    simulate = command("simulate", commands.run_simulate)
    simulate.add_argument("schedule", metavar="SCHEDULE", help="a schedule document, or - for standard input")
    _name_argument(simulate, "--links", list(Links), help_text="overrides the problem's links")
    simulate.add_argument(
        "--jitter", type=float, metavar="SIGMA", help="noise per op, as a share of its ticks"
    )
    simulate.add_argument(
        "--samples", type=_whole_number(1), default=100, metavar="N", help="replays under jitter"
    )
    _seed_argument(simulate)
    _json_argument(simulate)
    return parser


def synthesize_parser() -> argparse.ArgumentParser:
    """The parser of ``synthesize``."""
    parser = Parser(prog="synthesize", description=commands.run_synthesize.__doc__)
    _add_version(parser)
    _synthesize_arguments(parser)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ortools", "numpy", "numba", "msgspec"))
    text = f"pipesynth {version('pipesynth')} (Python {sys.version.split()[0]}, {versions})"
    parser.add_argument("--version", action="version", version=text)


def _synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=commands.run_synthesize)
    _problem_arguments(parser, open_chunks=True)
    _output_argument(parser)
    _search_arguments(parser, time_limit=60.0)
    parser.add_argument(
        "--robust",
        type=float,
        metavar="SIGMA",
        help="prefer, within 1%% of the best value, what does best when every op's ticks vary by this share",
    )
    solvers = [solver.value for solver in Solver]
    text = "the solver behind the search (default %(default)s)"
    parser.add_argument("--solver", choices=solvers, default=solvers[0], help=text)
    _json_argument(parser)


def _problem_arguments(parser: argparse.ArgumentParser, *, open_chunks: bool = False) -> None:
    add = parser.add_argument
    add("problem", metavar="PROBLEM", help="a problem document, - for standard input, or a shipped instance")
    add(
        "--memory-limit",
        metavar="X",
        help="bytes, a size such as 12GiB, or a multiple of 1F1B's such as 0.5x",
    )
    add("--microbatches", type=_whole_number(1), metavar="M", help="overrides the problem's")
    named = [kind for kind in PlacementKind if kind is not PlacementKind.MAP]
    _name_argument(parser, "--placement", named, help_text="overrides the problem's")
    add(
        "--chunks",
        type=_chunks if open_chunks else _whole_number(1),
        metavar="V",
        help="cut each stage into V equal parts (one stage per rank)"
        + (", or auto for the best of 1, 2 and 4" if open_chunks else ""),
    )
    _name_argument(parser, "--objective", list(Objective), help_text="overrides the problem's")


def _search_arguments(parser: argparse.ArgumentParser, time_limit: float) -> None:
    add = parser.add_argument
    add("--time-limit", type=_seconds, default=time_limit, metavar="S", help="seconds (default %(default)s)")
    workers = _whole_number(1, MOST_WORKERS)
    add("--workers", type=workers, default=2, metavar="N", help="threads (default %(default)s)")
    _seed_argument(parser)


def _chunks(text: str) -> int | str:
    """An argument type: a count of chunks, or to try several."""
    return text if text == AUTO_CHUNKS else _whole_number(1, or_else=AUTO_CHUNKS)(text)


def _seconds(text: str) -> float:
    """An argument type: a finite time above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give a finite number of seconds above 0")
    return seconds


def _seed_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=_whole_number(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="of all random choices (default %(default)s)",
    )


def _output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="SCHEDULE", help="write the schedule document, - for stdout"
    )


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")


def _name_argument(
    parser: argparse.ArgumentParser, flag: str, names: Sequence[Name], *, help_text: str
) -> None:
    def read(text: str) -> Name:
        for name in names:
            if name == text:
                return name
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")

    parser.add_argument(flag, type=read, metavar=f"{{{','.join(names)}}}", help=help_text)


def _whole_number(least: int, most: int | None = None, *, or_else: str = "") -> Callable[[str], int]:
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
