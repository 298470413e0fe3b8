"""Stages whose activations other ranks store: what F keeps leaves behind it and is back for the backward.

Whatever autograd keeps of such a microbatch's forward is copied, as it comes up, into one buffer, each
storage once; where nothing else holds the original it is gone at once. The buffer leaves behind F, waits on
the other rank, and comes back before the backward, which finds in it all that was kept, bit for bit. So one
message takes it away and one brings it back (the idea: BPipe, Kim et al., ICML 2023). The module's parameters
and buffers and the batch stay, for they would anyway; so do what a loss keeps, and what an autograd function
keeps without telling autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from runtime.randomness import seeded
from runtime.shapes import TensorSpec
from runtime.stage import Stage
from runtime.trials import unchanged

_ALIGNMENT = 64
"""Bytes; kernels may sum in another order where a tensor begins elsewhere."""


class _Laid(NamedTuple):
    """Where in the buffer a tensor is, and how it lies there."""

    start_bytes: int | torch.SymInt
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]


class _Shelf:
    """What one microbatch's forward keeps for its backward, in one buffer.

    Parameters
    ----------
    staying
        The addresses of storages that stay.
    given
        The address of the input's, whose memory is used again once F is over.
    buffer
        Where the others are laid, bytes; what does not fit stays. None to see only how many they are.
    """

    def __init__(self, staying: frozenset[int], given: int, buffer: Tensor | None) -> None:
        self._staying, self._given = staying, given
        self.buffer, self._measures = buffer, buffer is None
        self._starts: dict[tuple[int, int], int] = {}  # a storage may change and be kept again
        self._seen: list[StorageWeakRef] = []  # so that no other storage gets the name of one that is gone
        self.size_bytes = 0

    def pack(self, tensor: Tensor) -> Tensor | _Laid:
        """What autograd keeps in place of a tensor."""
        if not self._goes(tensor):
            return self.keep(tensor)
        storage = StorageWeakRef(tensor.untyped_storage())
        place = storage.cdata, tensor._version
        start = self._starts.get(place)
        if start is None:
            start = self._lay(tensor.untyped_storage())
            if start is None:
                return self.keep(tensor)
            self._starts[place] = start
            self._seen.append(storage)
        if self._measures:
            return tensor.detach()
        begins = start + tensor.storage_offset() * tensor.element_size()
        return _Laid(begins, tensor.dtype, tensor.shape, tensor.stride())

    def keep(self, tensor: Tensor) -> Tensor:
        """A tensor that stays, outside of its graph: an output that keeps itself would never go."""
        is_given = _address(tensor) == self._given and self._given not in self._staying
        return tensor.detach().clone() if is_given else tensor.detach()

    def unpack(self, kept: Tensor | _Laid) -> Tensor:
        """The tensor again."""
        if isinstance(kept, Tensor):
            return kept
        assert self.buffer is not None, "it is back before the backward"
        tensor = torch.empty(0, dtype=kept.dtype, device=self.buffer.device)
        offset = kept.start_bytes // tensor.element_size()  # starts are aligned
        return tensor.set_(self.buffer.untyped_storage(), offset, kept.shape, kept.stride)

    def forget(self) -> None:
        """Forward is over: no further tensor comes."""
        self._starts, self._seen = {}, []

    def _goes(self, tensor: Tensor) -> bool:
        if not _is_plain(tensor) or tensor.is_conj() or tensor.is_neg():
            return False
        storage = tensor.untyped_storage()
        here = self.buffer is None or tensor.device == self.buffer.device
        return here and storage.nbytes() > 0 and _address(tensor) not in self._staying

    def _lay(self, storage: torch.UntypedStorage) -> int | None:
        """Copy a storage into the buffer; where it begins there, None where it does not fit."""
        start, count = self.size_bytes, storage.nbytes()
        if self.buffer is not None:
            if start + count > self.buffer.numel():
                return None
            given = torch.empty(0, dtype=torch.uint8, device=self.buffer.device).set_(
                storage, 0, (count,), (1,)
            )
            self.buffer[start : start + count].copy_(given)
        self.size_bytes = start + -(-count // _ALIGNMENT) * _ALIGNMENT
        return start


class EvictingStage(Stage):
    """A stage some of whose microbatches leave nothing on its rank from their forward to their backward.

    Takes what :class:`~runtime.stage.Stage` does.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._buffers: dict[int, Tensor] = {}
        self._shelves: dict[int, _Shelf] = {}

    def provide(self, microbatch: int, buffer: Tensor) -> None:
        """Before a forward: a buffer for what it keeps, which is to leave."""
        self._buffers[microbatch] = buffer

    def forward(self, microbatch: int, x: Tensor, finish: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """F, as in :class:`~runtime.stage.Stage`."""
        buffer = self._buffers.get(microbatch)
        if buffer is None:
            return super().forward(microbatch, x, finish)
        shelf = self._shelves[microbatch] = self._shelf(x, buffer)
        return self._forward_onto(shelf, microbatch, x, finish)

    def take_away(self, microbatch: int) -> Tensor:
        """Behind a forward: the buffer, filled."""
        self._shelves[microbatch].buffer = None
        return self._buffers.pop(microbatch)

    def bring_back(self, microbatch: int, buffer: Tensor) -> None:
        """Before a backward: a buffer with the same content."""
        self._shelves.pop(microbatch).buffer = buffer

    def measure(self, microbatch: int, given: TensorSpec, device: torch.device) -> int:
        """How many bytes of what a forward keeps can leave, found by running it on zeros."""
        x = torch.zeros(given.shape, dtype=given.dtype, device=device)
        shelf = self._shelf(x, None)
        with seeded(0, 0, 0, 0, device), unchanged([self.module]):
            self._forward_onto(shelf, microbatch, x, None)
        del self._kept[microbatch]
        return shelf.size_bytes

    def _shelf(self, x: Tensor, buffer: Tensor | None) -> _Shelf:
        staying = [*self.module.parameters(), *self.module.buffers()]
        if self.index == 0:
            staying.append(x)  # the batch
        return _Shelf(frozenset(map(_address, staying)), _address(x), buffer)

    def _forward_onto(
        self, shelf: _Shelf, microbatch: int, x: Tensor, finish: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        def finish_here(y: Tensor) -> Tensor:
            assert finish is not None
            with saved_tensors_hooks(shelf.keep, lambda kept: kept):
                return finish(y)

        with saved_tensors_hooks(shelf.pack, shelf.unpack):
            y = super().forward(microbatch, x, None if finish is None else finish_here)
        shelf.forget()
        leaf = self._kept[microbatch].x
        if leaf.requires_grad:  # its gradient arrives there, for which its shape is enough
            leaf.data = torch.empty(1, dtype=leaf.dtype, device=leaf.device).expand(leaf.shape)
        return y


def _address(tensor: Tensor) -> int:
    """Where a tensor's storage is; 0 for those of another kind, which have none of their own."""
    return tensor.untyped_storage().data_ptr() if _is_plain(tensor) else 0


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
