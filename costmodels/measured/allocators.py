"""What a piece of work leaves allocated and how high it rises meanwhile, as the allocator itself says.

On CUDA these are the caching allocator's counters, on the CPU the profiler's record of every allocation.
Where nothing is computed, :class:`StorageLedger` follows every tensor from the op that makes it to its end.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Change(NamedTuple):
    """Bytes beside those at the start: at the end (below 0 where less is left), and at the highest moment."""

    net: int
    highest: int


class Allocator(Protocol):
    """Watches what work allocates."""

    def watch(self, work: Callable[[], None]) -> Change:
        """Do the work and say what it changed."""


class HostAllocator:
    """The CPU's: exact to the byte, by the profiler's memory events."""

    def watch(self, work: Callable[[], None]) -> Change:
        """Do the work and say what it changed."""
        # Read when the profiler first starts: without it some builds write a line at every start and stop.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
            work()
        kineto = profile.profiler
        assert kineto is not None, "the profiler has run"
        assert kineto.kineto_results is not None, "and has results"
        events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
        level = highest = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            level += event.nbytes()
            highest = max(highest, level)
        return Change(level, highest)


class CudaAllocator:
    """The caching allocator of one CUDA device: blocks, which are multiples of 512 bytes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def watch(self, work: Callable[[], None]) -> Change:
        """Do the work and say what it changed."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        work()
        torch.cuda.synchronize(self._device)
        after = torch.cuda.memory_allocated(self._device)
        return Change(after - before, torch.cuda.max_memory_allocated(self._device) - before)


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


def make_allocator(device: torch.device) -> Allocator:
    """The allocator of a device."""
    return CudaAllocator(device) if device.type == "cuda" else HostAllocator()
