"""The gradients of one stage: cleared before a step, summed over replicas as soon as the last is in."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Gradients:
    """A stage's gradients.

    With replicas they are views into one flat tensor per dtype, which is summed in place by an asynchronous
    all-reduce, so that it runs beside what its rank still has to do.

    Parameters
    ----------
    module
        The stage's module.
    replicas
        The group of this rank's copies, None without any.
    """

    def __init__(self, module: nn.Module, replicas: dist.ProcessGroup | None) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._replicas = replicas
        self._flat: list[Tensor] = []
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        if replicas is not None:
            self._lay_out()

    def clear(self) -> None:
        """Forget the last step's gradients."""
        for parameter in self._parameters:
            parameter.grad = None
        for flat in self._flat:
            flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def reduce(self) -> list[dist.Work]:
        """Start to sum over the replicas what has been added since :meth:`clear`."""
        started = [dist.all_reduce(flat, group=self._replicas, async_op=True) for flat in self._flat]
        return [work for work in started if work is not None]

    def _lay_out(self) -> None:
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
        for parameter in self._parameters:
            by_dtype[parameter.dtype].append(parameter)
        for dtype, parameters in by_dtype.items():
            sizes = [parameter.numel() for parameter in parameters]
            flat = torch.zeros(sum(sizes), dtype=dtype, device=parameters[0].device)
            self._flat.append(flat)
            for parameter, part in zip(parameters, flat.split(sizes), strict=True):
                self._views.append((parameter, part.view_as(parameter)))
