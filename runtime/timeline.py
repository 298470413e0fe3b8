"""From every rank's recorded times to the timeline document of a step."""

from __future__ import annotations

import json

import torch

from runtime.clock import clock_offset_ns
from runtime.executor import PipelineRunner
from synth.measured import MeasuredOp, Timeline
from synth.ops import Op


def gather_timeline(runner: PipelineRunner, source: str = "") -> Timeline | None:
    """Bring the last step's times together, on the clock of the pipeline's rank 0; every rank calls this.

    Parameters
    ----------
    runner
        Which has completed a step.
    source
        Where the numbers come from: model, device, versions.

    Returns
    -------
    The timeline on pipeline rank 0, from 0 on; None elsewhere.
    """
    world, bulletin = runner.world, runner.bulletin
    times = runner.times()
    offset = clock_offset_ns(world)
    own = [[str(op), start - offset, end - offset] for op, start, end in times]
    name = f"times/{runner.completed_steps}/{world.replica}"
    bulletin.put(f"{name}/{world.rank}", json.dumps({"ops": own, "peak": _peak_bytes(world.device)}))
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


def _peak_bytes(device: torch.device) -> int | None:
    """The allocator's peak so far; the CPU's keeps none."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
