"""The published instances that ship, each with its source.

``published.json`` holds one entry per instance, on one stage per rank. A cost is one integer for all stages
or a list with one per stage; the undivided backward takes the ticks of B and W together and frees what they
free.
"""

from __future__ import annotations

import difflib
import json
from importlib import resources
from typing import Any

from synth.errors import InputError
from synth.placement import PlacementKind, place
from synth.problem import Objective, OpCost, Problem, StageCosts, uniform_transfers


def instance_names() -> tuple[str, ...]:
    """The names of the instances that ship, in the order of their sources."""
    return tuple(_entries())


def load_instance(name: str) -> Problem:
    """Load a published instance.

    Parameters
    ----------
    name
        One of :func:`instance_names`.

    Raises
    ------
    InputError
        Naming near names, when there is no such instance.
    """
    entries = _entries()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3) or list(entries)
        raise InputError(f"{name!r} is no published instance: use {' or '.join(near)}")
    return _problem(entries[name])


def _entries() -> dict[str, dict[str, Any]]:
    text = resources.files(__name__).joinpath("published.json").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in json.loads(text)}


def _problem(entry: dict[str, Any]) -> Problem:
    num_ranks, limit = entry["num_ranks"], entry["memory_limit_bytes"]
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=entry["num_microbatches"],
        placement=place(PlacementKind.LOOP, num_ranks, num_ranks),
        stages=tuple(_stage_costs(entry, stage) for stage in range(num_ranks)),
        transfer_ticks=uniform_transfers(num_ranks, entry["transfer_ticks"]),
        memory_limit_bytes=None if limit is None else (limit,) * num_ranks,
        objective=Objective(entry["objective"]),
        name=entry["name"],
        source=entry["source"],
    )


def _stage_costs(entry: dict[str, Any], stage: int) -> StageCosts:
    def cost(key: str) -> int:
        value = entry[key]
        return int(value[stage] if isinstance(value, list) else value)

    divided = cost("B_ticks"), cost("B_free_bytes"), cost("W_ticks"), cost("W_free_bytes")
    b_ticks, b_free, w_ticks, w_free = divided
    return StageCosts(
        F=OpCost(ticks=cost("F_ticks"), alloc_bytes=cost("F_alloc_bytes")),
        B=OpCost(ticks=b_ticks, free_bytes=b_free),
        W=OpCost(ticks=w_ticks, free_bytes=w_free),
        BW=OpCost(ticks=b_ticks + w_ticks, free_bytes=b_free + w_free),
    )
