"""Where work is done: in this process, in processes beside it, or wherever else an executor sends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any, Protocol

from synth.errors import InputError


class Executor(Protocol):
    """Takes calls and gives back what they return, in the order in which they are done."""

    @property
    def width(self) -> int:
        """How many calls it works on at once."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Take a call of a module's function; all it needs can be sent to another process."""

    def next(self) -> Any:
        """What the next call to be done returns; what it raises is raised here."""

    def close(self) -> None:
        """End, and drop what is not done."""


class SerialExecutor:
    """Does everything here, when it is asked for."""

    width = 1

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Keep a call for later."""
        self._calls.append((call, arguments))

    def next(self) -> Any:
        """Do the call that has waited longest."""
        call, arguments = self._calls.popleft()
        return call(*arguments)

    def close(self) -> None:
        """Drop what is not done."""
        self._calls.clear()


class LocalExecutor:
    """Processes on this machine, started afresh (``spawn``): scripts have ``if __name__ == "__main__":``.

    Ctrl-C reaches every process of a terminal; it is this one that answers it.

    Parameters
    ----------
    workers
        How many processes.
    """

    def __init__(self, workers: int) -> None:
        self.width = workers
        context = multiprocessing.get_context("spawn")
        self._leave = context.Event()
        self._pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(self._leave,))
        self._under_way: set[Future[Any]] = set()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Give a call to the next process that is free."""
        with _no_interrupts():
            self._under_way.add(self._pool.submit(call, *arguments))

    def next(self) -> Any:
        """Wait for a call to be done."""
        done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
        first = done.pop()
        self._under_way.remove(first)
        try:
            return first.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process has ended, perhaps for want of memory: give fewer workers"
            ) from error

    def close(self) -> None:
        """End the processes, whatever they are at."""
        if self._under_way:
            self._leave.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait: a process started meanwhile inherits that, and is deaf to it before it can say so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(leave: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_told, args=(leave,), daemon=True).start()


def _end_when_told(leave: Event) -> None:
    parent = multiprocessing.parent_process()
    while not leave.wait(1.0):
        if parent is not None and not parent.is_alive():
            break
    os._exit(1)


def executor_of(workers: int) -> Executor:
    """Processes beside this one, or with one worker this process alone."""
    return SerialExecutor() if workers == 1 else LocalExecutor(workers)
