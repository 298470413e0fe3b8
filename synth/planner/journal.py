"""What a sweep has judged, a line for each: a broken sweep goes on from there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synth.drafts import WeightPolicy
from synth.errors import InputError
from synth.planner.judging import Row, Verdict

JUDGED = "judged.jsonl"
"""First the recipe's fingerprint, then a line for every judgement. A broken last line is left out."""


class Journal:
    """The judgements of one recipe, in a folder.

    Parameters
    ----------
    folder
        It is made where its parent exists.
    fingerprint
        Of the recipe.

    Raises
    ------
    InputError
        When no such folder can be made or written into, or it is another recipe's.
    """

    def __init__(self, folder: str, fingerprint: str) -> None:
        self.path = Path(folder) / JUDGED
        try:
            Path(folder).mkdir(exist_ok=True)
            self._begin(fingerprint)
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise InputError(f"{folder} cannot hold a sweep: {reason}; name another folder") from error

    def read(self) -> dict[str, Verdict]:
        """What is known by key, all lines of a configuration together."""
        known: dict[str, Verdict] = {}
        for line in self._lines()[1:]:
            found = _verdict(line)
            if found is not None:
                known[found.key] = known[found.key].and_then(found) if found.key in known else found
        return known

    def add(self, verdict: Verdict) -> None:
        """Append a line, and see it to the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8", errors="replace").split("\n")

    def _begin(self, fingerprint: str) -> None:
        header = json.dumps({"format": "pipesynth.judged", "version": 1, "fingerprint": fingerprint})
        if not self.path.exists():
            self.path.write_text(header + "\n", encoding="utf-8")
            return
        if self._lines()[0] != header:
            raise InputError(
                f"{self.path} is of another model, cluster or batch: name another folder, or remove that one"
            )
        with self.path.open("rb+") as file:  # what a broken sweep left of its last line
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _verdict(line: str) -> Verdict | None:
    """A judgement, None where the line is broken."""
    try:
        tree: dict[str, Any] = json.loads(line)
        return Verdict(
            key=str(tree["key"]),
            policy=WeightPolicy(tree["policy"]),
            least_ticks=int(tree["least_ticks"]),
            least_undivided_ticks=int(tree.get("least_undivided_ticks", 0)),
            tried=tuple(map(str, tree["tried"])),
            rows=tuple(Row(**row) for row in tree["rows"]),
            refusal=str(tree["refusal"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
