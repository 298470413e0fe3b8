"""When ops really start and end: host time on the CPU, events on CUDA, one clock for all ranks.

Nothing of the CUDA path has been run yet where this was written: there was no GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import distributed as dist

from runtime.transport import Transport
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


def clock_offset_ns(world: World, transport: Transport) -> int:
    """What to subtract from this rank's clock to have that of its pipeline's rank 0; all ranks call it.

    Rank 0 asks and takes the answer for given half-way (Cristian's algorithm); of many rounds the quickest
    counts, and half of its time bounds the error. On one machine all processes share the clock, and what
    is found is that error.

    Parameters
    ----------
    world
        This process among all.
    transport
        Waits for the messages, and for failures elsewhere meanwhile.

    Raises
    ------
    PipelineError
        When a rank does not ask or answer in time, or failed.
    """
    offset_ns = 0
    for rank in range(1, world.num_ranks):
        if world.rank == 0:
            line = _Line(world, transport, rank, rank)
            line.send(_ahead_ns(line))
        elif world.rank == rank:
            line = _Line(world, transport, 0, rank)
            for _ in range(ROUNDS):
                line.receive()
                line.send(time.monotonic_ns())
            offset_ns = line.receive()
    return offset_ns


def _ahead_ns(line: _Line) -> int:
    """How far the clock at the other end is ahead."""
    rounds: list[tuple[int, int]] = []
    for _ in range(ROUNDS):
        before = time.monotonic_ns()
        line.send(0)
        theirs = line.receive()
        after = time.monotonic_ns()
        rounds.append((after - before, theirs - (before + after) // 2))
    _, ahead = min(rounds)
    return ahead


class _Line:
    """Carries numbers between rank 0 and the one whose clock is sought; seen from one end."""

    def __init__(self, world: World, transport: Transport, other: int, sought: int) -> None:
        self._transport, self._group = transport, world.pipeline
        self._other, self._sought = world.process_of(other), sought

    def send(self, number: int) -> None:
        tensor = torch.tensor([number], dtype=torch.int64)
        self._pass(lambda: dist.isend(tensor, self._other, group=self._group))

    def receive(self) -> int:
        tensor = torch.zeros(1, dtype=torch.int64)
        self._pass(lambda: dist.irecv(tensor, self._other, group=self._group))
        return int(tensor.item())

    def _pass(self, start: Callable[[], dist.Work | None]) -> None:
        self._transport.pass_on_host(start, lambda: f"a message for the clock of rank {self._sought}")
