"""What a piece of work leaves allocated and how high it rises meanwhile, as the allocator itself says.

On CUDA these are the caching allocator's counters, on the CPU the profiler's record of every allocation.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake


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

    def held_bytes(self) -> int:
        """What is allocated now: the CPU's keeps no count, so the storages of all tensors of this process."""
        gc.collect()
        tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor) and _is_on_host(each)]
        tensors += [each.grad for each in tensors if each.is_leaf and each.grad is not None]
        return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())

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

    def held_bytes(self) -> int:
        """What is allocated now."""
        return torch.cuda.memory_allocated(self._device)

    def watch(self, work: Callable[[], None]) -> Change:
        """Do the work and say what it changed."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        work()
        torch.cuda.synchronize(self._device)
        after = torch.cuda.memory_allocated(self._device)
        return Change(after - before, torch.cuda.max_memory_allocated(self._device) - before)


def _is_on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout is torch.strided and not is_fake(tensor)


def make_allocator(device: torch.device) -> HostAllocator | CudaAllocator:
    """The allocator of a device."""
    return CudaAllocator(device) if device.type == "cuda" else HostAllocator()
