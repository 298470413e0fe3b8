"""Searches as commands run them, with their progress on standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars

from synth.cli.streams import interrupts_apart
from synth.problem import Problem
from synth.search.synthesizer import Progress, Result, synthesize

NARROWEST_WITH_BAR = 60
"""In a narrower terminal the numbers take the bar's place."""


def search(problems: Sequence[Problem], options: argparse.Namespace, robust: float | None = None) -> Result:
    """The best schedule under any of a problem's cuts, with the time and threads that a command got."""
    with interrupts_apart(), shown_progress(options.time_limit) as show:
        return synthesize(
            problems[0],
            alternatives=problems[1:],
            robust=robust,
            time_limit=options.time_limit,
            workers=options.workers,
            seed=options.seed,
            on_progress=show,
            solver=options.solver,
        )


@contextmanager
def shown_progress(time_limit: float, *, only_bars: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Show where a search stands: a bar on a terminal, else a line for each report, or nothing.

    Parameters
    ----------
    time_limit
        The whole of the bar, seconds.
    only_bars
        Whether to show nothing where there is no terminal that can move a bar.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _say_nothing if only_bars else _print_line
        return
    columns: list[ProgressColumn] = [
        TextColumn("{task.fields[elapsed]:6.1f} s"),
        TextColumn("{task.description}", markup=False),
    ]
    if console.width >= NARROWEST_WITH_BAR:
        columns.insert(1, BarColumn(bar_width=20))
    with Bars(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("", total=time_limit, elapsed=0.0)

        def move(progress: Progress) -> None:
            bars.update(
                bar,
                completed=min(progress.elapsed_s, time_limit),
                elapsed=progress.elapsed_s,
                description=_standing(progress),
            )

        yield move


def _say_nothing(_: Progress) -> None:
    pass


def _print_line(progress: Progress) -> None:
    print(f"{progress.elapsed_s:6.1f} s  {_standing(progress)}", file=sys.stderr, flush=True)


def _standing(progress: Progress) -> str:
    value = "-" if progress.value is None else str(progress.value)
    gap = "-" if progress.gap is None else f"{progress.gap:.2%}"
    return f"gap {gap}  best {value}  bound {progress.lower_bound}  {progress.step}"
