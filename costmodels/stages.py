"""A stage as the sum of its layers: seconds of F, B and W, and what each holds and frees.

Memory follows what is kept, layer by layer. F leaves behind what the backward needs. B frees what only the
input gradient needed and leaves, for W, the inputs of the linear layers and the gradients of their outputs;
so of the 34sbh + 5as²b of a GPT block, 32sbh stay until W (arXiv 2401.10241, Table 1). Because the backward
walks the layers one by one, what B allocates is the highest that this walk rises above where it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodels.layers import Layer
from costmodels.roofline import Machine
from synth.ops import OpKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """One op of a stage before its time is rounded.

    Parameters
    ----------
    seconds
        Duration.
    alloc_bytes, free_bytes
        Allocated at its start, freed at its end.
    """

    seconds: float
    alloc_bytes: int = 0
    free_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePasses:
    """All ops of a stage: the backward divided and whole."""

    F: PassCost
    B: PassCost
    W: PassCost
    BW: PassCost


def layer_seconds(layer: Layer, machine: Machine) -> float:
    """F, B and W of one layer together."""
    return sum(machine.seconds(layer.works(kind)) for kind in (OpKind.F, OpKind.B, OpKind.W))


def stage_passes(layers: Sequence[Layer], machine: Machine) -> StagePasses:
    """What the ops of a stage of these layers take, hold and free."""

    def seconds(kind: OpKind) -> float:
        return sum(machine.seconds(layer.works(kind)) for layer in layers)

    kept = sum(layer.kept_bytes for layer in layers)
    held_for_w = sum(layer.held_for_w_bytes for layer in layers)
    risen = backward_rise_bytes(layers, divided=True)
    risen_whole = backward_rise_bytes(layers, divided=False)
    return StagePasses(
        F=PassCost(seconds=seconds(OpKind.F), alloc_bytes=kept),
        B=PassCost(seconds=seconds(OpKind.B), alloc_bytes=risen, free_bytes=kept + risen - held_for_w),
        W=PassCost(seconds=seconds(OpKind.W), free_bytes=held_for_w),
        BW=PassCost(seconds=seconds(OpKind.BW), alloc_bytes=risen_whole, free_bytes=kept + risen_whole),
    )


def backward_rise_bytes(layers: Sequence[Layer], *, divided: bool) -> int:
    """How far the backward of one microbatch rises above what F left behind.

    While it is in a layer it holds, beside what F kept, what it computes again. When it leaves the layer,
    what F kept is gone, and a divided backward leaves behind what W needs. The logits, which exist beside the
    loss's softmax, count here: in F they take as much, and under 1F1B the last stage's B follows its F.
    """
    live = highest = 0
    for layer in reversed(layers):
        highest = max(highest, live + layer.backward_extra_bytes)
        live += (layer.held_for_w_bytes if divided else 0) - layer.kept_bytes
        highest = max(highest, live)
    return highest
