"""The batch of a step as its microbatches, and whether they are what the stages were told."""

from __future__ import annotations

from torch import Tensor

from runtime.shapes import TensorSpec
from runtime.world import World
from synth.errors import InputError


def take_batch(batch: Tensor | None, count: int, world: World, microbatch: TensorSpec) -> tuple[Tensor, ...]:
    """The microbatches of a batch, on the device.

    Raises
    ------
    InputError
        When there is none, its rows are no multiple of the microbatches, or those are of another shape.
    """
    inputs = _split("batch", batch, count, world)
    if TensorSpec.of(inputs[0]) != microbatch:
        raise InputError(f"a microbatch of the batch is {TensorSpec.of(inputs[0])}: give {microbatch}")
    return inputs


def take_target(target: Tensor | None, count: int, world: World, positions: int | None) -> tuple[Tensor, ...]:
    """The targets of the microbatches, on the device.

    Raises
    ------
    InputError
        When there is none, or it cannot be cut: into microbatches, or its positions into slices.
    """
    targets = _split("target", target, count, world)
    if positions is not None and targets[0].shape[1:2] != (positions,):
        raise InputError(
            f"a microbatch of the target is {TensorSpec.of(targets[0])}, and its second dimension is to "
            f"be cut into slices as that of the batch is: give {positions} positions"
        )
    return targets


def _split(name: str, whole: Tensor | None, count: int, world: World) -> tuple[Tensor, ...]:
    if whole is None:
        raise InputError(f"rank {world.rank} is given no {name}, which its stage needs: give it")
    if whole.ndim == 0 or whole.shape[0] == 0 or whole.shape[0] % count:
        rows = whole.shape[0] if whole.ndim else 0
        raise InputError(f"the {name} has {rows} rows: give a multiple of the {count} microbatches")
    return tuple(whole.to(world.device).split(whole.shape[0] // count))
