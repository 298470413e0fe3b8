"""The weights of a stage in all the versions that microbatches under way need, and no more.

Version 0 is what a stage starts with; every update makes the next one. The module's parameters remain the
same objects, so optimizers, hooks and names hold: before an op they are pointed at the version of its
microbatch, which moves no data. An update copies the newest version into memory that no microbatch needs any
more and lets the optimizer work there in place; where nobody needs the newest any more, it works on that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import StrEnum

import torch
from torch import Tensor, nn

from synth.errors import InputError

_Weights = tuple[Tensor, ...]


class WeightPolicy(StrEnum):
    """Which version of a stage's weights a microbatch uses, and when the next one is made."""

    FLUSH = "flush"
    """The newest, once the batch before has been through: no delay, and an idle pipeline between batches."""
    DOUBLE_BUFFERED = "2bw"
    """Version max(t - 1, 0) for batch t; an update per batch, two versions (arXiv 2006.09503, section 3)."""
    STASHED = "stash"
    """The newest at its forward, kept for its backward; an update per microbatch (arXiv 1806.03377)."""

    def unit(self, batch_microbatches: int) -> int:
        """After how many microbatches a stage updates its weights."""
        return 1 if self is WeightPolicy.STASHED else batch_microbatches


class Versions:
    """The versions of one stage's weights that are in memory.

    Parameters
    ----------
    module
        The stage's module; its parameters are version 0.
    """

    def __init__(self, module: nn.Module) -> None:
        self._names = tuple(name for name, _ in module.named_parameters())
        self._parameters = tuple(module.parameters())
        self._alive: dict[int, _Weights] = {0: tuple(parameter.data for parameter in self._parameters)}
        self._spare: deque[_Weights] = deque()
        self._shown = self.newest = 0
        self.most = 1
        """How many sets of weights, with those kept to be written again, have been in memory at once."""

    @property
    def oldest(self) -> int:
        """The oldest version in memory."""
        return min(self._alive)

    def use(self, version: int) -> None:
        """Point the module's parameters at a version, which is in memory."""
        if version != self._shown:
            for parameter, data in zip(self._parameters, self._alive[version], strict=True):
                parameter.data = data
            self._shown = version

    def advance(self, optimizer: torch.optim.Optimizer, needed: int) -> None:
        """Make the next version from the newest and the gradients; the parameters then are that.

        Parameters
        ----------
        optimizer
            Of the stage's parameters.
        needed
            The oldest version that a microbatch under way, or one to come, still needs.
        """
        for version in [version for version in self._alive if version < min(needed, self.newest)]:
            self._spare.append(self._alive.pop(version))
        newest = self._alive[self.newest]
        if needed > self.newest:
            fresh = self._alive.pop(self.newest)
        else:
            fresh = self._spare.popleft() if self._spare else tuple(map(torch.empty_like, newest))
            for copy, weight in zip(fresh, newest, strict=True):
                copy.copy_(weight)
        self.newest += 1
        self._alive[self.newest] = fresh
        self.most = max(self.most, len(self._alive) + len(self._spare))
        self.use(self.newest)
        # Autograd counts writes to a parameter, to refuse a backward through weights that are no longer those
        # of its forward. That backward will find its own version in its place, untouched.
        with torch.autograd._unsafe_preserve_version_counter(self._parameters):
            optimizer.step()

    def forget_older(self) -> None:
        """Keep the newest version only, and show it."""
        self.use(self.newest)
        self._alive = {self.newest: self._alive[self.newest]}
        self._spare.clear()

    def older(self) -> dict[str, Tensor]:
        """The weights before the newest, by name, where the next batch needs them; empty where none does."""
        weights = self._alive.get(self.newest - 1, ())
        return dict(zip(self._names, weights, strict=True)) if weights else {}

    def restore(self, older: Mapping[str, Tensor]) -> None:
        """Take the parameters, into which weights were loaded, as newest and such weights as those before.

        Raises
        ------
        InputError
            When they are not of this module.
        """
        self.forget_older()
        if older:
            fits = [*older] == [*self._names] and all(
                older[name].shape == parameter.shape
                for name, parameter in zip(self._names, self._parameters, strict=True)
            )
            if not fits:
                raise InputError("the older weights of the checkpoint are of another model: give that run's")
            self._alive[self.newest - 1] = tuple(
                older[name].to(parameter)
                for name, parameter in zip(self._names, self._parameters, strict=True)
            )
            self.most = max(self.most, 2)
