"""What a sweep has found, a line for each: a broken sweep goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synth.drafts import WeightPolicy
from synth.errors import InputError
from synth.planner.judging import Row, Verdict

JUDGED, SYNTHESIZED = "judged.jsonl", "synthesized.jsonl"
"""First the recipe's fingerprint, then a line for every judgement, every schedule that was searched for."""


class Journal:
    """The judgements of one recipe, and the schedules found, in a folder.

    Parameters
    ----------
    folder
        It is made where its parent exists.
    fingerprint
        Of the recipe.

    Raises
    ------
    InputError
        When no such folder can be made or written into, then or later, or it is another recipe's.
    """

    def __init__(self, folder: str, fingerprint: str) -> None:
        try:
            Path(folder).mkdir(exist_ok=True)
        except OSError as error:
            raise _cannot_hold(Path(folder), error) from error
        self._judged = Record(Path(folder) / JUDGED, fingerprint)
        self.synthesized = Record(Path(folder) / SYNTHESIZED, fingerprint)

    def read(self) -> dict[str, Verdict]:
        """What is known by key, all lines of a configuration together."""
        known: dict[str, Verdict] = {}
        for tree in self._judged.read():
            found = _verdict(tree)
            if found is not None:
                known[found.key] = known[found.key].and_then(found) if found.key in known else found
        return known

    def add(self, verdict: Verdict) -> None:
        """Append a line."""
        self._judged.add(asdict(verdict))


class Record:
    """Lines of JSON in a file, behind one that says whose they are. Broken lines are left out.

    Parameters
    ----------
    path
        The file.
    fingerprint
        Of the recipe that they belong to.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        header = json.dumps({"format": "pipesynth.judged", "version": 1, "fingerprint": fingerprint})
        try:
            self._begin(header + "\n")
        except OSError as error:
            raise _cannot_hold(path.parent, error) from error

    def read(self) -> Iterator[dict[str, Any]]:
        """What the lines hold."""
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise _cannot_hold(self._path.parent, error) from error
        for line in text.split("\n")[1:]:
            try:
                tree = json.loads(line)
            except ValueError:
                continue
            if isinstance(tree, dict):
                yield tree

    def add(self, tree: dict[str, Any]) -> None:
        """Append a line."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(tree) + "\n")
        except OSError as error:
            raise _cannot_hold(self._path.parent, error) from error

    def _begin(self, header: str) -> None:
        if self._path.exists() and not self._path.is_file():
            raise InputError(f"{self._path} is no file: name another folder")
        with self._path.open("a+b") as file:
            file.seek(0)
            given = file.read(len(header)).decode("utf-8", errors="replace")
            if given != header and header.startswith(given):  # empty, or broken off in the first line
                file.truncate(0)
                file.write(header.encode())
                return
            if given != header:
                raise InputError(
                    f"{self._path} is of another model, cluster or batch: name another folder, or remove "
                    "that one"
                )
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # what a broken sweep left of its last line
                file.write(b"\n")


def _cannot_hold(folder: Path, error: OSError) -> InputError:
    reason = (error.strerror or "unknown error").lower()
    return InputError(f"{folder} cannot hold a sweep: {reason}; name another folder")


def _verdict(tree: dict[str, Any]) -> Verdict | None:
    """A judgement, None where the line is broken."""
    try:
        return Verdict(
            key=str(tree["key"]),
            policy=WeightPolicy(tree["policy"]),
            least_ticks=int(tree["least_ticks"]),
            least_undivided_ticks=int(tree["least_undivided_ticks"]),
            tried=tuple(map(str, tree["tried"])),
            rows=tuple(Row(**row) for row in tree["rows"]),
            refusal=str(tree["refusal"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
