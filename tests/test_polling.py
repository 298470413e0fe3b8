"""Long calls are watched, and left when the watcher says so."""

import os
import signal
import threading
import time

import pytest

from synth.polling import call_and_watch


class Left(Exception):
    pass


def test_answer_comes_back():
    assert call_and_watch(lambda: 7, lambda: None) == 7


def test_error_of_the_call_is_raised():
    with pytest.raises(ZeroDivisionError):
        call_and_watch(lambda: 1 // 0, lambda: None)


def test_watcher_leaves_and_stops_the_call():
    stopped = threading.Event()

    def leave():
        raise Left

    with pytest.raises(Left):
        call_and_watch(stopped.wait, leave, stopped.set)
    assert stopped.is_set()


def test_an_interrupt_waits_until_the_stopped_call_has_ended():
    """A solver that still runs when the interpreter ends takes the process down."""
    stopped, ended = threading.Event(), threading.Event()

    def call():
        time.sleep(0.05)  # the watcher waits by now
        os.kill(os.getpid(), signal.SIGINT)
        stopped.wait(10)
        time.sleep(0.3)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        call_and_watch(call, lambda: None, stopped.set)
    assert ended.is_set()


def test_call_without_a_stop_is_left_behind():
    finish, finished = threading.Event(), threading.Event()

    def call():
        finish.wait()
        finished.set()

    def leave():
        raise Left

    with pytest.raises(Left):
        call_and_watch(call, leave)
    assert not finished.is_set()
    finish.set()
    assert finished.wait(10)


def test_watcher_is_called_again_and_again():
    looks = []
    done = threading.Event()

    def look():
        looks.append(1)
        if len(looks) == 3:
            done.set()

    assert call_and_watch(lambda: done.wait(10), look)
    assert len(looks) >= 3
