"""Activations and gradients between ranks: asynchronous, in the plan's order, into buffers used again.

Between ranks that share a GPU they pass through pinned host memory: copied there before they are sent, and
back once they are there; both copies wait for the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor
from torch import distributed as dist

from runtime.communication import Message
from runtime.errors import PipelineError
from runtime.shapes import TensorSpec
from runtime.waiting import GRACE_S, Arrival, Waiter
from runtime.watch import Watch
from runtime.world import World


class Buffers:
    """Tensors to receive into, taken again once given back: there are as many as were needed at once.

    Parameters
    ----------
    device
        Where they are.
    passing
        What is not kept for later: as large as all that a microbatch keeps, it would stand idle beside those
        that stay.
    is_pinned
        Whether their memory is page-locked.
    """

    def __init__(
        self, device: torch.device, passing: Collection[TensorSpec] = (), *, is_pinned: bool = False
    ) -> None:
        self._device, self._passing, self._is_pinned = device, passing, is_pinned
        self._free: dict[TensorSpec, list[Tensor]] = defaultdict(list)
        self.made = 0

    @property
    def idle_bytes(self) -> int:
        """What those hold that nothing uses now."""
        return sum(tensor.nbytes for free in self._free.values() for tensor in free)

    def take(self, spec: TensorSpec) -> Tensor:
        """A tensor of this shape and dtype with any content."""
        if self._free[spec]:
            return self._free[spec].pop()
        self.made += 1
        return torch.empty(spec.shape, dtype=spec.dtype, device=self._device, pin_memory=self._is_pinned)

    def give_back(self, tensor: Tensor) -> None:
        """Let a tensor be taken again: nothing may read it any more."""
        spec = TensorSpec.of(tensor)
        if spec not in self._passing:
            self._free[spec].append(tensor)


class Transport:
    """Posts receives, hands out what arrived, sends, and knows when all has left.

    Parameters
    ----------
    world
        Who talks to whom.
    watch
        Where failures elsewhere become known.
    specs
        What each stage takes, by stage; the gradient it gives back is alike.
    timeout_s
        For how long a message may fail to come.
    storing
        The stages that store what others keep.
    """

    def __init__(
        self,
        world: World,
        watch: Watch,
        specs: Mapping[int, TensorSpec],
        timeout_s: float,
        storing: Collection[int] = (),
    ) -> None:
        self.buffers = Buffers(world.device, {specs[stage] for stage in storing if stage in specs})
        on_cuda = world.device.type == "cuda"
        self._host = Buffers(torch.device("cpu"), is_pinned=on_cuda) if world.is_staged else None
        self._streams_wait = on_cuda and not world.is_staged
        self._world, self._watch = world, watch
        self._specs, self._timeout_s = specs, timeout_s
        # One thread for each sender: its messages come in order, and wait for no other rank's.
        self._receivers: dict[int, Waiter] = defaultdict(lambda: Waiter(watch))
        self._sender, self._others = Waiter(watch), Waiter(watch)
        self._posted: dict[Message, tuple[Arrival, Tensor]] = {}
        self._leaving: list[tuple[Message, Arrival, Tensor, bool]] = []

    def post(self, message: Message) -> None:
        """Make ready to receive a message; returns at once."""
        buffer = (self._host or self.buffers).take(self._spec(message))
        peer = self._world.process_of(message.sender)
        post = partial(dist.irecv, buffer, peer, group=self._group(message), tag=message.number)
        work = self._begin(post, partial(_coming, message))
        self._posted[message] = self._arrival(self._receivers[message.sender], work), buffer

    def receive(self, message: Message) -> Tensor:
        """Wait for a message that was posted; give its buffer back when nothing reads it any more."""
        arrival, buffer = self._posted.pop(message)
        self._wait(self._receivers[message.sender], arrival, partial(_coming, message))
        if self._host is None:
            return buffer
        arrived = self.buffers.take(self._spec(message)).copy_(buffer)
        self._host.give_back(buffer)
        return arrived

    def settle(self, work: dist.Work, what: Callable[[], str]) -> None:
        """Wait until an operation that is no message is done."""
        self._wait(self._others, self._arrival(self._others, work), what)

    def pass_on_host(self, start: Callable[[], dist.Work | None], what: Callable[[], str]) -> None:
        """Start an operation on tensors in host memory and wait until it is done, whatever the device."""
        work = self._begin(start, what)
        assert work is not None, "this process is in the group"
        self._others.wait(self._others.submit(work), self._timeout_s, what)

    def send(self, message: Message, tensor: Tensor, *, is_buffer: bool = False) -> None:
        """Send off a tensor, which nothing may write any more; returns at once.

        A buffer is given back once it has left.
        """
        self._let_go()
        if self._host is not None:
            given, tensor = tensor, self._host.take(TensorSpec.of(tensor)).copy_(tensor)
            if is_buffer:
                self.buffers.give_back(given)
        peer = self._world.process_of(message.receiver)
        send = partial(dist.isend, tensor, peer, group=self._group(message), tag=message.number)
        work = self._begin(send, partial(_leaving, message))
        self._leaving.append((message, self._arrival(self._sender, work), tensor, is_buffer))

    def finish(self) -> None:
        """Wait until everything sent has left."""
        while self._leaving:
            self._wait_for_oldest()

    def wait_until_left(self, message: Message) -> None:
        """Wait until a message, and all that was sent before it, has left."""
        while any(leaving is message for leaving, *_ in self._leaving):
            self._wait_for_oldest()

    def close(self) -> None:
        """End the threads that wait."""
        for waiter in (*self._receivers.values(), self._sender, self._others):
            waiter.close()

    def _begin(self, start: Callable[[], dist.Work | None], what: Callable[[], str]) -> dist.Work | None:
        """Start a transfer; where the peer has gone already, say why it has rather than how gloo puts it."""
        try:
            return start()
        except RuntimeError as error:
            self._watch.heard_within(GRACE_S)
            raise PipelineError(f"{what()} cannot come: the connection broke") from error

    def _arrival(self, waiter: Waiter, work: dist.Work | None) -> Arrival:
        assert work is not None, "this process is in the group"
        return Arrival(work) if self._streams_wait else waiter.submit(work)

    def _wait(self, waiter: Waiter, arrival: Arrival, what: Callable[[], str]) -> None:
        """Wait until an operation is done; with NCCL it is the stream that waits, not this thread."""
        if self._streams_wait:
            arrival.work.wait()
        else:
            waiter.wait(arrival, self._timeout_s, what)

    def _let_go(self) -> None:
        """Let go of sent tensors that have left, the oldest first."""
        while self._leaving and self._has_left(self._leaving[0][1]):
            self._drop_oldest()

    def _wait_for_oldest(self) -> None:
        message, arrival, *_ = self._leaving[0]
        self._wait(self._sender, arrival, partial(_leaving, message))
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, _, tensor, is_buffer = self._leaving.pop(0)
        if self._host is not None:
            self._host.give_back(tensor)
        elif is_buffer:
            self.buffers.give_back(tensor)

    def _has_left(self, arrival: Arrival) -> bool:
        if self._streams_wait:
            return arrival.work.is_completed()
        return arrival.is_done and arrival.error is None

    def _spec(self, message: Message) -> TensorSpec:
        """A message is the input of the later of its two stages, or that input's gradient."""
        return self._specs[max(message.producer.stage, message.consumer.stage)]

    def _group(self, message: Message) -> dist.ProcessGroup:
        direction = message.sender, message.receiver
        return self._world.directions.get(direction, self._world.pipeline)


def _coming(message: Message) -> str:
    return (
        f"what rank {message.receiver} needs for {message.consumer}, "
        f"the result of {message.producer} on rank {message.sender},"
    )


def _leaving(message: Message) -> str:
    return f"rank {message.receiver}'s readiness to take the result of {message.producer}"
