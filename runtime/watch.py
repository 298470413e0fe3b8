"""How every rank hears of a failure on any: through the store, by a thread that also shows signs of life.

Each rank writes a counter into the store every :data:`BEAT_S` and watches that of the next rank that has not
left. A rank that raises writes why; a rank whose counter stands still for ``patience_s`` is written up by
the one that watches it. All read that one place, and the first entry stays. So every rank knows of an error
within two beats, and of a process that died within ``patience_s`` and two beats.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed as dist

from runtime.errors import PeerError

BEAT_S = 0.25
"""Seconds between two signs of life."""
STORE_GONE = "the store at which the ranks meet cannot be reached: its process has died"
ANSWER_S = 2.0
"""How long the store may take to answer at the end: its process may hang, and nothing ends a wait for it."""
_GONE = "gone"
_FAILURE = "failure"


class Watch:
    """One rank's part in watching all of them.

    Parameters
    ----------
    store
        Where the processes meet; this object takes a connection of its own.
    rank, size
        This process among all.
    patience_s
        How long a rank may give no sign of life.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, patience_s: float) -> None:
        # Counted by each rank for itself: all make their watches in the same order.
        generation = store.add(f"watches/{rank}", 1)
        connected: Any = store  # torch's type stubs leave clone out
        self._store = dist.PrefixStore(f"watch/{generation}", connected.clone())
        self._rank, self._size, self._patience_s = rank, size, patience_s
        self._failure: str | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pipesynth watch")
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """What the rank that failed first has written, None while all is well."""
        return self._failure

    def check(self) -> None:
        """Return while all is well.

        Raises
        ------
        PeerError
            With what the rank that failed first has written.
        """
        if self._failure is not None:
            raise PeerError(self._failure)

    @contextmanager
    def spreading(self, doing: Callable[[], str]) -> Iterator[None]:
        """Tell all ranks of any error that comes up inside, which is raised here as it is."""
        try:
            yield
        except PeerError:
            raise
        except BaseException as error:
            self.tell(f"rank {self._rank} failed in {doing()}: {str(error) or 'interrupted'}")
            raise

    def heard_within(self, seconds: float) -> None:
        """Give a failure elsewhere, which may be why something failed here, the time to become known."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(BEAT_S / 5)

    def close(self) -> None:
        """Leave in peace: nobody waits for this rank's signs of life any more."""
        self._leaving.set()
        self._thread.join(ANSWER_S)

    def tell(self, what: str) -> None:
        """Tell all ranks that something has failed, unless they have been told of something before."""
        telling = threading.Thread(target=self._write, args=(what,), daemon=True, name="pipesynth failure")
        telling.start()
        telling.join(ANSWER_S)

    def _write(self, what: str) -> None:
        try:
            self._store.compare_set(_FAILURE, "", what)
        except RuntimeError:
            return  # the store is gone, and with it the process that held it: all ranks notice that

    def _run(self) -> None:
        try:
            self._beat_until_leaving()
            self._store.set(self._key(self._rank), _GONE)
        except RuntimeError:
            self._failure = STORE_GONE

    def _beat_until_leaving(self) -> None:
        watched, seen, since = (self._rank + 1) % self._size, "", time.monotonic()
        beat = 0
        while not self._leaving.wait(BEAT_S):
            beat += 1
            self._store.set(self._key(self._rank), str(beat))
            if self._failure is None and self._store.check([_FAILURE]):
                self._failure = self._store.get(_FAILURE).decode()
            if watched == self._rank:
                continue
            key = self._key(watched)
            now = self._store.get(key).decode() if self._store.check([key]) else ""
            if now == _GONE:
                watched, seen, since = (watched + 1) % self._size, "", time.monotonic()
            elif now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self._patience_s:
                self.tell(
                    f"rank {watched} has given no sign of life for {self._patience_s:g} s: its process has "
                    "died or hangs"
                )

    def _key(self, rank: int) -> str:
        return f"alive/{rank}"
