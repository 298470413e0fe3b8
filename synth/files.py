"""Whole files: read with a plain sentence when that fails, replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from typing import BinaryIO

from synth.errors import DocumentError, InputError

STANDARD_STREAM = "-"
"""The path that stands for standard input when reading and standard output when writing."""
LARGEST_FILE_BYTES = 2**30
"""A larger file is refused: it is no document of ours, or an endless stream."""
_CHUNK_BYTES = 2**20


def read_text(path: str) -> str:
    """Read a whole UTF-8 file, or standard input for ``-``.

    Parameters
    ----------
    path
        A file, or ``-``.

    Raises
    ------
    InputError
        When there is no such file, it may not be read, or it is larger than 1 GiB.
    DocumentError
        When it is not UTF-8.
    """
    if path == STANDARD_STREAM:
        return decode_text(_read_up_to_limit(sys.stdin.buffer, "standard input"), path)
    try:
        with open(path, "rb") as file:
            return decode_text(_read_up_to_limit(file, path), path)
    except OSError as error:
        raise InputError(_sentence(path, "read", error)) from error


def decode_text(data: bytes, source: str = "") -> str:
    """Decode UTF-8, refusing anything else with the place of the first wrong byte.

    Raises
    ------
    DocumentError
        Naming the byte.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        given = f"not UTF-8 at byte {error.start}"
        raise DocumentError("$", given, "save it as UTF-8 text", source) from error


def write_whole(path: str, content: str | bytes) -> None:
    """Write a file whole or not at all, or to standard output for ``-``.

    The content goes to a new file beside the old one, which then takes its place in one step: whatever
    happens, the old content or the new is there. A link is followed, and an existing file keeps its
    permissions.

    Parameters
    ----------
    path
        A file in a folder that exists, or ``-``.
    content
        All of it; text is written as UTF-8.

    Raises
    ------
    InputError
        When the file cannot be written; what was there is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path == STANDARD_STREAM:
        _write_standard_output(data)
        return
    try:
        _write(path, data)
    except OSError as error:
        raise InputError(_sentence(path, "written", error)) from error


def _read_up_to_limit(file: BinaryIO, name: str) -> bytes:
    """Read in chunks, because the size of a pipe or a device is not known before."""
    data = bytearray()
    while chunk := file.read(_CHUNK_BYTES):
        data += chunk
        if len(data) > LARGEST_FILE_BYTES:
            raise InputError(f"{name} is larger than 1 GiB: give a problem or schedule document")
    return bytes(data)


def _write_standard_output(data: bytes) -> None:
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # replaced by a text stream
        sys.stdout.write(data.decode("utf-8"))
    else:
        # The encoding of standard output depends on the locale; documents are UTF-8 everywhere.
        binary.write(data)
        binary.flush()


def _write(path: str, data: bytes) -> None:
    mode = _existing_mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        # A device or a pipe, such as /dev/stdout, is written to and never replaced.
        with open(path, "wb") as file:
            file.write(data)
        return
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise InputError(f"{path} cannot be written: there is no folder {folder}; create it first")
    if mode is not None and not os.access(target, os.W_OK):
        raise InputError(f"{path} cannot be written: it is read-only; name another file")
    _replace(target, data, None if mode is None else stat.S_IMODE(mode))


def _existing_mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _replace(target: str, data: bytes, permissions: int | None) -> None:
    beside = os.path.join(os.path.dirname(target), f".pipesynth-{secrets.token_hex(8)}.tmp")
    # O_EXCL never follows a link or reuses a file; 0o666 lets the umask decide, as for any new file.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            if permissions is not None:
                os.fchmod(descriptor, permissions)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, target)
    except BaseException:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _sentence(path: str, done: str, error: OSError) -> str:
    """What went wrong with a file, and what would do."""
    match error:
        case FileNotFoundError():
            return f"{path} does not exist: name a file that does, or - for standard input"
        case IsADirectoryError():
            return f"{path} is a folder: name a file"
        case PermissionError():
            return f"{path} may not be {done}: change its permissions or its folder's, or name another file"
        case _:
            reason = (error.strerror or "unknown error").lower()
            return f"{path} cannot be {done}: {reason}; name another file"
