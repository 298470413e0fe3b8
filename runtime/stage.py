"""One stage on its rank: its module, what it keeps for every microbatch, and its four kinds of op."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from runtime.deferred import WeightWork, attach_queue
from runtime.native_split import backward_input
from runtime.recomputation import run_recomputing
from synth.errors import InputError


class Division(StrEnum):
    """How B and W divide a backward."""

    DEFERRED = "deferred"
    """The stage's deferring layers put off their weight gradients (:mod:`runtime.deferred`)."""
    NATIVE = "native"
    """Its autograd graph is cut (:mod:`runtime.native_split`)."""


@dataclass(slots=True)
class _Kept:
    """What a stage keeps of one microbatch from its forward to its backward."""

    x: Tensor
    edge: GradientEdge | None
    """Where the output, or the loss, sits in the autograd graph; the output itself is not kept."""


class Stage:
    """A module and its ops.

    Parameters
    ----------
    index
        Its place in the model.
    module
        From one tensor to one tensor, the microbatch's rows the first dimension of both.
    division
        How its backward is divided; by default ``deferred`` where the module has a deferring layer.
    divides
        Of which microbatches it runs B and W, None for all; of the others deferring layers are torch's own,
        which are quicker.
    recompute
        Whether it keeps its blocks' inputs alone (:mod:`runtime.recomputation`).

    Raises
    ------
    InputError
        When it is to be divided by deferring and no layer of it defers.
    """

    def __init__(
        self,
        index: int,
        module: nn.Module,
        division: Division | None = None,
        *,
        divides: Callable[[int], bool] | None = None,
        recompute: bool = False,
    ) -> None:
        self.index, self.module, self.recompute = index, module, recompute
        self._queue = attach_queue(module)
        if division is Division.DEFERRED and self._queue is None:
            raise InputError(
                f"no layer of stage {index} defers: apply defer_weights to it, or divide natively"
            )
        self.division = division or (Division.NATIVE if self._queue is None else Division.DEFERRED)
        self._divides = divides
        self._kept: dict[int, _Kept] = {}
        self._weight_work: dict[int, list[WeightWork]] = {}

    def forward(self, microbatch: int, x: Tensor, finish: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """F: compute and keep what the backward needs.

        Parameters
        ----------
        microbatch
            Its index.
        x
            The input; a gradient comes back for it if it is floating and this is not the first stage.
        finish
            From the output to the loss, on the last stage.

        Returns
        -------
        The output, or the loss, outside of any autograd graph.
        """
        x = x.detach().requires_grad_(self.index > 0 and x.is_floating_point())
        self._turn_to(microbatch)
        with torch.enable_grad():
            y: Tensor = run_recomputing(self.module, x) if self.recompute else self.module(x)
            y = y if finish is None else finish(y)
        self._kept[microbatch] = _Kept(x, get_gradient_edge(y) if y.requires_grad else None)
        return y.detach()

    def backward(self, microbatch: int, grad: Tensor) -> Tensor | None:
        """BW: the gradient of the input is returned, that of the weights added to ``.grad``.

        ``grad`` is that of the output, or on the last stage what the loss counts.
        """
        kept = self._kept.pop(microbatch)
        self._turn_to(microbatch)
        if kept.edge is not None:
            torch.autograd.backward(kept.edge, grad)
        return input_gradient(kept.x, taken(kept.x))

    def backward_input(self, microbatch: int, grad: Tensor) -> Tensor | None:
        """B: the gradient of the input is returned, that of the weights left for W."""
        kept = self._kept.pop(microbatch)
        self._turn_to(microbatch)
        grad_x, work = None, []
        if kept.edge is not None and self.division is Division.NATIVE:
            x = kept.x if kept.x.requires_grad else None
            grad_x, rest = backward_input(kept.edge, grad, x, self.module.parameters())
            work = [rest]
        elif kept.edge is not None and self._queue is not None:
            with self._queue.collecting() as work:
                torch.autograd.backward(kept.edge, grad)
            grad_x = taken(kept.x)
        self._weight_work[microbatch] = work
        return input_gradient(kept.x, grad_x)

    def backward_weights(self, microbatch: int) -> None:
        """W: what B has left is added to ``.grad``."""
        work = self._weight_work.pop(microbatch)
        while work:
            work.pop(0)()  # what it holds is freed as it goes

    def _turn_to(self, microbatch: int) -> None:
        """Let the deferring layers be what a microbatch needs, also where they run again in its backward."""
        if self._queue is not None:
            self._queue.serves = self._divides is None or self._divides(microbatch)


def check_recomputing(stages: Mapping[int, Stage], divided: Collection[int]) -> None:
    """Make sure that no stage among those that divide recomputes once for every layer.

    Raises
    ------
    InputError
        Naming one that would.
    """
    for stage, one in stages.items():
        is_cut = stage in divided and one.division is Division.NATIVE
        if one.recompute and is_cut and any(weight.requires_grad for weight in one.module.parameters()):
            raise InputError(
                f"stage {one.index} of the model is to recompute and to divide its backward natively, "
                "which would recompute once for every layer: apply defer_weights to it, or take a "
                "schedule that leaves BW whole"
            )


def shares_memory(a: Tensor, b: Tensor) -> bool:
    """Whether writing one of two tensors may change the other."""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def taken(x: Tensor) -> Tensor | None:
    """The gradient of an input, which then holds it no more: what waits for W may hold the input."""
    grad, x.grad = x.grad, None
    return grad


def input_gradient(x: Tensor, grad: Tensor | None) -> Tensor | None:
    """Zeros where the output does not depend on the input, None where none is wanted."""
    return torch.zeros_like(x) if x.requires_grad and grad is None else grad
