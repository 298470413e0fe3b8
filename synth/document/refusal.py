"""How a document is refused: one sentence with a JSON path, the value there, and what would do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from synth.errors import DocumentError

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Refusal:
    """Raises the error of one document."""

    source: str

    def __call__(self, path: str, given: str, rule: str) -> NoReturn:
        raise DocumentError(path, given, rule, self.source)


def path_step(key: str) -> str:
    """One key as a step of a JSON path."""
    return f".{key}" if key.isidentifier() and key.isascii() else f"[{shown(key)}]"


def shown(value: Any) -> str:
    """A JSON value as it should be shown: one line of printable characters, shortened."""
    shown = ""
    # The encoder yields piece by piece, so a huge or deep value costs no more than what is shown of it.
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        shown += piece
        if len(shown) > _SHOWN_CHARACTERS:
            break
    return shortened(shown)


def shortened(text: str) -> str:
    """Text on one line of printable characters, cut where it is too long to read."""
    start = text[: _SHOWN_CHARACTERS + 1]
    printable = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in start)
    return printable if len(printable) <= _SHOWN_CHARACTERS else printable[: _SHOWN_CHARACTERS - 1] + "…"
