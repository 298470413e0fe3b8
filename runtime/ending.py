"""The last sentence of a process that is told to end.

``torchrun`` sends SIGTERM to all ranks once one has failed, and a rank that sits in a wait of gloo's or the
store's would end without a word; SIGINT, as Ctrl-C sends it, it would not hear before the wait is over. So a
thread of its own takes both signals: it leaves the rank some seconds to find out for itself what has failed,
and speaks for it where it does not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from runtime.watch import Watch

ENDS_WITHIN_S = 5.0
"""Seconds from the signal to the end; torchrun kills after 30."""
_TOLD = (
    "told to end by SIGTERM, as torchrun does once another rank has failed or it is told so itself: see what "
    "the others say"
)
INTERRUPTED = 128 + signal.SIGINT
"""What an interrupted process exits with."""


class Ending:
    """Listens for SIGTERM and SIGINT; made in the main thread of a process that does nothing else.

    Parameters
    ----------
    rank
        Of this process, as in its messages.
    code
        What it exits with where SIGTERM ends it.
    within_s
        Seconds from the signal to the end.
    """

    def __init__(self, rank: str, code: int, within_s: float = ENDS_WITHIN_S) -> None:
        self.rank = rank
        self.watch: Watch | None = None
        """Where failures of other ranks become known, once there is one."""
        self._code, self._within_s = code, within_s
        self._over = threading.Event()
        # The interpreter runs a handler only when the main thread is back from where it waits, but writes
        # into this pipe at once.
        self._signals, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._run, daemon=True, name="pipesynth ending").start()

    def over(self) -> None:
        """This process has said why it ends, or ends well."""
        self._over.set()

    def _run(self) -> None:
        while (number := os.read(self._signals, 1)[0]) not in (signal.SIGTERM, signal.SIGINT):
            continue
        if self._over.wait(self._within_s):
            return
        if number == signal.SIGINT:
            code, why = INTERRUPTED, self._why("interrupted", "was interrupted")
        else:
            code, why = self._code, self._why(_TOLD, "was told to end by SIGTERM")
        sys.stderr.write(f"rank {self.rank}: {why}\n")
        sys.stderr.flush()
        os._exit(code)

    def _why(self, own: str, told: str) -> str:
        """What failed elsewhere; where nothing did, the own reason, of which the others are told."""
        if self.watch is None:
            return own
        if self.watch.failure is None:
            self.watch.tell(f"rank {self.rank} {told}")
            return own
        return self.watch.failure
