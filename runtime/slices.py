"""Sequence slices: a stage computes a microbatch in parts, each attending to what the earlier ones kept.

The slices of a stage share its module. What a slice keeps for later ones (keys and values) goes to them as
leaves of autograd, in which their backwards, which come first, add up gradients; its own backward starts from
those and from the gradient of its output. So no slice's graph reaches into another's.

A module that takes slices has ``forward_slice`` (:class:`Sliceable`). An ``nn.Sequential`` takes them where
all its parts do; layers that treat every position by itself need nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.checkpoint import checkpoint

from runtime.eviction import EvictingStage
from runtime.native_split import backward_inputs
from runtime.routes import Routes
from runtime.shapes import TensorSpec, imagine
from runtime.stage import Division, Stage, input_gradient, shares_memory, taken
from synth.errors import InputError

Kept = tuple[Any, ...]
"""What a slice keeps for later ones: tensors, or more such tuples."""


@runtime_checkable
class Sliceable(Protocol):
    """A module that computes a sequence slice by slice."""

    def forward_slice(self, x: Tensor, past: Sequence[Kept]) -> tuple[Tensor, Kept]:
        """Compute one slice.

        Parameters
        ----------
        x
            Its input, the positions the second dimension.
        past
            What each slice before it kept, the first slice first.

        Returns
        -------
        The output, and what later slices need of this one.
        """


BY_POSITION = (
    *(nn.Linear, nn.Embedding, nn.RMSNorm, nn.Dropout, nn.Identity),
    *(nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Tanh),
)
"""Layers that treat every position by itself, and so do not see whether the sequence is cut."""


def run_slice(module: nn.Module, x: Tensor, past: Sequence[Kept]) -> tuple[Tensor, Kept]:
    """One slice through a module that :func:`check_sliceable` accepts; as :class:`Sliceable` says."""
    if isinstance(module, Sliceable):
        return module.forward_slice(x, past)
    if not isinstance(module, nn.Sequential):
        return module(x), ()
    kept = []
    for number, part in enumerate(module):
        x, own = run_slice(part, x, [whole[number] for whole in past])
        kept.append(own)
    return x, tuple(kept)


def check_sliceable(model_stage: int, module: nn.Module, name: str = "") -> None:
    """Make sure that a module can compute a sequence slice by slice.

    Raises
    ------
    InputError
        Naming the first part of it that cannot.
    """
    if isinstance(module, Sliceable) or _is_by_position(module):
        return
    if not isinstance(module, nn.Sequential):
        what = (
            f"part {name} of stage {model_stage} of the model"
            if name
            else f"stage {model_stage} of the model"
        )
        raise InputError(
            f"{what} has no forward_slice, which sequence slices need: give it one (runtime.slices), or take "
            "a schedule without slices"
        )
    for own, part in module.named_children():
        check_sliceable(model_stage, part, f"{name}.{own}".removeprefix("."))


def _is_by_position(module: nn.Module) -> bool:
    if isinstance(module, nn.LayerNorm):
        return len(module.normalized_shape) == 1
    return isinstance(module, BY_POSITION)


@dataclass(slots=True)
class _KeptSlice:
    """What a stage keeps of one slice of one microbatch from its forward to its backward."""

    x: Tensor
    past: list[Tensor]
    """The leaves that stand for what earlier slices kept."""
    edge: GradientEdge | None
    """Where the output, or the loss, sits in the autograd graph."""
    own: list[tuple[GradientEdge, Tensor]]
    """Where what this slice keeps sits there, with the leaf that stands for it in later ones."""

    def arrived(self, grad: Tensor) -> tuple[list[GradientEdge], list[Tensor]]:
        """What backward starts from."""
        ends = [] if self.edge is None else [(self.edge, grad)]
        ends += [(edge, leaf.grad) for edge, leaf in self.own if leaf.grad is not None]
        return [edge for edge, _ in ends], [given for _, given in ends]


class SliceStage(Stage):
    """One slice of a stage: its module is that of the other slices.

    Parameters
    ----------
    index, module, division, divides, recompute
        As in :class:`Stage`; a slice recomputes the whole stage at once.
    past
        For every microbatch what its slices so far keep, shared by all slices of the stage.
    """

    def __init__(
        self,
        index: int,
        module: nn.Module,
        division: Division | None,
        past: defaultdict[int, list[Kept]],
        *,
        divides: Callable[[int], bool] | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(index, module, division, divides=divides, recompute=recompute)
        self._past = past
        self._kept_slices: dict[int, _KeptSlice] = {}

    def forward(self, microbatch: int, x: Tensor, finish: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """F, as in :class:`Stage`; what later slices need is kept too."""
        x = x.detach().requires_grad_(self.index > 0 and x.is_floating_point())
        past = self._past[microbatch]
        self._turn_to(microbatch)
        with torch.enable_grad():
            y, own = self._run(x, past)
            y = y if finish is None else finish(y)
        leaves = mapped(own, lambda made: _leaf(made, x))
        pairs = zip(flat(own), flat(leaves), strict=True)
        self._kept_slices[microbatch] = _KeptSlice(
            x,
            [leaf for slice_ in past for leaf in flat(slice_) if leaf.requires_grad],
            get_gradient_edge(y) if y.requires_grad else None,
            [(get_gradient_edge(made), leaf) for made, leaf in pairs if made.requires_grad],
        )
        past.append(leaves)
        return y.detach()

    def _run(self, x: Tensor, past: list[Kept]) -> tuple[Tensor, Kept]:
        if not self.recompute:
            return run_slice(self.module, x, past)
        found: tuple[Tensor, Kept] = checkpoint(run_slice, self.module, x, list(past), use_reentrant=False)
        return found

    def backward(self, microbatch: int, grad: Tensor) -> Tensor | None:
        """BW, as in :class:`Stage`; gradients are added to what earlier slices keep."""
        kept = self._take(microbatch)
        edges, grads = kept.arrived(grad)
        self._turn_to(microbatch)
        if edges:
            torch.autograd.backward(edges, grads)
        return input_gradient(kept.x, taken(kept.x))

    def backward_input(self, microbatch: int, grad: Tensor) -> Tensor | None:
        """B, as in :class:`Stage`; gradients are added to what earlier slices keep."""
        kept = self._take(microbatch)
        edges, grads = kept.arrived(grad)
        self._turn_to(microbatch)
        grad_x, work = None, []
        if edges and self.division is Division.NATIVE:
            leaves = [leaf for leaf in (kept.x, *kept.past) if leaf.requires_grad]
            found, rest = backward_inputs(edges, grads, leaves, self.module.parameters())
            for leaf, gradient in zip(leaves, found, strict=True):
                _add(leaf, gradient, grad)
            work = [rest]
        elif edges and self._queue is not None:
            with self._queue.collecting() as work:
                torch.autograd.backward(edges, grads)
        grad_x = taken(kept.x)
        self._weight_work[microbatch] = work
        return input_gradient(kept.x, grad_x)

    def _take(self, microbatch: int) -> _KeptSlice:
        """What was kept; no slice that is still to go back needs what this one keeps for others."""
        self._past[microbatch].pop()
        if not self._past[microbatch]:
            del self._past[microbatch]
        return self._kept_slices.pop(microbatch)


def make_stages(
    routes: Routes,
    modules: Mapping[int, nn.Module],
    rank: int,
    division: Division | None,
    *,
    divides: Callable[[int, int], bool],
    recompute: bool = False,
) -> dict[int, Stage]:
    """A rank's stages, by their number in the schedule.

    Parameters
    ----------
    routes
        What each is of the model.
    modules
        By stage of the model; those that run the same one share it.
    rank, division
        Whose they are, and how their backwards are divided.
    divides
        Whether a stage runs B and W of a microbatch.
    recompute
        As in :class:`Stage`.

    Raises
    ------
    InputError
        When there are slices and a module cannot compute them, or no layer of one defers that is to.
    """
    made: dict[int, Stage] = {}
    own = routes.computing_on(rank)
    pasts: dict[int, defaultdict[int, list[Kept]]] = defaultdict(lambda: defaultdict(list))
    for stage in own:
        model_stage = routes.model_stage(stage)
        module, own_divides = modules[model_stage], partial(divides, stage)
        if routes.num_slices == 1:
            kind = EvictingStage if stage in routes.evicting else Stage
            made[stage] = kind(model_stage, module, division, divides=own_divides, recompute=recompute)
        else:
            check_sliceable(model_stage, module)
            past = pasts[model_stage]
            made[stage] = SliceStage(
                model_stage, module, division, past, divides=own_divides, recompute=recompute
            )
    return made


def slice_output_specs(
    stage: int,
    module: nn.Module,
    given: TensorSpec,
    past: Sequence[Kept],
    device: torch.device,
    autocast: torch.dtype | None,
    whence: str,
) -> tuple[TensorSpec, Kept]:
    """What a slice gives and what it keeps, found without computing it; ``past`` is what earlier ones keep.

    Raises
    ------
    InputError
        When the stage cannot take it.
    """
    found: tuple[TensorSpec, Kept] = imagine(
        stage, _Slice(module), (given, tuple(past)), device, autocast, whence
    )
    return found


class _Slice(nn.Module):
    """A module's ``forward_slice`` as a ``forward``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, past: Sequence[Kept]) -> tuple[Tensor, Kept]:
        return run_slice(self.module, x, past)


def flat(kept: Kept) -> list[Tensor]:
    """The tensors in what a slice keeps."""
    return [tensor for part in kept for tensor in (flat(part) if isinstance(part, tuple) else (part,))]


def mapped(kept: Kept, change: Callable[[Tensor], Tensor]) -> Kept:
    """The same with every tensor changed."""
    return tuple(mapped(part, change) if isinstance(part, tuple) else change(part) for part in kept)


def _leaf(made: Tensor, x: Tensor) -> Tensor:
    """What stands for a tensor in later slices.

    Where a module keeps its very input, that is copied: its buffer is used again once this slice has gone
    back, when weight work of later slices may still need it.
    """
    leaf = made.detach()
    if shares_memory(made, x):
        leaf = leaf.clone()
    return leaf.requires_grad_(made.requires_grad)


def _add(leaf: Tensor, gradient: Tensor | None, received: Tensor) -> None:
    """Add to a leaf's gradient.

    Where that is the very gradient that this slice has received, it is copied: its buffer is used again once
    this slice has gone back, when earlier ones may still have to.
    """
    if gradient is not None:
        own = gradient.clone() if shares_memory(gradient, received) else gradient
        leaf.grad = own if leaf.grad is None else leaf.grad + own
