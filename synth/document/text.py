"""JSON text: decoded more strictly than the standard library does, written to be read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from synth.document.refusal import Refusal, path_step, shortened, shown
from synth.document.wire import PROBLEM_FORMAT
from synth.files import decode_text

SMALLEST_REFUSED = 2**62
"""No integer of a document may reach this in size: sums must stay within 64 bits."""
_MOST_DIGITS = len(str(SMALLEST_REFUSED))
_LINE_WIDTH = 110
_RULES_OF_JSON = {
    "Expecting value": "a value is due there, such as a number or a string in double quotes",
    "Expecting property name enclosed in double quotes": "a key in double quotes is due there",
    "Expecting ',' delimiter": "a comma or a closing bracket is due there",
    "Expecting ':' delimiter": "a colon is due there",
    "Extra data": "the document is complete before that; remove what follows",
    "Unterminated string starting at": "close the string that starts there",
    "Invalid control character at": "write a line break in a string as \\n, a tab as \\t",
}
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAYBE_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the decoded JSON for a value that we refuse, until its path is known."""

    given: str
    rule: str


def parse_strictly(text: str | bytes, refuse: Refusal, expected: str = PROBLEM_FORMAT) -> Any:
    """Decode JSON more strictly than the standard library does; an empty text is told the expected format."""
    if isinstance(text, bytes):
        text = decode_text(text, refuse.source)
    if not text.strip():
        refuse("$", "empty", f'give a JSON object, {{"format": "{expected}", …}}')
    if text.startswith("\ufeff"):
        refuse("$", "preceded by a byte order mark", "save it as UTF-8 without one")
    hooks = _Hooks(refused=[])
    try:
        tree = json.loads(
            text,
            object_pairs_hook=hooks.object,
            parse_constant=hooks.constant,
            parse_int=hooks.integer,
            parse_float=hooks.float,
        )
    except json.JSONDecodeError as error:
        given = f"not JSON at line {error.lineno}, column {error.colno}"
        refuse("$", given, _RULES_OF_JSON.get(error.msg, error.msg[:1].lower() + error.msg[1:]))
    except RecursionError:
        refuse("$", "nested too deeply to read", "no document of ours is nested more than five deep")
    if hooks.refused or _MAYBE_SURROGATE.search(text):
        for path, found in _refused_values(tree):
            refuse(path, found.given, found.rule)
    return tree


@dataclass(frozen=True, slots=True)
class _Hooks:
    """What the JSON decoder calls; what it must not accept is marked, because it does not know its path."""

    refused: list[_Refused]

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    found[key] = self._refuse("given twice", "give every key once")
                seen.add(key)
        return found

    def constant(self, literal: str) -> _Refused:
        return self._refuse(literal, "give a finite number")

    def integer(self, literal: str) -> int | _Refused:
        # The digits are counted first: converting very many of them takes very long.
        if len(literal) <= _MOST_DIGITS + 1 and abs(value := int(literal)) < SMALLEST_REFUSED:
            return value
        return self._refuse(shortened(literal), "give an integer below 2**62 in size")

    def float(self, literal: str) -> float | _Refused:
        value = float(literal)
        if math.isfinite(value):
            return value
        return self._refuse(shortened(literal), "give a finite number")

    def _refuse(self, given: str, rule: str) -> _Refused:
        self.refused.append(_Refused(given, rule))
        return self.refused[-1]


def _refused_values(tree: Any) -> Iterator[tuple[str, _Refused]]:
    """The values refused by the hooks, and strings that are no text, with their paths, in document order."""
    stack: list[tuple[str, Any]] = [("$", tree)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, _Refused):
            yield path, node
        elif isinstance(node, str) and _SURROGATE.search(node):
            yield path, _Refused(shown(node), "give text without half a surrogate pair")
        elif isinstance(node, dict):
            stack += reversed([(path + path_step(key), value) for key, value in node.items()])
            stack += [(path + path_step(key), key) for key in node if _SURROGATE.search(key)]
        elif isinstance(node, list):
            stack += reversed([(f"{path}[{index}]", value) for index, value in enumerate(node)])


def layout(tree: dict[str, Any]) -> str:
    """Indented JSON in which what fits on a line, and every list of numbers, is on one."""
    return _broken(tree, "") + "\n"


def _broken(value: Any, indent: str) -> str:
    """A container with one line or more for each of its items."""
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{_flat(key)}: {_fitted(item, inner, len(key) + 4)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _fitted(item, inner, 0) for item in value) + f"\n{indent}]"


def _fitted(value: Any, indent: str, taken: int) -> str:
    """A value on one line where that fits behind the indent and what is taken."""
    if not isinstance(value, dict | tuple | list) or not value:
        return _flat(value)
    if not isinstance(value, dict) and all(isinstance(item, int | float) for item in value):
        return _flat(value)
    room = _LINE_WIDTH - len(indent) - taken
    if len(value) <= room and len(flat := _flat(value)) <= room:
        return flat
    return _broken(value, indent)


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
