"""Standard streams and output files: what a command says, where, and whether it can be said there."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from math import inf

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synth.errors import InputError
from synth.files import STANDARD_STREAM
from synth.report import print_table

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
"""What ends a command with what it has so far."""

PATIENCE_S = 2.0
"""Seconds in which a search that was interrupted is to end; then an interrupt ends what it waits for."""


def prepare_streams() -> None:
    """Make all three standard streams usable: a closed one is empty, an odd encoding loses no answer."""
    # In the order of their numbers, so that no file takes the number of a closed stream.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # open to the end, as a stream is
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Send what is still to be flushed to standard output nowhere: it cannot be written."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def check_output(path: str | None) -> None:
    """Make sure, before a long search, that the file to write has a place.

    Raises
    ------
    InputError
        When its folder is missing or may not be written, or the path is a folder.
    """
    if path is None or path == STANDARD_STREAM:
        return
    if not path:
        raise InputError("-o is given without a file name: name a file, or - for standard output")
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target) or path.endswith(os.sep):
        raise InputError(f"{path} is a folder: name a file")
    if not os.path.isdir(folder):
        raise InputError(f"{path} cannot be written: there is no folder {folder}; create it first")
    if os.path.exists(target):
        if not os.access(target, os.W_OK):
            raise InputError(f"{path} cannot be written: it is read-only; name another file")
        if not os.path.isfile(target):
            return
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no file may be made in {folder}; name another")


class Printer:
    """Prints for people, on standard output or, where that carries the document, on standard error."""

    def __init__(self, output: str | None = None) -> None:
        file = sys.stderr if output == STANDARD_STREAM else sys.stdout
        self._console = Console(file=file, highlight=False, markup=False, emoji=False)

    @property
    def columns(self) -> int:
        """The width of the terminal, 80 where there is none."""
        return self._console.width

    @property
    def lines(self) -> int:
        """The height of the terminal, 0 where colours are not shown: in a pipe, or where NO_COLOR is set."""
        coloured = self._console.is_terminal and self._console.color_system and not self._console.no_color
        return self._console.height if coloured else 0

    @property
    def has_arrows(self) -> bool:
        """Whether the output's encoding has characters beyond ASCII."""
        return self._console.encoding.lower().startswith("utf")

    def text(self, text: Text) -> None:
        """Coloured text, no wider than the terminal."""
        self._console.print(text, no_wrap=True, overflow="crop", end="")

    def table(self, table: Table) -> None:
        """A table, wider than the terminal rather than cut off."""
        print_table(self._console, table)

    def line(self, text: str) -> None:
        """Text as it is: the terminal wraps it, a pipe gets it whole."""
        self._console.print(text, soft_wrap=True)


def print_json(answer: object) -> None:
    """Print a machine-readable answer on standard output."""
    print(json.dumps(answer, indent=2))


def complain(text: object) -> None:
    """Say on standard error what is wrong."""
    print(f"pipesynth: {text}", file=sys.stderr)


@contextmanager
def one_interrupt(*, process_ends: bool) -> Iterator[None]:
    """Let only the first interrupt through: those behind it would lose what the first one made us save.

    SIGTERM, which schedulers send before they kill, is an interrupt too.

    Parameters
    ----------
    process_ends
        Whether nothing but the end of the process follows, which takes a moment: after an interrupt it is
        not interrupted either.
    """
    with _interrupts(inf, then_none=process_ends):
        yield


@contextmanager
def interrupts_apart() -> Iterator[None]:
    """Let an interrupt through, others only some seconds after the last one, and none behind if any came."""
    with _interrupts(PATIENCE_S, then_none=True):
        yield


@contextmanager
def _interrupts(apart_s: float, *, then_none: bool) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard_at: float | None = None

    def interrupt(*_: object) -> None:
        nonlocal heard_at
        now = time.monotonic()
        if heard_at is None or now - heard_at >= apart_s:
            heard_at = now
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number in INTERRUPTS:
            was_heard = heard_at is not None or signal.getsignal(number) is signal.SIG_IGN
            signal.signal(number, signal.SIG_IGN if was_heard and then_none else before[number])
