"""The shape and dtype of what passes between stages, found once, before the first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from synth.errors import InputError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is like.

    Parameters
    ----------
    shape
        Of one microbatch, whose rows are the first dimension.
    dtype
        Floating where gradients go back.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        """The shape and dtype of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.shape))}) of {str(self.dtype).removeprefix('torch.')}"


def output_spec(
    stage: int, module: nn.Module, given: TensorSpec, device: torch.device, autocast: torch.dtype | None
) -> TensorSpec:
    """What a stage makes of such an input, found without computing it.

    Raises
    ------
    InputError
        When the stage cannot take it, or gives something else than one tensor.
    """
    whence = "the batch" if stage == 0 else f"stage {stage - 1}"
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        state: dict[str, Tensor] = {name: fake.from_tensor(t.detach()) for name, t in _state(module)}
        x = torch.empty(given.shape, dtype=given.dtype, device=device)
        try:
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                y = functional_call(module, state, (x,))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"stage {stage} cannot take what {whence} gives, {given}: {reason}") from error
    if not isinstance(y, Tensor):
        raise InputError(f"stage {stage} gives {len(y) if isinstance(y, tuple) else 'no'} tensors: give one")
    return TensorSpec.of(y)


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
