"""The catalogue of GPUs and links: peaks from data sheets, each with its source in ``hardware.json``."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from costmodels.training import Precision
from synth.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What connects two GPUs, one way.

    Parameters
    ----------
    name, source
        What it is called, and where its numbers come from.
    bytes_per_s
        Peak, in one direction.
    latency_s
        Of a small transfer.
    """

    name: str
    bytes_per_s: float
    latency_s: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU and what usually connects several.

    Parameters
    ----------
    name, source
        What it is called, and where its numbers come from.
    memory_bytes
        All of its memory.
    half_flops_per_s, full_flops_per_s
        Dense peaks of matrix products in half and in full precision.
    memory_bytes_per_s
        Peak of its memory.
    nvlink, network
        Inside a node, and between nodes.
    has_bf16
        Whether the half precision may be bf16.
    """

    name: str
    memory_bytes: int
    half_flops_per_s: float
    full_flops_per_s: float
    memory_bytes_per_s: float
    nvlink: Link
    network: Link
    source: str
    has_bf16: bool = True

    def flops_per_s(self, precision: Precision) -> float:
        """The peak of matrix products in a precision.

        Raises
        ------
        InputError
            When the GPU does not have it.
        """
        if precision is Precision.BF16 and not self.has_bf16:
            raise InputError(f"{self.name} is given with bf16, which it does not have: give --dtype fp16")
        return self.full_flops_per_s if precision is Precision.FP32 else self.half_flops_per_s


def gpu_names() -> tuple[str, ...]:
    """The GPUs of the catalogue, oldest first."""
    return tuple(_catalogue()["gpus"])


def link_names() -> tuple[str, ...]:
    """The links of the catalogue."""
    return tuple(_catalogue()["links"])


def find_gpu(name: str) -> Gpu:
    """A GPU by name.

    Raises
    ------
    InputError
        Naming what the catalogue has.
    """
    entry = _entry("gpus", name, "GPU")
    return Gpu(
        name=name,
        memory_bytes=entry["memory_gib"] * 2**30,
        half_flops_per_s=entry["half_tflops"] * 1e12,
        full_flops_per_s=entry["full_tflops"] * 1e12,
        memory_bytes_per_s=entry["memory_gb_per_s"] * 1e9,
        nvlink=find_link(entry["nvlink"]),
        network=find_link(entry["network"]),
        source=entry["source"],
        has_bf16=entry.get("has_bf16", True),
    )


def find_link(name: str) -> Link:
    """A link by name.

    Raises
    ------
    InputError
        Naming what the catalogue has.
    """
    entry = _entry("links", name, "link")
    return Link(
        name=name,
        bytes_per_s=entry["gb_per_s"] * 1e9,
        latency_s=entry["latency_us"] * 1e-6,
        source=entry["source"],
    )


def latency_source() -> str:
    """Where the latencies of the catalogue's links come from."""
    source: str = _catalogue()["latency_source"]
    return source


@cache
def _catalogue() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("hardware.json").read_text(encoding="utf-8")
    catalogue: dict[str, Any] = json.loads(text)
    return catalogue


def _entry(kind: str, name: str, what: str) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = _catalogue()[kind]
    if name not in entries:
        near = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.5)
        hint = f"perhaps {near[0]} is meant; " if near else ""
        raise InputError(f"{name!r} is no {what} of the catalogue: {hint}it has {', '.join(entries)}")
    return entries[name]
