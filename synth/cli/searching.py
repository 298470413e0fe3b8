"""Searches as commands run them, with their progress on standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from synth.problem import Problem
from synth.search.synthesizer import Progress, Result, synthesize


def search(problems: Sequence[Problem], options: argparse.Namespace, robust: float | None = None) -> Result:
    """The best schedule under any of a problem's cuts, with the time and threads that a command got."""
    return synthesize(
        problems[0],
        alternatives=problems[1:],
        robust=robust,
        time_limit=options.time_limit,
        workers=options.workers,
        seed=options.seed,
        on_progress=_print_progress,
        solver=options.solver,
    )


def _print_progress(progress: Progress) -> None:
    value = "-" if progress.value is None else str(progress.value)
    gap = "-" if progress.gap is None else f"{progress.gap:.2%}"
    line = (
        f"{progress.elapsed_s:6.1f} s  best {value}  bound {progress.lower_bound}  gap {gap}  {progress.step}"
    )
    print(line, file=sys.stderr, flush=True)
