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
GRACE_S = 1.5
"""How long the reason for a broken connection may take to become known, and a thread to end."""


class Arrival:
    """A transfer that is waited for by a thread of :class:`Waiter`."""

    def __init__(self, work: dist.Work) -> None:
        self.work = work
        # A bare lock, held until the transfer is done: an Event takes ten times as long, once a message.
        self._pending = threading.Lock()
        self._pending.acquire()
        self.error: RuntimeError | None = None

    @property
    def is_done(self) -> bool:
        """Whether the transfer has ended, well or not."""
        return not self._pending.locked()

    def end(self) -> None:
        """Say that it has; once."""
        self._pending.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has; whether it has in time. One thread waits at a time."""
        if not self._pending.acquire(timeout=timeout_s):
            return False
        self._pending.release()
        return True


class Waiter:
    """A thread that sits in gloo's blocking waits, one after the other.

    gloo can neither be asked whether a transfer is done nor be interrupted, so a rank that waited itself
    could not stop when another fails.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._queue: SimpleQueue[Arrival | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pipesynth waiter")
        self._thread.start()

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
        while not arrival.wait(_LISTEN_S):
            self._watch.check()
            if time.monotonic() > deadline:
                raise StalledError(f"{what()} did not come within {timeout_s:g} s")
        if arrival.error is not None:
            self._watch.heard_within(GRACE_S)
            raise PipelineError(f"{what()} did not come: the connection broke") from arrival.error

    def close(self) -> None:
        """End the thread once what was submitted is done; where it hangs, it is left behind."""
        self._queue.put(None)
        self._thread.join(GRACE_S)

    def _run(self) -> None:
        while (arrival := self._queue.get()) is not None:
            try:
                arrival.work.wait()
            except RuntimeError as error:
                arrival.error = error
            arrival.end()
            # What holds torch's objects must not outlive the interpreter's last moments in a thread.
            del arrival
