"""Files: read with a plain sentence on failure, replaced whole or not at all."""

import io
import os
import stat
import sys

import pytest

from synth import files
from synth.errors import DocumentError, InputError
from synth.files import read_text, write_all, write_whole


class Stream(io.TextIOWrapper):
    """A text stream over bytes, as the standard ones are."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(io.BytesIO(data), encoding="ascii")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Reading.


def test_file_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes("né\r\n".encode())
    assert read_text(str(tmp_path / "a.json")) == "né\r\n"


def test_dash_reads_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stream("né".encode()))
    assert read_text("-") == "né"


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"^\S+a\.json does not exist: name a file that does, or -"):
        read_text(str(tmp_path / "a.json"))


def test_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match=r" is a folder: name a file$"):
        read_text(str(tmp_path))


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match=r" cannot be read: not a directory; name another file$"):
        read_text(str(tmp_path / "a" / "b"))


def test_forbidden_reading(tmp_path, monkeypatch):
    def forbid(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbid)
    with pytest.raises(InputError, match=r" may not be read: change its permissions"):
        read_text(str(tmp_path / "a.json"))


def test_file_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_FILE_BYTES", 10)
    (tmp_path / "a.json").write_text("x" * 10)
    (tmp_path / "b.json").write_text("x" * 11)
    assert read_text(str(tmp_path / "a.json")) == "x" * 10
    with pytest.raises(InputError, match=r"b\.json is larger than 1 GiB"):
        read_text(str(tmp_path / "b.json"))


def test_endless_stream_is_given_up(monkeypatch):
    monkeypatch.setattr(files, "LARGEST_FILE_BYTES", 2**21)
    with pytest.raises(InputError, match=r"^/dev/zero is larger than 1 GiB"):
        read_text("/dev/zero")


def test_other_encoding_names_the_byte(tmp_path):
    (tmp_path / "a.json").write_bytes(b"abc\xff")
    with pytest.raises(DocumentError, match=r"a\.json: \$ is not UTF-8 at byte 3: save it as UTF-8 text$"):
        read_text(str(tmp_path / "a.json"))


# Writing.


def test_file_is_written_and_written_again(tmp_path):
    path = tmp_path / "a.json"
    write_whole(str(path), "old")
    write_whole(str(path), "né\n")
    assert path.read_bytes() == "né\n".encode()
    assert names(tmp_path) == ["a.json"]


def test_bare_name_is_written_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_whole("a.json", "x")
    assert (tmp_path / "a.json").read_text() == "x"


def test_dash_writes_standard_output_as_utf_8(monkeypatch):
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    write_whole("-", "né")
    assert stream.buffer.getvalue() == "né".encode()


def test_dash_writes_a_text_stream(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    write_whole("-", "né")
    assert sys.stdout.getvalue() == "né"


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    def fail(*_):
        raise error

    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, step, fail)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_whole(str(path), "new")
    if expected is InputError:
        says = f"{path} cannot be written: no space left on device; name another file"
        assert str(caught.value) == says
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_text_that_is_none_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(str(path), "\ud800")
    assert path.read_text() == "old"


def test_missing_folder(tmp_path):
    with pytest.raises(
        InputError, match=r"a\.json cannot be written: there is no folder \S+no; create it first$"
    ):
        write_whole(str(tmp_path / "no" / "a.json"), "x")


def test_folder_is_not_replaced(tmp_path):
    with pytest.raises(InputError, match=r" is a folder: name a file$"):
        write_whole(str(tmp_path), "x")


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(InputError, match="there is no folder"):
        write_whole(str(tmp_path / "a" / "b"), "x")


def test_forbidden_writing(tmp_path, monkeypatch):
    def forbid(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(InputError, match=r" may not be written: change its permissions or its folder's"):
        write_whole(str(tmp_path / "a.json"), "x")


def test_read_only_file_is_left(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r" cannot be written: it is read-only; name another file$"):
        write_whole(str(path), "new")
    assert path.read_text() == "old"


def test_permissions_are_kept(tmp_path):
    path = tmp_path / "a.json"
    path.touch()
    path.chmod(0o640)
    write_whole(str(path), "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_whole(str(tmp_path / "whole"), "x")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("exists", [True, False])
def test_link_is_followed(tmp_path, exists):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    write_whole(str(link), "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert names(tmp_path / "folder") == ["target"]


def test_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(str(tmp_path / "pipe"), "x")
        assert os.read(reader, 9) == b"x"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["pipe"]


# Several files.


def test_all_files_are_written(tmp_path):
    (tmp_path / "b").write_text("old")
    (tmp_path / "b").chmod(0o640)
    write_all({str(tmp_path / "a"): "1", str(tmp_path / "b"): "2"})
    assert names(tmp_path) == ["a", "b"]
    assert [(tmp_path / name).read_text() for name in "ab"] == ["1", "2"]
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("none/c", "there is no folder"),
        ("folder", "folder is a folder: name a file"),
        ("-", "- holds one file and 3 are written: name a file"),
        ("/dev/null", "/dev/null holds one file and 3 are written: name a file"),
    ],
)
def test_none_is_written_where_one_cannot_be(tmp_path, last, sentence):
    (tmp_path / "a").write_text("old")
    (tmp_path / "folder").mkdir()
    path = last if last in ("-", "/dev/null") else str(tmp_path / last)
    with pytest.raises(InputError, match=sentence):
        write_all({str(tmp_path / "a"): "1", str(tmp_path / "b"): "2", path: "3"})
    assert names(tmp_path) == ["a", "folder"]
    assert (tmp_path / "a").read_text() == "old"


def test_failure_to_take_a_place_is_told(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match=r"a cannot be written: no space left on device; name another file$"):
        write_all({str(tmp_path / "a"): "1", str(tmp_path / "b"): "2"})
    assert names(tmp_path) == []


def test_interrupt_among_several_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    synced = []

    def interrupt(descriptor):
        synced.append(descriptor)
        if len(synced) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_all({str(tmp_path / "a"): "1", str(tmp_path / "b"): "2"})
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
