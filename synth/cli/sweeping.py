"""Sweeps as commands run them: bars on a terminal, a line for every finished point in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from synth.frontier import Axis, Point, PointStatus
from synth.search.synthesizer import Progress


class Watcher(Protocol):
    """Is told how a sweep goes."""

    def progress(self, limit_bytes: int, progress: Progress) -> None:
        """Where the search at a limit stands."""

    def point(self, point: Point) -> None:
        """A search is over."""


@contextmanager
def watching(axis: Axis, time_limit_s: float, count: int) -> Iterator[Watcher]:
    """Progress on standard error while so many limits are searched at."""
    console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        yield _Lines(axis, count)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Terminal(axis, bars, time_limit_s, count)


def limit_name(axis: Axis, limit_bytes: int) -> str:
    """A limit as a multiple of 1F1B's activations."""
    return f"{axis.multiple(limit_bytes):.4g}x"


class _Lines:
    """One line for every finished point."""

    def __init__(self, axis: Axis, count: int, console: Console | None = None) -> None:
        self._axis, self._count, self._console = axis, count, console
        self._done = 0

    def progress(self, limit_bytes: int, progress: Progress) -> None:
        """Say nothing: only what is finished gets a line."""

    def point(self, point: Point) -> None:
        """Say what came of a point."""
        self._done += 1
        name = limit_name(self._axis, point.limit_bytes)
        line = f"{self._done}/{self._count}  {name}, {point.limit_bytes} bytes: {_outcome(point)}"
        if self._console is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._console.print(line, soft_wrap=True)


class _Terminal:
    """A bar for the sweep and one for every running search."""

    def __init__(self, axis: Axis, bars: Bars, time_limit_s: float, count: int) -> None:
        self._axis, self._bars, self._time_limit_s = axis, bars, time_limit_s
        self._lines = _Lines(axis, count, bars.console)
        self._all = bars.add_task("limits", total=count, state=f"0 of {count}")
        self._count, self._done = count, 0
        self._running: dict[int, TaskID] = {}

    def progress(self, limit_bytes: int, progress: Progress) -> None:
        """Move a search's bar along its time limit."""
        if limit_bytes not in self._running:
            name = limit_name(self._axis, limit_bytes)
            self._running[limit_bytes] = self._bars.add_task(name, total=self._time_limit_s, state="")
        task = self._running[limit_bytes]
        self._bars.update(task, completed=progress.elapsed_s, state=_standing(progress))

    def point(self, point: Point) -> None:
        """Take a search's bar away and keep its line."""
        self._done += 1
        task = self._running.pop(point.limit_bytes, None)
        if task is not None:
            self._bars.remove_task(task)
        self._bars.update(self._all, completed=self._done, state=f"{self._done} of {self._count}")
        self._lines.point(point)


def _standing(progress: Progress) -> str:
    value = "-" if progress.value is None else str(progress.value)
    gap = "-" if progress.gap is None else f"{progress.gap:.2%}"
    return f"best {value}  bound {progress.lower_bound}  gap {gap}"


def _outcome(point: Point) -> str:
    if point.document is None:
        needs = point.smallest_limit_bytes
        if point.status is PointStatus.INFEASIBLE and needs is not None:
            return f"infeasible, {needs} bytes would do"
        return f"{point.status}: {point.reason}"
    return f"best {point.value}  bound {point.lower_bound}  gap {point.gap:.2%}  {point.status}"
