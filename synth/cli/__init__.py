"""The command line (FORMATS.md, Commands): the only module that sees everything."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from synth.cli.arguments import pipesynth_parser, synthesize_parser
from synth.cli.commands import DONE, NO_SCHEDULE, WRONG_INPUT, print_json
from synth.errors import InfeasibleError, InputError, InvalidOrdersError, SynthError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pipesynth``; returns the exit code."""
    return _run(pipesynth_parser(), arguments)


def main_synthesize(arguments: Sequence[str] | None = None) -> int:
    """Run ``synthesize``, which is ``pipesynth synthesize``; returns the exit code."""
    return _run(synthesize_parser(), arguments)


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except InfeasibleError as error:
        return _infeasible(error, options)
    except InvalidOrdersError as error:
        _complain(error)
        return NO_SCHEDULE
    except InputError as error:
        _complain(error)
        return WRONG_INPUT
    except BrokenPipeError:
        sys.stderr.close()  # the reader has left: nothing more to say
        return DONE


def _complain(error: SynthError) -> None:
    print(f"pipesynth: {error}", file=sys.stderr)


def _infeasible(error: InfeasibleError, options: argparse.Namespace) -> int:
    _complain(error)
    if options.json:
        answer = {
            "status": "infeasible",
            "reasons": list(error.reasons),
            "smallest_limit_bytes": list(error.smallest_limit_bytes),
        }
        print_json(answer)
    return NO_SCHEDULE
