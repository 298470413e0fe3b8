"""Decoded JSON to wire types; what does not fit is explained in our words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from synth.document.refusal import Refusal, path_step, shown
from synth.document.wire import VERSION, Wire

AnyWire = TypeVar("AnyWire", bound=Wire)
_WHERE = re.compile(r"at `(\$[\w.\[\]]*)`\Z")
_NEAR = 0.75
"""How alike, from 0 to 1, an unknown key must be to one that may have been meant."""
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def check_header(tree: Any, expected: str, path: str, refuse: Refusal) -> None:
    """Refuse another format or a newer version before looking at anything else."""
    if not isinstance(tree, dict):
        refuse(path, shown(tree), f'give an object, {{"format": "{expected}", …}}')
    accepted: tuple[tuple[str, str | int], ...] = (("format", expected), ("version", VERSION))
    for key, value in accepted:
        if key not in tree:
            refuse(f"{path}.{key}", "missing", f"give {shown(value)}")
        found = tree[key]
        if key == "version" and type(found) is int and found > VERSION:
            refuse(
                f"{path}.version",
                shown(found),
                f"version {found} is newer than this reader, which knows {VERSION}; update pipesynth",
            )
        if type(found) is not type(value) or found != value:
            refuse(f"{path}.{key}", shown(found), f"give {shown(value)}")


def convert(tree: Any, wire: type[AnyWire], refuse: Refusal) -> AnyWire:
    """Convert to a wire type: exact types, every required key, no unknown ones."""
    try:
        return msgspec.convert(tree, wire, strict=True)
    except msgspec.ValidationError as error:
        _explain(str(error), tree, wire, refuse)


def _explain(message: str, tree: Any, wire: type[Wire], refuse: Refusal) -> NoReturn:
    """Say in our words what msgspec found: the path is its, the value and the rule are looked up there."""
    match = _WHERE.search(message)
    path = match[1] if match else "$"
    if message.startswith("Object contains unknown field"):
        # An unknown key may hold anything, even what looks like a path: find the object with one.
        path, node, type_ = next(_objects_with_unknown_keys(tree, inspect.type_info(wire)))
        fields = _fields(type_)
        key = next(key for key in node if key not in fields)
        refuse(path + path_step(key), "not a known key", _near_keys(key, fields))
    node, type_ = tree, inspect.type_info(wire)
    for key, index in _STEP.findall(path):
        step = key or int(index)
        node, type_ = node[step], _type_below(type_, step)
    if message.startswith("Object missing required field"):
        fields = _fields(type_)
        key = next(key for key, field in fields.items() if field.required and key not in node)
        refuse(f"{path}.{key}", "missing", f"give {_accepted(fields[key].type)}")
    refuse(path, shown(node), f"give {_accepted(type_)}")


def _objects_with_unknown_keys(
    node: Any, type_: inspect.Type, path: str = "$"
) -> Iterator[tuple[str, dict[str, Any], inspect.Type]]:
    """The objects in which a key is none of their type's fields, with their paths."""
    fields = _fields(type_)
    if isinstance(node, dict) and fields:
        if not node.keys() <= fields.keys():
            yield path, node, type_
        for key in filter(fields.__contains__, node):
            yield from _objects_with_unknown_keys(node[key], fields[key].type, f"{path}.{key}")
    elif isinstance(node, list) and not isinstance(type_, inspect.AnyType):
        for index, item in enumerate(node):
            yield from _objects_with_unknown_keys(item, _type_below(type_, index), f"{path}[{index}]")


def _alternatives(type_: inspect.Type) -> Iterator[inspect.Type]:
    """The types a type may be, without descriptions."""
    match type_:
        case inspect.Metadata():
            yield from _alternatives(type_.type)
        case inspect.UnionType():
            for alternative in type_.types:
                yield from _alternatives(alternative)
        case _:
            yield type_


def _fields(type_: inspect.Type) -> dict[str, inspect.Field]:
    """The fields of the object a type may be, none where it may be no object."""
    structs = (t for t in _alternatives(type_) if isinstance(t, inspect.StructType))
    return {field.name: field for struct in structs for field in struct.fields}


def _type_below(type_: inspect.Type, step: str | int) -> inspect.Type:
    """The type of one field or of the list items."""
    if isinstance(step, str):
        return _fields(type_)[step].type
    lists = (t for t in _alternatives(type_) if isinstance(t, inspect.VarTupleType))
    return next((t.item_type for t in lists), inspect.AnyType())


def _accepted(type_: inspect.Type) -> str:
    """What a type accepts, in words: its description, or the keys of the object it may be."""
    described = type_.extra_json_schema if isinstance(type_, inspect.Metadata) else None
    if described and "description" in described:
        return str(described["description"])
    null = ", or null" if any(isinstance(t, inspect.NoneType) for t in _alternatives(type_)) else ""
    return f"an object with {_listed(list(_fields(type_)))}{null}"


def _near_keys(key: str, fields: dict[str, inspect.Field]) -> str:
    near = difflib.get_close_matches(key, fields, n=1, cutoff=_NEAR)
    meant = f"perhaps {near[0]} is meant" if near else "remove it"
    return f"{meant}; the keys here are {_listed(list(fields))}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
