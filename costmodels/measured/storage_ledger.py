"""What work holds where nothing is computed: every tensor, from the op that makes it to its end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runtime.allocators import Change


class StorageLedger:
    """Every storage that an op makes while it is watched, until it is gone; for fake tensors too.

    What a kernel takes for itself is not seen.
    """

    def __init__(self) -> None:
        self._level = self._highest = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def watch(self, work: Callable[[], None]) -> Change:
        """Do the work and say what it changed."""
        before = self._highest = self._level
        with _StorageMode(self._note):
            work()
        return Change(self._level - before, self._highest - before)

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self._level += size
            self._highest = max(self._highest, self._level)
            weakref.finalize(storage, self._forget, size).atexit = False

    def _forget(self, size: int) -> None:
        self._level -= size


class _StorageMode(TorchDispatchMode):
    """Hands on the storages of what ops make, not those they were given."""

    def __init__(self, note: Callable[[torch.UntypedStorage], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._note(leaf.untyped_storage())
        return made
