"""Parameters of a stage laid end to end, so that one operation between replicas serves them all."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn


class Flat:
    """The trained parameters of one dtype laid end to end, and room for as many gradients.

    Parameters
    ----------
    parameters
        By their number in the module.
    shares
        Its length is a multiple of this; what is beyond the parameters stays zero.
    """

    def __init__(self, parameters: dict[int, nn.Parameter], shares: int) -> None:
        self.numbers, self._parameters = list(parameters), list(parameters.values())
        self._ends = list(accumulate(parameter.numel() for parameter in self._parameters))
        first = self._parameters[0]
        self.gradients = torch.zeros(
            -(-self._ends[-1] // shares) * shares, dtype=first.dtype, device=first.device
        )
        self._views = self.cut(self.gradients)

    def clear_gradients(self) -> None:
        """Zero, and where parameters look for theirs."""
        self.gradients.zero_()
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    def share_weights(self, number: int, shares: int) -> None:
        """Lay the weights flat too, and set one share of them apart for an optimizer."""
        self.weights = torch.zeros_like(self.gradients)
        for parameter, view in zip(self._parameters, self.cut(self.weights), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        size = self.weights.numel() // shares
        self._own = slice(number * size, (number + 1) * size)
        self.share = nn.Parameter(self.weights[self._own])
        self.share.grad = torch.zeros_like(self.share)

    def cut(self, flat: Tensor) -> list[Tensor]:
        """A flat tensor's parts, each in the shape of its parameter."""
        starts = [0, *self._ends]
        return [
            flat[start:end].view_as(parameter)
            for start, end, parameter in zip(starts, self._ends, self._parameters, strict=False)
        ]

    def own_share(self, parts: list[Any]) -> Any:
        """Of one entry of an optimizer's state by parameters, what belongs to the share.

        A parameter of which there is none (it never had a gradient) counts as zeros.
        """
        given = [part for part in parts if part is not None]
        like = [p.shape for p, part in zip(self._parameters, parts, strict=True) if part is not None]
        if not isinstance(given[0], Tensor) or [part.shape for part in given] != like:
            return given[0]
        whole = torch.zeros_like(self.weights, dtype=given[0].dtype)
        for view, part in zip(self.cut(whole), parts, strict=True):
            if part is not None:
                view.copy_(part)
        return whole[self._own].clone()


def lay_out(module: nn.Module, shares: int) -> list[Flat]:
    """The trained parameters of a module, one :class:`Flat` per dtype."""
    by_dtype: dict[torch.dtype, dict[int, nn.Parameter]] = defaultdict(dict)
    for number, parameter in enumerate(module.parameters()):
        if parameter.requires_grad:
            by_dtype[parameter.dtype][number] = parameter
    return [Flat(parameters, shares) for parameters in by_dtype.values()]
