"""From every rank's recorded times, and what it held meanwhile, to the timeline document of a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from runtime.allocators import Change, make_allocator
from runtime.executor import PipelineRunner
from runtime.trials import unchanged
from synth.errors import InputError
from synth.measured import HeldBytes, MeasuredOp, Timeline
from synth.ops import Op


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What this rank held in a step: at most, and from op to op.

    Parameters
    ----------
    peak_bytes
        The most at any moment.
    held
        From op to op, without buffers for messages while nothing uses them: how many of those there are
        depends on the orders.
    """

    peak_bytes: int
    held: HeldBytes


def step_memory(
    runner: PipelineRunner, batch: Tensor | None = None, target: Tensor | None = None
) -> StepMemory:
    """What this rank holds in a step, as its allocator says; every rank calls this.

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
    idle: list[int] = []

    def mark() -> None:
        allocator.mark()
        idle.append(runner.idle_bytes)

    def step() -> None:
        mark()
        runner.step(batch, target)

    with runner.aside("the step that measures memory", mark):
        start_bytes = allocator.held_bytes()
        with unchanged(runner.modules.values()):
            change = allocator.watch(step)
    return StepMemory(start_bytes + change.highest, _held(start_bytes, change, idle))


def _held(start_bytes: int, change: Change, idle: Sequence[int]) -> HeldBytes:
    """What was held from op to op, less the buffers that nothing used all the while."""
    now = [start_bytes + level.now - unused for level, unused in zip(change.marked, idle, strict=True)]
    most = [
        max(start_bytes + change.marked[n].most - min(idle[n - 1 : n + 1]), *now[n - 1 : n + 1])
        for n in range(1, len(now))
    ]
    return HeldBytes(start_bytes=now[0], most_bytes=tuple(most), after_bytes=tuple(now[1:]))


def gather_timeline(
    runner: PipelineRunner, source: str = "", steps: Sequence[Sequence[MeasuredOp]] | None = None
) -> Timeline | None:
    """Bring the times of a step together, on the clock of the pipeline's rank 0; every rank calls this.

    Parameters
    ----------
    runner
        Which has completed a step.
    source
        Where the numbers come from: model, device, versions.
    steps
        What :meth:`~runtime.executor.PipelineRunner.times` gave behind each of some steps, the same on all
        ranks: of those it is the one whose length is the median, of two the shorter. By default the last.

    Returns
    -------
    The timeline on pipeline rank 0, from 0 on; None elsewhere.

    Raises
    ------
    InputError
        When no step has run.
    """
    steps = [runner.times()] if steps is None else steps
    if not steps or not all(steps):  # on no rank then: each holds a stage
        raise InputError("no step has run, of which a timeline could be: run one first")
    offset = runner.clock_offset_ns()
    own = [[(str(op), start - offset, end - offset) for op, start, end in step] for step in steps]
    notes = _gather(runner, "times", own)
    if notes is None:
        return None
    seen = [_timeline(runner, source, ranks) for ranks in zip(*notes, strict=True)]
    return sorted(seen, key=lambda timeline: timeline.length_ns)[(len(seen) - 1) // 2]


def gather_memory(runner: PipelineRunner, timeline: Timeline | None, memory: StepMemory) -> Timeline | None:
    """Add to a timeline what every rank held; every rank calls this.

    Parameters
    ----------
    runner, timeline
        As of :func:`gather_timeline`.
    memory
        This rank's (:func:`step_memory`).

    Returns
    -------
    The timeline on pipeline rank 0, None elsewhere.
    """
    held = memory.held
    own = [memory.peak_bytes, held.start_bytes, held.most_bytes, held.after_bytes]
    notes = _gather(runner, "memory", own)
    if notes is None or timeline is None:
        return None
    return replace(
        timeline,
        peak_memory_bytes=tuple(peak for peak, *_ in notes),
        held_bytes=tuple(
            HeldBytes(start_bytes=start, most_bytes=tuple(most), after_bytes=tuple(after))
            for _, start, most, after in notes
        ),
    )


def _gather(runner: PipelineRunner, what: str, own: Any) -> list[Any] | None:
    """What every rank of this pipeline notes, on its rank 0; None elsewhere."""
    world, bulletin = runner.world, runner.bulletin
    name = f"{what}/{bulletin.turn(what)}/{world.replica}"
    bulletin.put(f"{name}/{world.rank}", json.dumps(own))
    if world.rank != 0:
        return None
    return [
        json.loads(bulletin.read(f"{name}/{rank}", f"the {what} of rank {rank}"))
        for rank in range(world.num_ranks)
    ]


def _timeline(runner: PipelineRunner, source: str, ranks: Sequence[Sequence[Any]]) -> Timeline:
    """A step of all ranks, from 0 on."""
    first = min(start for rank in ranks for _, start, _ in rank)
    return Timeline(
        problem=runner.schedule.problem,
        ranks=tuple(
            tuple(MeasuredOp(Op.parse(op), start - first, end - first) for op, start, end in rank)
            for rank in ranks
        ),
        source=source,
    )
