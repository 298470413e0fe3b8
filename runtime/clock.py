"""When ops really start and end: host time on the CPU, events on CUDA, one clock for all ranks.

Nothing of the CUDA path has been run yet where this was written: there was no GPU.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch
from torch import distributed as dist

from runtime.world import World
from synth.measured import MeasuredOp
from synth.ops import Op

ROUNDS = 32
"""Messages back and forth to find one rank's clock; the quickest counts."""


class Recorder(Protocol):
    """Notes when ops run, each between :meth:`begin` and :meth:`end`."""

    def begin(self, op: Op) -> None:
        """An op starts now."""

    def end(self) -> None:
        """The op that was begun last ends now."""

    def times(self) -> list[MeasuredOp]:
        """What was noted, by this process's clock in nanoseconds; the next op begun starts anew."""


class HostRecorder:
    """For a device whose work is done when a call returns."""

    def __init__(self) -> None:
        self._noted: list[MeasuredOp] = []
        self._begun: tuple[Op, int] | None = None
        self._is_told = False

    def begin(self, op: Op) -> None:
        """An op starts now."""
        if self._is_told:
            self._noted, self._is_told = [], False
        self._begun = op, time.monotonic_ns()

    def end(self) -> None:
        """The op that was begun last ends now."""
        end = time.monotonic_ns()
        assert self._begun is not None
        self._noted.append(MeasuredOp(*self._begun, end))

    def times(self) -> list[MeasuredOp]:
        """What was noted; the next op begun starts anew."""
        self._is_told = True
        return self._noted


class CudaRecorder:
    """For CUDA: events on the stream of the ops, set against host time once a step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._noted: list[tuple[Op, torch.cuda.Event, torch.cuda.Event]] = []
        self._is_told = False

    def begin(self, op: Op) -> None:
        """An op starts when the stream gets here."""
        if self._is_told:
            self._noted, self._is_told = [], False
        self._noted.append((op, self._event(), torch.cuda.Event(enable_timing=True)))

    def end(self) -> None:
        """The op that was begun last ends when the stream gets here."""
        self._noted[-1][2].record(torch.cuda.current_stream(self._device))

    def times(self) -> list[MeasuredOp]:
        """What was noted; waits for the device, and the next op begun starts anew."""
        self._is_told = True
        torch.cuda.synchronize(self._device)
        now = self._event()
        now.synchronize()
        host = time.monotonic_ns()

        def at(event: torch.cuda.Event) -> int:
            milliseconds: float = event.elapsed_time(now)
            return host - round(milliseconds * 1e6)

        return [MeasuredOp(op, at(start), at(end)) for op, start, end in self._noted]

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def make_recorder(device: torch.device) -> Recorder:
    """The recorder for a device."""
    return CudaRecorder(device) if device.type == "cuda" else HostRecorder()


def clock_offset_ns(world: World) -> int:
    """What to subtract from this rank's clock to have that of its pipeline's rank 0; all ranks call it.

    Rank 0 asks and takes the answer for given half-way (Cristian's algorithm); of many rounds the quickest
    counts, and half of its time bounds the error. On one machine all processes share the clock, and what
    is found is that error.
    """
    offset = torch.zeros(1, dtype=torch.int64)
    for rank in range(1, world.num_ranks):
        if world.rank == 0:
            offset[0] = _ask(world, rank)
            dist.send(offset, world.process_of(rank), group=world.pipeline)
        elif world.rank == rank:
            for _ in range(ROUNDS):
                _answer(world)
            dist.recv(offset, world.process_of(0), group=world.pipeline)
    return 0 if world.rank == 0 else int(offset[0])


def _ask(world: World, rank: int) -> int:
    """How far a rank's clock is ahead."""
    rounds: list[tuple[int, int]] = []
    theirs = torch.zeros(1, dtype=torch.int64)
    for _ in range(ROUNDS):
        before = time.monotonic_ns()
        dist.send(theirs, world.process_of(rank), group=world.pipeline)
        dist.recv(theirs, world.process_of(rank), group=world.pipeline)
        after = time.monotonic_ns()
        rounds.append((after - before, int(theirs.item()) - (before + after) // 2))
    _, ahead = min(rounds)
    return ahead


def _answer(world: World) -> None:
    now = torch.zeros(1, dtype=torch.int64)
    dist.recv(now, world.process_of(0), group=world.pipeline)
    now[0] = time.monotonic_ns()
    dist.send(now, world.process_of(0), group=world.pipeline)
