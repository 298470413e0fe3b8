"""Searches as commands run them, with their progress on standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from synth.problem import Problem
from synth.search.synthesizer import Progress, Result, synthesize


def search(problems: Sequence[Problem], options: argparse.Namespace, robust: float | None = None) -> Result:
    """The best schedule under any of a problem's cuts, with the time and threads that a command got."""
    with shown_progress(options.time_limit) as show:
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
def shown_progress(time_limit: float) -> Iterator[Callable[[Progress], None]]:
    """Show where a search stands: a bar on a terminal, a line for each report in a pipe."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _print_line
        return
    columns = (
        TextColumn("{task.fields[elapsed]:6.1f} s"),
        BarColumn(bar_width=20),
        TextColumn("{task.description}", markup=False),
    )
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


def _print_line(progress: Progress) -> None:
    print(f"{progress.elapsed_s:6.1f} s  {_standing(progress)}", file=sys.stderr, flush=True)


def _standing(progress: Progress) -> str:
    value = "-" if progress.value is None else str(progress.value)
    gap = "-" if progress.gap is None else f"{progress.gap:.2%}"
    return f"best {value}  bound {progress.lower_bound}  gap {gap}  {progress.step}"
