"""The parsers of ``pipesynth`` and ``synthesize``."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from typing import NoReturn

from synth.cli.commands import COMMANDS
from synth.errors import InputError


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
    for name, command in COMMANDS.items():
        added = subparsers.add_parser(name, help=command.run.__doc__, description=command.run.__doc__)
        added.set_defaults(command=command.run, json=False)
        command.add_arguments(added)
    return parser


def synthesize_parser() -> argparse.ArgumentParser:
    """The parser of ``synthesize``."""
    command = COMMANDS["synthesize"]
    parser = Parser(prog="synthesize", description=command.run.__doc__)
    _add_version(parser)
    parser.set_defaults(command=command.run)
    command.add_arguments(parser)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("ortools", "numpy", "numba", "msgspec"))
    text = f"pipesynth {version('pipesynth')} (Python {sys.version.split()[0]}, {versions})"
    parser.add_argument("--version", action="version", version=text)
