"""Notes between ranks, where the place at which they are left is gone."""

import threading

import pytest
from torch import distributed as dist

from runtime import bulletin as module
from runtime.bulletin import Bulletin
from runtime.errors import PipelineError, StalledError


class Gone(dist.HashStore):
    """A store whose process has died."""

    def set(self, *_):
        raise dist.DistNetworkError("Broken pipe")

    check = get = set


class Hanging(dist.HashStore):
    """A store whose process hangs: every question waits until the test is over."""

    def __init__(self):
        super().__init__()
        self.over = threading.Event()

    def set(self, *_):
        self.over.wait()

    check = get = set


class Well:
    """Nobody has failed."""

    def check(self):
        pass


def test_store_that_is_gone_is_named():
    bulletin = Bulletin(Gone(), Well(), 1)
    with pytest.raises(PipelineError, match="the store at which the ranks meet cannot be reached"):
        bulletin.put("a", "b")
    with pytest.raises(PipelineError, match="the store at which the ranks meet cannot be reached"):
        bulletin.read("a", "the note of rank 1")


def test_note_is_read_once_there_and_missed_where_it_never_comes():
    bulletin = Bulletin(dist.HashStore(), Well(), 0.05)
    bulletin.put("a", "b")
    assert bulletin.read("a", "the note of rank 1") == "b"
    with pytest.raises(StalledError, match=r"the note of rank 1 was not there within 0\.05 s"):
        bulletin.read("c", "the note of rank 1")


def test_store_that_hangs_is_left(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.1)
    store = Hanging()
    bulletin = Bulletin(store, Well(), 0.1)
    for ask in (lambda: bulletin.put("a", "b"), lambda: bulletin.read("a", "the note of rank 1")):
        with pytest.raises(PipelineError, match=r"has not answered within 0\.2 s: its process hangs"):
            ask()
    store.over.set()


def test_turns_count_by_name():
    bulletin = Bulletin(dist.HashStore(), Well(), 1)
    assert [bulletin.turn(name) for name in ("saved", "saved", "resumed", "saved")] == [0, 1, 0, 2]
