"""Waiting for transfers without being deaf to failures meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from torch import distributed as dist

from runtime.errors import PipelineError, StalledError
from runtime.watch import Watch

_LISTEN_S = 0.05
_GRACE_S = 1.5
"""How long the reason for a broken connection may take to become known."""


class Arrival:
    """A transfer that is waited for by a thread of :class:`Waiter`."""

    def __init__(self, work: dist.Work) -> None:
        self.work = work
        self.done = threading.Event()
        self.error: RuntimeError | None = None


class Waiter:
    """A thread that sits in gloo's blocking waits, one after the other.

    gloo can neither be asked whether a transfer is done nor be interrupted, so a rank that waited itself
    could not stop when another fails.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._queue: SimpleQueue[Arrival | None] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="pipesynth waiter").start()

    def submit(self, work: dist.Work) -> Arrival:
        """Have a transfer waited for."""
        arrival = Arrival(work)
        self._queue.put(arrival)
        return arrival

    def wait(self, arrival: Arrival, timeout_s: float, what: Callable[[], str]) -> None:
        """Wait until a transfer is done.

        Parameters
        ----------
        arrival
            As :meth:`submit` gave it.
        timeout_s
            For how long.
        what
            What is waited for, in words.

        Raises
        ------
        PeerError
            When another rank fails meanwhile.
        StalledError
            When the time is over.
        PipelineError
            When the connection breaks.
        """
        deadline = time.monotonic() + timeout_s
        while not arrival.done.wait(_LISTEN_S):
            self._watch.check()
            if time.monotonic() > deadline:
                raise StalledError(f"{what()} did not come within {timeout_s:g} s")
        if arrival.error is not None:
            self._watch.heard_within(_GRACE_S)
            raise PipelineError(f"{what()} did not come: the connection broke") from arrival.error

    def close(self) -> None:
        """End the thread once what was submitted is done."""
        self._queue.put(None)

    def _run(self) -> None:
        while (arrival := self._queue.get()) is not None:
            try:
                arrival.work.wait()
            except RuntimeError as error:
                arrival.error = error
            arrival.done.set()
