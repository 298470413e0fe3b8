"""Checkpoints that are there as a whole or not at all, and what is said of others."""

import re
import threading

import pytest

from runtime.checkpoint import _put_in_place, _write
from tests.runtime_cases import train
from tests.test_runtime_train import FEW, free_port, run, written

__all__ = ["written"]


@pytest.fixture
def saved(pool, written, tmp_path):
    """The folder of a run of two stages, and its schedule."""
    folder, path = tmp_path / "checkpoints", written("zb-h1", 2)
    run(pool, 2, "--schedule", path, "--steps", "1", "--checkpoints", str(folder))
    return folder, path


def refused(pool, count, *arguments):
    """What all ranks say."""
    answers = pool.run(count, train, free_port(), [*map(str, arguments), *FEW])
    assert {code for code, _, _ in answers} <= {1, 2}
    return [err for _, _, err in answers]


def test_missing_file_is_named_on_all(pool, saved):
    folder, path = saved
    (folder / "step-1" / "stage-1.pt").unlink()
    said = refused(pool, 2, "--schedule", path, "--resume", folder)
    assert all("step-1 lacks stage-1.pt: resume with a schedule of the stages" in text for text in said)


def test_checkpoint_of_other_stages_is_refused_on_all(pool, saved, written):
    folder, _ = saved
    said = refused(pool, 3, "--schedule", written("zb-h1", 3), "--resume", folder)
    assert all(re.search("holds 2 stages and the schedule has 3|lacks stage-2.pt", text) for text in said)
    said = refused(pool, 1, "--schedule", written("1f1b", 1), "--resume", folder, "--layers", "2")
    assert all("holds 2 stages and the schedule has 1: resume with a schedule of as" in text for text in said)


def test_half_written_checkpoint_is_none(pool, saved):
    folder, path = saved
    (folder / "step-1").rename(folder / ".step-2.0123abcd.partial")
    said = refused(pool, 2, "--schedule", path, "--resume", folder)
    assert all("holds no checkpoint" in text for text in said)


def test_ranks_that_see_other_checkpoints_are_told(pool, saved, tmp_path):
    """As on machines that do not share the folder."""
    folder, path = saved
    other = tmp_path / "other"
    run(pool, 2, "--schedule", path, "--steps", "2", "--checkpoints", str(other))
    arguments = ["--schedule", path, *FEW, "--resume", str(folder)]
    answers = pool.run(2, train, free_port(), arguments, ["--resume", str(other)])
    assert all("is given step 2 and rank 0 1: give all ranks the same" in err for *_, err in answers)


def test_two_runs_that_save_to_one_folder_leave_one_whole_checkpoint(tmp_path):
    """Twenty that take the name at once."""
    whole = tmp_path / "step-3"
    start = threading.Barrier(20)

    def save(number):
        partial = tmp_path / f".step-3.{number}.partial"
        partial.mkdir()
        for stage in range(3):
            (partial / f"stage-{stage}.pt").write_text(str(number))
        start.wait()
        _put_in_place(partial, whole, str(number))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]
    assert sorted(path.name for path in whole.iterdir()) == [f"stage-{stage}.pt" for stage in range(3)]
    assert len({path.read_text() for path in whole.iterdir()}) == 1, "all of one run"


def test_what_no_shape_shows_is_compared(pool, saved):
    folder, path = saved
    said = refused(pool, 2, "--schedule", path, "--resume", folder, "--seed", "7")
    assert all("step-1 was trained with --seed 0, not 7: give 0" in text for text in said)


def test_what_could_not_be_written_whole_is_gone(tmp_path, monkeypatch):
    """torch tells a full disk as a RuntimeError of its own."""

    def fail(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("iostream error")

    monkeypatch.setattr("torch.save", fail)
    partial = tmp_path / ".step-1.partial"
    partial.mkdir()
    with pytest.raises(OSError, match="could not be written whole"):
        _write(partial / "stage-0.pt", {})
    assert list(tmp_path.iterdir()) == []
