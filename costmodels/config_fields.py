"""The fields of a ``config.json``: read strictly, refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synth.document.refusal import Refusal, shown
from synth.document.text import parse_strictly
from synth.files import read_text

LARGEST_CONFIG_BYTES = 2**20
"""Published configurations are a few kB; a larger file is something else, weights perhaps."""
LARGEST_SIZE = 2**31
"""No width, vocabulary or number of heads is larger."""


@dataclass(frozen=True, slots=True)
class ConfigFields:
    """The fields of one configuration; what is missing or of the wrong kind is refused with its JSON path."""

    tree: dict[str, Any]
    refuse: Refusal

    def count(self, key: str, default: int | None = None, *, least: int = 1, most: int = LARGEST_SIZE) -> int:
        """An integer within bounds; without a default it must be there."""
        value = self.tree.get(key)
        if value is None and default is not None:
            return default
        rule = f"give an integer from {least} to {most}"
        if value is None:
            self.refuse(f"$.{key}", "null" if key in self.tree else "missing", rule)
        if type(value) is not int or not least <= value <= most:
            self.refuse(f"$.{key}", shown(value), rule)
        return value

    def count_or_null(self, key: str, *, least: int = 1) -> int | None:
        """An integer, or null where the model does without; it must be there."""
        if key not in self.tree:
            self.refuse(f"$.{key}", "missing", f"give an integer from {least} to {LARGEST_SIZE}, or null")
        return None if self.tree[key] is None else self.count(key, least=least)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.tree.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            self.refuse(f"$.{key}", shown(value), "give true or false")
        return value

    def probability(self, key: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.tree.get(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not 0 <= value <= 1:
            self.refuse(f"$.{key}", shown(value), "give a number from 0 to 1")
        return float(value)

    def indices(self, key: str, below: int) -> tuple[int, ...]:
        """A list of layer numbers, empty where it is missing."""
        value = self.tree.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or any(type(i) is not int or not 0 <= i < below for i in value):
            self.refuse(f"$.{key}", shown(value), f"give a list of layer numbers from 0 to {below - 1}")
        return tuple(value)


def read_fields(path: str) -> ConfigFields:
    """Read a configuration file.

    Raises
    ------
    InputError
        When it cannot be read or is larger than 1 MiB.
    DocumentError
        When it is not strict JSON or no object.
    """
    text = read_text(path, most_bytes=LARGEST_CONFIG_BYTES, wanted="the config.json of a model")
    refuse = Refusal(path)
    if not text.strip():
        refuse("$", "empty", 'give the config.json of a model, {"model_type": …}')
    tree = parse_strictly(text, refuse)
    if not isinstance(tree, dict):
        refuse("$", shown(tree), 'give the config.json of a model, {"model_type": …}')
    return ConfigFields(tree, refuse)
