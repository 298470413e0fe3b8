"""How long the ops of stages take: repeated after a warm-up, on host time or device events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costmodels.measured.profiles import Split
from costmodels.measured.spreads import Spread, spread_of
from costmodels.measured.stage_runs import StageRun
from runtime.clock import Recorder
from synth.measured import NS_PER_S
from synth.ops import Op, OpKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetitions:
    """How often every op runs.

    Parameters
    ----------
    warm_up
        Not counted.
    repeats
        Counted, at least 1.
    """

    warm_up: int = 3
    repeats: int = 20


OpTimes = Mapping[OpKind, Spread]
"""Of one stage."""


def time_ops(
    runs: Sequence[StageRun], split: Split, recorder: Recorder, repetitions: Repetitions
) -> list[OpTimes]:
    """Time the ops of all stages.

    The stages take turns within a repetition, so that what disturbs the machine for a while disturbs all.
    On CUDA the host waits for the device once a repetition only: as in training, launches run ahead where the
    device is the slower of the two, and gaps count where it is not.

    Parameters
    ----------
    runs, split
        What to run.
    recorder
        Of the device (:func:`runtime.clock.make_recorder`).
    repetitions
        How often.

    Raises
    ------
    InputError
        When a measurement is not finite.
    """
    taken: dict[tuple[int, OpKind], list[float]] = defaultdict(list)
    for repetition in range(-repetitions.warm_up, repetitions.repeats):
        for run in runs:
            for kind, work in run.ops(split):
                recorder.begin(Op(kind, run.stage.index, 0))
                work()
                recorder.end()
        for op, start_ns, end_ns in recorder.times():
            if repetition >= 0:
                taken[op.stage, op.kind].append((end_ns - start_ns) / NS_PER_S)
    return [
        {
            kind: spread_of(taken[run.stage.index, kind], f"{kind} of stage {run.stage.index}")
            for kind in split.kinds
        }
        for run in runs
    ]
