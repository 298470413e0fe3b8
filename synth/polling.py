"""Long calls that can be left: run in a thread of their own while the caller looks at the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

LOOK_SECONDS = 0.1
"""Time between two looks of the caller."""


def call_and_watch(
    call: Callable[[], Answer],
    watch: Callable[[], None],
    stop: Callable[[], None] | None = None,
) -> Answer:
    """Call a function in a thread and watch meanwhile; an interrupt reaches the watcher at once.

    Parameters
    ----------
    call
        What to run.
    watch
        Called about ten times a second; what it raises leaves the call.
    stop
        Makes the call return early; called when it is left. Without it the thread is left behind to finish
        unheard, and dies with the process.

    Raises
    ------
    Whatever ``call`` or ``watch`` raises.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []
    # An event rather than a join: an interrupt inside a join leaves the thread marked as ended while it runs.
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        pause = LOOK_SECONDS / 10
        while not done.wait(pause):
            watch()
            pause = LOOK_SECONDS
    except BaseException:
        if stop is not None:
            stop()
            done.wait()
        raise
    if errors:
        raise errors[0]
    return answers[0]
