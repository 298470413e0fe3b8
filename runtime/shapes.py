"""The shape and dtype of what passes between stages, found once, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    stage: int,
    module: nn.Module,
    given: TensorSpec,
    device: torch.device,
    autocast: torch.dtype | None,
    whence: str,
) -> TensorSpec:
    """What a stage makes of such an input, which comes from ``whence``, found without computing it.

    Raises
    ------
    InputError
        When the stage cannot take it, or gives something else than one tensor.
    """
    made = imagine(stage, module, (given,), device, autocast, whence)
    if not isinstance(made, TensorSpec):
        count = len(made) if isinstance(made, tuple) else "no"
        raise InputError(f"stage {stage} gives {count} tensors: give one")
    return made


def imagine(
    stage: int,
    module: nn.Module,
    given: tuple[Any, ...],
    device: torch.device,
    autocast: torch.dtype | None,
    whence: str,
) -> Any:
    """What a module gives, found without computing it.

    Parameters
    ----------
    stage, whence
        What the module is, and whence its first input comes, in words.
    module
        It.
    given
        What it takes; specs stand for tensors, also within tuples.
    device, autocast
        Where and how it computes.

    Returns
    -------
    What it gives, with specs for tensors.

    Raises
    ------
    InputError
        When it cannot take that.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        state: dict[str, Tensor] = {name: fake.from_tensor(t.detach()) for name, t in _state(module)}
        fakes = _each(given, TensorSpec, lambda s: torch.empty(s.shape, dtype=s.dtype, device=device))
        try:
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                made = functional_call(module, state, fakes)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"stage {stage} cannot take what {whence} gives, {given[0]}: {reason}"
            ) from error
        return _each(made, Tensor, TensorSpec.of)


def _each(nested: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The same with everything of a kind changed, also within tuples."""
    if isinstance(nested, tuple):
        return tuple(_each(part, kind, change) for part in nested)
    return change(nested) if isinstance(nested, kind) else nested


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
