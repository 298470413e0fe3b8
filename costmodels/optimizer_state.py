"""Static bytes: weights, accumulated gradients and the state of Adam, with what replicas share of them."""

from __future__ import annotations

from dataclasses import dataclass

from costmodels.layers import Layer
from costmodels.training import Precision, Training

MOMENT_BYTES = 8
"""Adam's two moments, in full precision."""
MASTER_BYTES = 4
"""The full-precision weights beside half-precision ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticBytes:
    """What a GPU holds throughout training.

    Parameters
    ----------
    weights, gradients, optimizer
        Bytes of each.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer

    def __add__(self, other: StaticBytes) -> StaticBytes:
        return StaticBytes(
            weights=self.weights + other.weights,
            gradients=self.gradients + other.gradients,
            optimizer=self.optimizer + other.optimizer,
        )


def static_bytes(layer: Layer, training: Training) -> StaticBytes:
    """The static bytes of one layer on one GPU under Adam in mixed precision.

    2 + 2 + 12 bytes per weight in half precision where gradients have it too, 2 + 4 + 12 where they are
    accumulated in full precision (arXiv 1910.02054, section 3.1). ZeRO-1 spreads the 12, ZeRO-2 the gradients
    too, over the replicas (section 5); of experts, over as many fewer as share the experts. Every version of
    the weights takes the same, every buffer of gradients too; there is one state of the optimizer.
    """
    replicas = training.data_parallel
    common = _spread(layer.parameters, replicas, training)
    return common + _spread(layer.expert_parameters, replicas // training.expert_parallel, training)


def _spread(parameters: int, replicas: int, training: Training) -> StaticBytes:
    master = 0 if training.precision is Precision.FP32 else MASTER_BYTES
    optimizer = parameters * (MOMENT_BYTES + master)
    gradients = parameters * training.gradient_bytes * training.gradient_buffers
    return StaticBytes(
        weights=parameters * training.number_bytes * training.weight_versions,
        gradients=-(-gradients // replicas) if training.zero_stage >= 2 else gradients,
        optimizer=-(-optimizer // replicas) if training.zero_stage >= 1 else optimizer,
    )
