"""From every rank's recorded times to the timeline document of a step."""

from __future__ import annotations

import json

from torch import Tensor

from runtime.allocators import make_allocator
from runtime.executor import PipelineRunner
from runtime.trials import unchanged
from synth.errors import InputError
from synth.measured import MeasuredOp, Timeline
from synth.ops import Op


def step_peak_bytes(runner: PipelineRunner, batch: Tensor | None = None, target: Tensor | None = None) -> int:
    """The most that this rank holds at any moment of a step, as its allocator says; every rank calls this.

    That is what it holds at the start (weights, what an optimizer keeps, buffers) and what comes on top. The
    step is taken for that alone: on the CPU being watched slows it. It does not count, whatever its loss is;
    the times of the last step before stay, buffers of modules keep their content, and its gradients are not
    to be followed by an update.

    Parameters
    ----------
    runner
        Which has completed a step, so that what lasts is there.
    batch, target
        As :meth:`~runtime.executor.PipelineRunner.step` takes them.
    """
    allocator = make_allocator(runner.world.device)

    def step() -> None:
        runner.step(batch, target)

    with runner.aside("the step that measures memory"):
        held_bytes = allocator.held_bytes()
        with unchanged(runner.modules.values()):
            return held_bytes + allocator.watch(step).highest


def gather_timeline(
    runner: PipelineRunner, source: str = "", peak_bytes: int | None = None
) -> Timeline | None:
    """Bring the last step's times together, on the clock of the pipeline's rank 0; every rank calls this.

    Parameters
    ----------
    runner
        Which has completed a step.
    source
        Where the numbers come from: model, device, versions.
    peak_bytes
        This rank's (:func:`step_peak_bytes`); the timeline has peaks where all ranks give theirs.

    Returns
    -------
    The timeline on pipeline rank 0, from 0 on; None elsewhere.

    Raises
    ------
    InputError
        When no step has run.
    """
    world, bulletin = runner.world, runner.bulletin
    times = runner.times()
    if not times:  # on no rank then: each holds a stage
        raise InputError("no step has run, of which a timeline could be: run one first")
    offset = runner.clock_offset_ns()
    own = [[str(op), start - offset, end - offset] for op, start, end in times]
    name = f"times/{bulletin.turn('times')}/{world.replica}"
    bulletin.put(f"{name}/{world.rank}", json.dumps({"ops": own, "peak": peak_bytes}))
    if world.rank != 0:
        return None
    notes = [
        json.loads(bulletin.read(f"{name}/{rank}", f"the times of rank {rank}"))
        for rank in range(world.num_ranks)
    ]
    first = min(start for note in notes for _, start, _ in note["ops"])
    peaks = tuple(note["peak"] for note in notes)
    return Timeline(
        problem=runner.schedule.problem,
        ranks=tuple(
            tuple(MeasuredOp(Op.parse(op), start - first, end - first) for op, start, end in note["ops"])
            for note in notes
        ),
        peak_memory_bytes=None if None in peaks else peaks,
        source=source,
    )
