"""What the commands take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version

from synth.baselines import BASELINES
from synth.cli import commands
from synth.placement import PlacementKind
from synth.problem import Links, Objective


def pipesynth_parser() -> argparse.ArgumentParser:
    """The parser of ``pipesynth`` and its commands."""
    parser = argparse.ArgumentParser(
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
    _problem_arguments(compare)
    _search_arguments(compare, time_limit=10.0)
    _json_argument(compare)
    bound = command("bound", commands.run_bound)
    _problem_arguments(bound)
    _json_argument(bound)
    verify = command("verify", commands.run_verify)
    verify.add_argument("schedule", metavar="SCHEDULE", help="a schedule document, or - for standard input")
    _json_argument(verify)
    simulate = command("simulate", commands.run_simulate)
    simulate.add_argument("schedule", metavar="SCHEDULE", help="a schedule document, or - for standard input")
    simulate.add_argument("--links", type=Links, choices=list(Links), help="overrides the problem's links")
    simulate.add_argument(
        "--jitter", type=float, metavar="SIGMA", help="noise per op, as a share of its ticks"
    )
    simulate.add_argument("--samples", type=int, default=100, metavar="N", help="replays under jitter")
    simulate.add_argument("--seed", type=int, default=0, metavar="N")
    _json_argument(simulate)
    return parser


def synthesize_parser() -> argparse.ArgumentParser:
    """The parser of ``synthesize``."""
    parser = argparse.ArgumentParser(prog="synthesize", description=commands.run_synthesize.__doc__)
    _add_version(parser)
    _synthesize_arguments(parser)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ortools", "numpy", "numba", "msgspec"))
    text = f"pipesynth {version('pipesynth')} (Python {sys.version.split()[0]}, {versions})"
    parser.add_argument("--version", action="version", version=text)


def _synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=commands.run_synthesize)
    _problem_arguments(parser)
    _output_argument(parser)
    _search_arguments(parser, time_limit=60.0)
    parser.add_argument("--solver", choices=["cpsat"], default="cpsat", help="the solver behind the search")
    _json_argument(parser)


def _problem_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("problem", metavar="PROBLEM", help="a problem document, - for standard input, or a shipped instance")
    add(
        "--memory-limit",
        metavar="X",
        help="bytes, a size such as 12GiB, or a multiple of 1F1B's such as 0.5x",
    )
    add("--microbatches", type=int, metavar="M", help="overrides the problem's")
    add("--placement", type=PlacementKind, choices=[k for k in PlacementKind if k is not PlacementKind.MAP])
    add("--chunks", type=int, metavar="V", help="cut each stage into V equal parts (one stage per rank)")
    add("--objective", type=Objective, choices=list(Objective), help="overrides the problem's")


def _search_arguments(parser: argparse.ArgumentParser, time_limit: float) -> None:
    add = parser.add_argument
    add("--time-limit", type=float, default=time_limit, metavar="S", help="seconds (default %(default)s)")
    add("--workers", type=int, default=2, metavar="N", help="threads (default %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of all random choices (default %(default)s)")


def _output_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="SCHEDULE", help="write the schedule document, - for stdout"
    )


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
