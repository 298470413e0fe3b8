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

_MARK = "pipesynth: a moment"
"""What the profiler calls the moments that are marked."""


class Level(NamedTuple):
    """Bytes beside those at the start: the most since the moment before, and at this moment."""

    most: int
    now: int


class Change(NamedTuple):
    """Bytes beside those at the start: at the end (below 0 where less is left), and at the highest moment.

    And at the moments that were marked meanwhile.
    """

    net: int
    highest: int
    marked: tuple[Level, ...] = ()


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
        events = [event for event in kineto.kineto_results.events() if event.name() in ("[memory]", _MARK)]
        level = most = 0
        highest, marked = 0, []
        for event in sorted(events, key=lambda event: event.start_ns()):
            if event.name() == _MARK:
                marked.append(Level(most, level))
                most = level
                continue
            level += event.nbytes()
            most = max(most, level)
            highest = max(highest, level)
        return Change(level, highest, tuple(marked))

    def mark(self) -> None:
        """Called by work that is watched: note this moment, on the profiler's own clock."""
        with torch.profiler.record_function(_MARK):
            pass


class CudaAllocator:
    """The caching allocator of one CUDA device: blocks, which are multiples of 512 bytes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marked: list[Level] = []

    def held_bytes(self) -> int:
        """What is allocated now."""
        return torch.cuda.memory_allocated(self._device)

    def watch(self, work: Callable[[], None]) -> Change:
        """Do the work and say what it changed."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before, self._marked = self.held_bytes(), []
        work()
        torch.cuda.synchronize(self._device)
        levels = (*self._marked, self._level())
        *marked, end = (Level(most - before, now - before) for most, now in levels)
        return Change(end.now, max(level.most for level in (*marked, end)), tuple(marked))

    def mark(self) -> None:
        """Called by work that is watched: note this moment, at which memory is given out, not computed in."""
        self._marked.append(self._level())
        torch.cuda.reset_peak_memory_stats(self._device)

    def _level(self) -> Level:
        return Level(torch.cuda.max_memory_allocated(self._device), self.held_bytes())


def _is_on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.layout is torch.strided and not is_fake(tensor)


def make_allocator(device: torch.device) -> HostAllocator | CudaAllocator:
    """The allocator of a device."""
    return CudaAllocator(device) if device.type == "cuda" else HostAllocator()
