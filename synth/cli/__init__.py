"""The command line (FORMATS.md, Commands): the only part that sees everything.

Importing it imports nothing yet, so that Ctrl-C is understood while the solvers are loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from synth.cli.exit_codes import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pipesynth``; returns the exit code."""
    return _run("pipesynth", arguments)


def main_synthesize(arguments: Sequence[str] | None = None) -> int:
    """Run ``synthesize``, which is ``pipesynth synthesize``; returns the exit code."""
    return _run("synthesize", arguments)


def _run(program: str, arguments: Sequence[str] | None) -> int:
    try:
        from synth.cli.running import run

        return run(program, arguments)
    except KeyboardInterrupt:
        print("pipesynth: interrupted before there was anything to show", file=sys.stderr)
        return INTERRUPTED
