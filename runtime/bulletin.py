"""Notes that ranks leave for one another in the store, read without being deaf to failures."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from torch import distributed as dist

from runtime.errors import PipelineError, StalledError
from runtime.watch import ANSWER_S, STORE_GONE, Watch

T = TypeVar("T")

_LOOK_S = 0.01


class Bulletin:
    """A board of notes, each written once.

    Parameters
    ----------
    store
        Where the processes meet, with a prefix of this board's own.
    watch
        Where failures elsewhere become known.
    timeout_s
        For how long a note may fail to appear.
    """

    def __init__(self, store: dist.Store, watch: Watch, timeout_s: float) -> None:
        self._store, self._watch, self._timeout_s = store, watch, timeout_s
        self._turns: Counter[str] = Counter()

    def turn(self, name: str) -> int:
        """How often this rank has asked so before: a name for what all ranks do again and again."""
        self._turns[name] += 1
        return self._turns[name] - 1

    def put(self, name: str, note: str) -> None:
        """Leave a note.

        Raises
        ------
        PipelineError
            When the store is gone, or does not answer.
        """
        self._within(lambda: self._store.set(name, note))

    def read(self, name: str, what: str) -> str:
        """Wait for a note and read it.

        Raises
        ------
        PeerError
            When another rank fails meanwhile.
        StalledError
            When the note, ``what`` in words, does not appear in time.
        PipelineError
            When the store is gone, or does not answer.
        """
        return self._within(lambda: self._read(name, what))

    def _read(self, name: str, what: str) -> str:
        deadline = time.monotonic() + self._timeout_s
        while not self._store.check([name]):
            self._watch.check()
            if time.monotonic() > deadline:
                raise StalledError(f"{what} was not there within {self._timeout_s:g} s")
            time.sleep(_LOOK_S)
        note: bytes = self._store.get(name)
        return note.decode()

    def _within(self, ask: Callable[[], T]) -> T:
        """Ask the store in a thread, which is left behind where the store hangs: nothing ends such a wait."""
        answers: SimpleQueue[Callable[[], T]] = SimpleQueue()
        threading.Thread(
            target=lambda: answers.put(_outcome(ask)), daemon=True, name="pipesynth note"
        ).start()
        limit_s = self._timeout_s + ANSWER_S
        try:
            return answers.get(timeout=limit_s)()
        except Empty:
            raise PipelineError(
                f"the store at which the ranks meet has not answered within {limit_s:g} s: its process hangs"
            ) from None
        except RuntimeError as error:
            raise PipelineError(STORE_GONE) from error


def _outcome(ask: Callable[[], T]) -> Callable[[], T]:
    """What was answered or raised, to be had where it is called."""
    try:
        answer = ask()
    except Exception as error:
        raised = error

        def again() -> T:
            raise raised

        return again
    return lambda: answer
