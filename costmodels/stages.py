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
from costmodels.training import Recompute
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer on a machine: what a stage of such layers is the sum of.

    Parameters
    ----------
    forward_s, input_gradient_s, weight_gradient_s, backward_s
        Seconds of F, B, W and BW.
    kept_bytes, held_for_w_bytes, backward_extra_bytes
        As the layer's.
    """

    forward_s: float
    input_gradient_s: float
    weight_gradient_s: float
    backward_s: float
    kept_bytes: int
    held_for_w_bytes: int
    backward_extra_bytes: int

    @property
    def seconds(self) -> float:
        """F, B and W together."""
        return self.forward_s + self.input_gradient_s + self.weight_gradient_s


def layer_costs(layers: Sequence[Layer], machine: Machine) -> list[LayerCost]:
    """The cost of every layer; those that share operations, as blocks of one shape do, are costed once."""
    known: dict[tuple[int, int, Recompute, bool], LayerCost] = {}

    def cost(layer: Layer) -> LayerCost:
        alike = id(layer.operations), layer.input_bytes, layer.recompute, layer.is_block
        if alike not in known:
            known[alike] = _layer_cost(layer, machine)
        return known[alike]

    return [cost(layer) for layer in layers]


def _layer_cost(layer: Layer, machine: Machine) -> LayerCost:
    return LayerCost(
        forward_s=machine.seconds(layer.works(OpKind.F)),
        input_gradient_s=machine.seconds(layer.works(OpKind.B)),
        weight_gradient_s=machine.seconds(layer.works(OpKind.W)),
        backward_s=machine.seconds(layer.works(OpKind.BW)),
        kept_bytes=layer.kept_bytes,
        held_for_w_bytes=layer.held_for_w_bytes,
        backward_extra_bytes=layer.backward_extra_bytes,
    )


def stage_passes(layers: Sequence[Layer], machine: Machine) -> StagePasses:
    """What the ops of a stage of these layers take, hold and free."""
    return passes_of(layer_costs(layers, machine))


def passes_of(layers: Sequence[LayerCost]) -> StagePasses:
    """What the ops of a stage of layers with these costs take, hold and free."""
    kept = sum(layer.kept_bytes for layer in layers)
    held_for_w = sum(layer.held_for_w_bytes for layer in layers)
    risen = backward_rise_bytes(layers, divided=True)
    risen_whole = backward_rise_bytes(layers, divided=False)
    return StagePasses(
        F=PassCost(seconds=sum(layer.forward_s for layer in layers), alloc_bytes=kept),
        B=PassCost(
            seconds=sum(layer.input_gradient_s for layer in layers),
            alloc_bytes=risen,
            free_bytes=kept + risen - held_for_w,
        ),
        W=PassCost(seconds=sum(layer.weight_gradient_s for layer in layers), free_bytes=held_for_w),
        BW=PassCost(
            seconds=sum(layer.backward_s for layer in layers),
            alloc_bytes=risen_whole,
            free_bytes=kept + risen_whole,
        ),
    )


def backward_rise_bytes(layers: Sequence[Layer | LayerCost], *, divided: bool) -> int:
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
