"""The commands as installed: what runs before everything else is imported, which takes half a second."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C with nothing to show for it, as shells have it."""


def main() -> int:
    """Run ``pipesynth``; returns the exit code."""
    _import_commands()
    from synth.cli import main as run

    return run()


def main_synthesize() -> int:
    """Run ``synthesize``, which is ``pipesynth synthesize``; returns the exit code."""
    _import_commands()
    from synth.cli import main_synthesize as run

    return run()


def _import_commands() -> None:
    """Import everything; an interrupt meanwhile ends the process with a sentence.

    No exception could do that: compiled modules half-way through their import turn it into another one.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else interrupts are ignored, as under nohup
        signal.signal(signal.SIGINT, _end)
    import synth.cli  # noqa: F401

    signal.signal(signal.SIGINT, before)


def _end(_signal: int, _frame: FrameType | None) -> None:
    if sys.stderr is not None:
        sys.stderr.write("pipesynth: interrupted before there was anything to show\n")
        sys.stderr.flush()
    os._exit(INTERRUPTED)
