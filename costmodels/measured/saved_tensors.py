"""What autograd saves in a forward, counted by storage."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from costmodels.measured.stage_runs import StageRun


class SavedStorages:
    """Counts the distinct storages that are saved while it is active.

    Views of one storage count once, as large as all of it; weights and buffers do not count. What was there
    before, such as the targets of a loss, does: it is saved, though not allocated. Of what runs under
    activation checkpointing only the input is seen, which is all that is kept.

    Parameters
    ----------
    excluded
        Tensors whose storages live anyway: weights and buffers.
    """

    def __init__(self, excluded: Iterable[Tensor]) -> None:
        self._excluded = {tensor.untyped_storage()._cdata for tensor in excluded}
        self._kept: dict[int, torch.UntypedStorage] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def add(self, tensor: Tensor) -> None:
        """Count a tensor that is kept without being saved."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._excluded:
            # Held until the count is taken, so that no later storage has its address.
            self._kept[storage._cdata] = storage

    @property
    def bytes(self) -> int:
        """All of them."""
        return sum(storage.nbytes() for storage in self._kept.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        self.add(tensor)
        return tensor

    def __enter__(self) -> SavedStorages:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()


def _unpack(tensor: Tensor) -> Tensor:
    return tensor


def saved_bytes(run: StageRun) -> int:
    """What a stage keeps of one microbatch after F: its input, and what autograd saved beside it.

    Its output is sent, and counts only where it is saved too.
    """
    x = run.x.clone()
    module = run.stage.module
    with SavedStorages([*module.parameters(), *module.buffers()]) as saved:
        run.stage.forward(0, x, run.loss)
    saved.add(x)
    size = saved.bytes
    run.stage.backward(0, run.grad)
    return size
