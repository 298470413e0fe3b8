"""What a rank tells the others when the place at which they meet no longer answers."""

import threading

import pytest
from torch import distributed as dist

from runtime.watch import Watch


class Hanging:
    """A store whose process hangs: every question waits until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked = threading.Event()

    def wait(self, *_) -> bool:
        self.asked.set()
        self.over.wait()
        return False

    set = check = get = compare_set = wait


def test_error_is_raised_and_a_rank_leaves_though_the_store_hangs(tmp_path):
    watch = Watch(dist.FileStore(str(tmp_path / "store"), 1), 0, 1, 60)
    watch._store = hanging = Hanging()
    hanging.asked.wait()
    with pytest.raises(ZeroDivisionError), watch.spreading(lambda: "a test"):
        raise ZeroDivisionError
    watch.close()
    hanging.over.set()


def test_error_is_told_to_others(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    watch = Watch(store, 0, 1, 60)
    with pytest.raises(ZeroDivisionError, match="by nothing"), watch.spreading(lambda: "a test"):
        raise ZeroDivisionError("by nothing")
    assert watch._store.get("failure") == b"rank 0 failed in a test: by nothing"
    watch.close()
