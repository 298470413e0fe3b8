"""The stages of a model, each ready to run its ops on its own: with an input and a gradient of its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from costmodels.measured.factories import Loss, Model, first_line
from costmodels.measured.profiles import Split
from runtime.deferred import defer_weights
from runtime.stage import Division, Stage
from synth.errors import InputError
from synth.ops import OpKind

_DIVIDED, _WHOLE = 0, -1
"""Microbatches: one whose backward is divided, and the one whose backward is not."""


def is_divided(microbatch: int) -> bool:
    """Of which microbatches a stage is to divide the backward, as the runtime tells it."""
    return microbatch != _WHOLE


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage and what it is run on.

    Parameters
    ----------
    stage
        Its module and ops.
    layers
        Their names.
    x
        The input of one microbatch.
    grad
        The gradient of the output, or of the loss.
    loss
        Behind the last stage, where there is one.
    is_last
        Whether it is the last stage.
    """

    stage: Stage
    layers: tuple[str, ...]
    x: Tensor
    grad: Tensor
    loss: Loss | None = None
    is_last: bool = False

    def ops(self, split: Split) -> list[tuple[OpKind, Callable[[], None]]]:
        """What to run, in order: each backward behind a forward of its own.

        Every op takes a copy of what it would receive, which is part of its time, and drops what it would
        send.
        """
        works: list[tuple[OpKind, Callable[[], None]]]
        works = [(OpKind.F, partial(self._f, _WHOLE)), (OpKind.BW, self._bw)]
        if split is not Split.NONE:
            divided = partial(self._f, _DIVIDED)
            works = [(OpKind.F, divided), (OpKind.B, self._b), (OpKind.W, self._w), *works]
        return [(kind, partial(self._run, kind, work)) for kind, work in works]

    def _run(self, kind: OpKind, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            first, last = self.layers[0], self.layers[-1]
            which = f"layer {first}" if first == last else f"layers {first} to {last}"
            raise InputError(
                f"{kind} of {which} fails: {first_line(error)}; correct what is wrong, or give smaller layers"
            ) from error

    def _f(self, microbatch: int) -> None:
        self.stage.forward(microbatch, self.x.clone(), self.loss)

    def _b(self) -> None:
        self.stage.backward_input(_DIVIDED, self.grad.clone())

    def _w(self) -> None:
        self.stage.backward_weights(_DIVIDED)

    def _bw(self) -> None:
        self.stage.backward(_WHOLE, self.grad.clone())

    @property
    def division(self) -> Division:
        """How its backward is divided, if it is."""
        return self.stage.division

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights of the stage, each once."""
        return list(self.stage.module.parameters())

    @property
    def sent_bytes(self) -> int:
        """Bytes of what goes on to the next stage: nothing behind the last."""
        return 0 if self.is_last else self.grad.numel() * self.grad.element_size()


def stage_runs(model: Model, counts: Sequence[int], split: Split, device: torch.device) -> list[StageRun]:
    """Cut a model into stages and find each one's input by running those before it once.

    Parameters
    ----------
    model
        Moved to the device in place; under ``deferred`` its layers become deferring ones in place.
    counts
        Layers of every stage.
    split
        How backwards are divided; a stage in which no layer can defer is divided natively.
    device
        Where to run.

    Raises
    ------
    InputError
        When a layer fails, or gives something else than one tensor that a gradient can go back through.
    """
    x = model.sample.to(device)
    runs: list[StageRun] = []
    first = 0
    for index, count in enumerate(counts):
        is_last = index == len(counts) - 1
        module = _on_device(nn.Sequential(*model.layers[first : first + count]), device)
        if split is Split.DEFERRED:
            defer_weights(module)
        division = Division.NATIVE if split is Split.NATIVE else None
        stage = Stage(index, module, division, divides=is_divided)
        y = _through(module, x, model, first)
        loss = model.loss if is_last else None
        grad = torch.ones_like(y) if loss is None else _gradient_of_loss(loss, y, model)
        runs.append(StageRun(stage, model.names[first : first + count], x, grad, loss, is_last))
        x, first = y, first + count
    return runs


def _on_device(module: nn.Sequential, device: torch.device) -> nn.Sequential:
    """The module moved where it is elsewhere: weights without numbers cannot move."""
    tensors = [*module.parameters(), *module.buffers()]
    return module if all(tensor.device == device for tensor in tensors) else module.to(device)


def _through(module: nn.Sequential, x: Tensor, model: Model, first: int) -> Tensor:
    """The output of a stage, layer by layer, so that what goes wrong is said of a layer."""
    with torch.no_grad():
        for offset, layer in enumerate(module):
            name = model.names[first + offset]
            try:
                x = layer(x)
            except Exception as error:
                shape = f"({', '.join(map(str, x.shape))})"
                raise InputError(
                    f"layer {name} of {model.name} fails on an input of {shape}: {first_line(error)}; "
                    "each layer takes what the one before gives"
                ) from error
            if not isinstance(x, Tensor):
                raise InputError(
                    f"layer {name} of {model.name} gives something else than one tensor: give one"
                )
    if not x.is_floating_point():
        raise InputError(
            f"layer {name} of {model.name} gives no floating numbers: gradients go back through it"
        )
    return x.detach()


def _gradient_of_loss(loss: Loss, y: Tensor, model: Model) -> Tensor:
    try:
        value = loss(y)
    except Exception as error:
        raise InputError(
            f"the loss of {model.name} fails: {first_line(error)}; it takes the last output"
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InputError(
            f"the loss of {model.name} gives something else than one number: give a mean or a sum"
        )
    return torch.ones_like(value)
