"""The gradients of one stage: cleared before a step, exchanged between replicas as soon as the last is in."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from enum import StrEnum
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist

from runtime.flat import Flat, lay_out
from synth.errors import InputError

_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""PyTorch renames both."""


class Exchange(StrEnum):
    """What replicas do with their gradients."""

    ALL_REDUCE = "all-reduce"
    """Every replica gets the sum of all, and updates every parameter."""
    REDUCE_SCATTER = "reduce-scatter"
    """Every replica gets the sum of a share, updates that share and gathers the others' (ZeRO-1, arXiv
    1910.02054, section 5.1): its optimizer keeps the state of that share alone."""


class Gradients(Protocol):
    """A stage's gradients, and what an optimizer has to do with them."""

    def clear(self) -> None:
        """Forget the last step's gradients."""

    def reduce(self) -> list[dist.Work]:
        """Start to sum over the replicas what has been added since :meth:`clear`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What this replica's optimizer updates."""

    def gather(self) -> list[dist.Work]:
        """Start to bring together what the replicas' optimizers have updated."""

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of all replicas' optimizers, by the module's parameters; all of them call it."""

    def load_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Give an optimizer its part of such a state."""


def make_gradients(module: nn.Module, replicas: dist.ProcessGroup | None, exchange: Exchange) -> Gradients:
    """The gradients of a stage.

    Parameters
    ----------
    module
        The stage's module.
    replicas
        The group of this rank's copies, None without any; then there is nothing to exchange.
    exchange
        What they do.
    """
    if replicas is not None and exchange is Exchange.REDUCE_SCATTER:
        return SharedGradients(module, replicas)
    return WholeGradients(module, replicas)


class WholeGradients:
    """Gradients of which every replica gets all.

    With replicas they are views into one flat tensor per dtype, which is summed in place by an asynchronous
    all-reduce, so that it runs beside what its rank still has to do.
    """

    def __init__(self, module: nn.Module, replicas: dist.ProcessGroup | None) -> None:
        self._module, self._replicas = module, replicas
        self._flat = [] if replicas is None else lay_out(module, shares=1)

    def clear(self) -> None:
        """Forget the last step's gradients."""
        for parameter in self._module.parameters():
            parameter.grad = None
        for flat in self._flat:
            flat.clear_gradients()

    def reduce(self) -> list[dist.Work]:
        """Start to sum over the replicas what has been added since :meth:`clear`."""
        return [
            _begun(dist.all_reduce(flat.gradients, group=self._replicas, async_op=True))
            for flat in self._flat
        ]

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of the module's."""
        return self._module.parameters()

    def gather(self) -> list[dist.Work]:
        """Every replica has updated everything."""
        return []

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer's own."""
        return optimizer.state_dict()

    def load_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """All of it."""
        optimizer.load_state_dict(state)


class SharedGradients:
    """Gradients and parameters of which every replica has a share.

    Both are views into one flat tensor per dtype, cut into as many equal shares as there are replicas. An
    optimizer that treats every number by itself (SGD, Adam, AdamW) does with a share what it would do with
    whole parameters.
    """

    def __init__(self, module: nn.Module, replicas: dist.ProcessGroup) -> None:
        self._module, self._replicas = module, replicas
        number, shares = dist.get_rank(replicas), dist.get_world_size(replicas)
        self._flat = lay_out(module, shares)
        for flat in self._flat:
            flat.share_weights(number, shares)

    def clear(self) -> None:
        """Forget the last step's gradients."""
        for flat in self._flat:
            flat.clear_gradients()

    def reduce(self) -> list[dist.Work]:
        """Start to sum over the replicas what has been added since :meth:`clear`, each its share."""
        return [
            _begun(_scatter(flat.share.grad, flat.gradients, group=self._replicas, async_op=True))
            for flat in self._flat
        ]

    def parameters(self) -> Iterator[nn.Parameter]:
        """This replica's shares, one per dtype."""
        return (flat.share for flat in self._flat)

    def gather(self) -> list[dist.Work]:
        """Start to fetch the other replicas' shares of the parameters."""
        return [
            _begun(_gather(flat.weights, flat.share.detach(), group=self._replicas, async_op=True))
            for flat in self._flat
        ]

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of all replicas' optimizers, by the module's parameters; all of them call it."""
        own = optimizer.state_dict()
        whole: dict[int, dict[str, Any]] = {}
        for number, flat in enumerate(self._flat):
            for key, value in own["state"].get(number, {}).items():
                parts = self._parts(flat, value)
                for parameter, part in zip(flat.numbers, parts, strict=True):
                    whole.setdefault(parameter, {})[key] = part
        return {"state": whole, "param_groups": [_only_group(own) | {"params": self._numbers}]}

    def load_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Give an optimizer its share of a state by the module's parameters."""
        own: dict[int, dict[str, Any]] = {}
        for number, flat in enumerate(self._flat):
            held = [state["state"].get(parameter, {}) for parameter in flat.numbers]
            keys = {key for each in held for key in each}
            own[number] = {key: flat.own_share([each.get(key) for each in held]) for key in keys}
        numbers = list(range(len(self._flat)))
        optimizer.load_state_dict({"state": own, "param_groups": [_only_group(state) | {"params": numbers}]})

    @property
    def _numbers(self) -> list[int]:
        return list(range(len(list(self._module.parameters()))))

    def _parts(self, flat: Flat, value: Any) -> list[Any]:
        """What of one entry of the optimizer's state belongs to each parameter."""
        if not isinstance(value, Tensor) or value.shape != flat.share.shape:
            return [deepcopy(value) for _ in flat.numbers]  # optimizers count steps in place
        whole = torch.empty_like(flat.weights, dtype=value.dtype)
        _gather(whole, value, group=self._replicas)
        return [part.clone() for part in flat.cut(whole)]


def _begun(work: dist.Work | None) -> dist.Work:
    assert work is not None, "this process is in the group"
    return work


def _only_group(state: dict[str, Any]) -> dict[str, Any]:
    groups = state["param_groups"]
    if len(groups) != 1:
        raise InputError(
            f"the optimizer has {len(groups)} groups of parameters: give one where replicas share the update"
        )
    group: dict[str, Any] = groups[0]
    return group
