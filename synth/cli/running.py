"""Running a command: streams made usable, every error one sentence and its exit code."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence

from synth.cli.exit_codes import DONE, NO_SCHEDULE, OUR_BUG, WRONG_INPUT
from synth.cli.parsers import pipesynth_parser, synthesize_parser
from synth.cli.streams import complain, discard_output, one_interrupt, prepare_streams, print_json
from synth.errors import BackendError, InfeasibleError, InputError, InvalidOrdersError, NoScheduleFoundError

COLLECT_AFTER = 200_000
"""New objects between two garbage collections. A schedule is many small tuples without cycles, and at
Python's default looking through them takes a third of the time of building them."""

PARSERS = {"pipesynth": pipesynth_parser, "synthesize": synthesize_parser}
"""By program."""


def run(program: str, arguments: Sequence[str] | None) -> int:
    """Carry out the command that the arguments of ``pipesynth`` or ``synthesize`` name; its exit code."""
    prepare_streams()
    gc.set_threshold(COLLECT_AFTER, 50, 50)
    try:
        code = _answer(PARSERS[program](), arguments)
        sys.stdout.flush()  # here rather than at exit, where nothing could be said any more
        return code
    except BrokenPipeError:
        discard_output()  # the reader has left: nothing more to say
        return DONE
    except OSError as error:
        discard_output()
        complain(f"a standard stream fails: {(error.strerror or 'unknown error').lower()}")
        return WRONG_INPUT


def _answer(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    try:
        options = parser.parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return _carry_out(command, options, process_ends=arguments is None)
    except SystemExit:  # of --help and --version
        return DONE
    except InvalidOrdersError as error:
        complain(error)
        return NO_SCHEDULE
    except NoScheduleFoundError as error:
        complain(error)
        return NO_SCHEDULE
    except BackendError as error:
        complain(f"this is a bug of ours, please report it: {error}")
        return OUR_BUG
    except InputError as error:
        complain(error)
        return WRONG_INPUT


def _carry_out(
    command: Callable[[argparse.Namespace], int], options: argparse.Namespace, *, process_ends: bool
) -> int:
    try:
        with one_interrupt(process_ends=process_ends):
            return command(options)
    except InfeasibleError as error:
        complain(error)
        if options.json:
            answer = {
                "status": "infeasible",
                "reasons": list(error.reasons),
                "smallest_limit_bytes": list(error.smallest_limit_bytes),
            }
            print_json(answer)
        return NO_SCHEDULE
