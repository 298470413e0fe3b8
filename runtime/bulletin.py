"""Notes that ranks leave for one another in the store, read without being deaf to failures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed as dist

from runtime.errors import PipelineError, StalledError
from runtime.watch import STORE_GONE, Watch

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

    def put(self, name: str, note: str) -> None:
        """Leave a note.

        Raises
        ------
        PipelineError
            When the store is gone.
        """
        with _reaching():
            self._store.set(name, note)

    def read(self, name: str, what: str) -> str:
        """Wait for a note and read it.

        Raises
        ------
        PeerError
            When another rank fails meanwhile.
        StalledError
            When the note, ``what`` in words, does not appear in time.
        PipelineError
            When the store is gone.
        """
        with _reaching():
            return self._read(name, what)

    def _read(self, name: str, what: str) -> str:
        deadline = time.monotonic() + self._timeout_s
        while not self._store.check([name]):
            self._watch.check()
            if time.monotonic() > deadline:
                raise StalledError(f"{what} was not there within {self._timeout_s:g} s")
            time.sleep(_LOOK_S)
        note: bytes = self._store.get(name)
        return note.decode()


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PipelineError(STORE_GONE) from error
