"""What :mod:`runtime.train` takes on its command line, and what of it goes together."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from runtime.gradients import Exchange
from runtime.stage import Division
from runtime.versions import WeightPolicy
from synth.errors import InputError
from synth.files import STANDARD_STREAM

TIMELINE_STEPS = 21


def make_parser(description: str) -> argparse.ArgumentParser:
    """What the training takes."""
    parser = argparse.ArgumentParser(prog="runtime.train", description=description)
    add = parser.add_argument
    add("--schedule", required=True, help="a schedule document")
    add("--steps", type=int, default=30, help="optimizer steps (default %(default)s)")
    add("--microbatch-size", type=int, default=4, help="rows of a microbatch (default %(default)s)")
    add("--positions", type=int, default=32, help="tokens of a row (default %(default)s)")
    add(
        "--slice-positions",
        type=_numbers,
        metavar="N,N,…",
        help="tokens of each sequence slice, where the schedule has slices (default as equal as can be)",
    )
    add("--vocabulary", type=int, default=64, help="different tokens (default %(default)s)")
    add("--hidden", type=int, default=64, help="features (default %(default)s)")
    add("--heads", type=int, default=4, help="attention heads (default %(default)s)")
    add("--layers", type=int, help="blocks (default one per stage)")
    add("--learning-rate", type=float, default=3e-3, help="of AdamW (default %(default)s)")
    add("--seed", type=int, default=0, help="of weights and text (default %(default)s)")
    add("--bfloat16", action="store_true", help="mixed precision: compute in bfloat16, keep float32 weights")
    add("--division", choices=list(Division), default=Division.DEFERRED, help="how B and W divide a backward")
    add("--share-gpu", action="store_true", help="several ranks on one GPU; needs NVIDIA's MPS (untried)")
    add("--recompute", action="store_true", help="keep blocks' inputs alone, compute the rest again")
    add(
        "--gradients",
        choices=list(Exchange),
        default=Exchange.ALL_REDUCE,
        help="what replicas do: reduce-scatter gives each a share to update (default %(default)s)",
    )
    add(
        "--weights",
        choices=list(WeightPolicy),
        default=WeightPolicy.FLUSH,
        help="flush: gradients at the newest weights; 2bw: double-buffered, one step late; stash: "
        "each microbatch's at a stage's newest when it came there (default %(default)s)",
    )
    add("--batch-microbatches", type=int, metavar="M", help="microbatches of a step (default the schedule's)")
    add("--flush-steps", type=int, default=0, metavar="N", help="so many of the steps with flush, first")
    add(
        "--timeline",
        metavar="PATH",
        help="write when each op of a step ran and what each rank held, a timeline document; one more step, "
        "which trains nothing, is taken to see the latter",
    )
    add(
        "--timeline-steps",
        type=int,
        metavar="N",
        help="the timeline is of that one of the last N steps whose length is the median (default "
        f"{TIMELINE_STEPS}, or all where there are fewer)",
    )
    add("--checkpoints", metavar="FOLDER", help="write a checkpoint after the last step")
    add("--resume", metavar="FOLDER", help="go on after the latest checkpoint there, --steps further")
    add("--timeout", type=float, default=60.0, help="seconds a rank waits for another (default %(default)s)")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers: write them as in 16,8,8")
    return tuple(map(int, text.split(",")))


def check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    InputError
        Saying which.
    """
    if options.batch_microbatches is None and options.weights != WeightPolicy.FLUSH:
        raise InputError(
            f"--weights {options.weights} trains by a schedule of several batches: give --batch-microbatches"
        )
    if options.batch_microbatches is not None and options.batch_microbatches < 1:
        raise InputError(f"--batch-microbatches is {options.batch_microbatches}: give an integer ≥ 1")
    if options.batch_microbatches is not None and options.timeline is not None:
        raise InputError("--timeline writes a whole schedule: leave --batch-microbatches out")
    for name in ("steps", "microbatch_size", "positions", "vocabulary", "hidden", "heads"):
        if getattr(options, name) < 1:
            raise InputError(f"{flag(name)} is {getattr(options, name)}: give an integer ≥ 1")
    for name in ("learning_rate", "timeout"):
        if not 0 < getattr(options, name) < math.inf:
            raise InputError(f"{flag(name)} is {getattr(options, name):g}: give a number above 0")
    if not 0 <= options.flush_steps <= options.steps:
        raise InputError(f"--flush-steps is {options.flush_steps}: give 0 to --steps, {options.steps}")
    if options.schedule == STANDARD_STREAM:
        raise InputError("--schedule - is standard input, which reaches no rank: name a file")
    if options.timeline_steps is not None:
        if options.timeline is None:
            raise InputError("--timeline-steps is given without --timeline: name the file to write")
        if not 1 <= options.timeline_steps <= options.steps:
            raise InputError(
                f"--timeline-steps is {options.timeline_steps}: give 1 to --steps, {options.steps}"
            )
    if options.timeline not in (None, STANDARD_STREAM) and not Path(options.timeline).parent.is_dir():
        raise InputError(f"--timeline: there is no folder {Path(options.timeline).parent}: create it first")
    _check_checkpoints(options.checkpoints)


def flag(name: str) -> str:
    """An option as it is typed."""
    return "--" + name.replace("_", "-")


def _check_checkpoints(folder: str | None) -> None:
    """Make the folder before the training, not behind it."""
    try:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--checkpoints: {folder} cannot be made ({error.strerror}): name another"
        ) from error


def timeline_steps(options: argparse.Namespace) -> int:
    """Of how many steps one becomes the timeline, 0 where none is written."""
    if options.timeline is None:
        return 0
    given: int | None = options.timeline_steps
    return min(TIMELINE_STEPS, options.steps) if given is None else given
