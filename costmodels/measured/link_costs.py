"""What transfers between ranks cost: a latency and a bandwidth for each ordered pair, in a small file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth.document.text import layout
from synth.errors import InputError

FORMAT, VERSION = "pipesynth.links", 1

Matrix = tuple[tuple[float, ...], ...]
"""[from rank][to rank]; the diagonal is ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCosts:
    """The links between all ranks.

    Parameters
    ----------
    latency_s, bytes_per_s
        Of each ordered pair.
    source
        Where they come from.
    """

    latency_s: Matrix
    bytes_per_s: Matrix
    source: str

    @property
    def num_ranks(self) -> int:
        """How many ranks."""
        return len(self.latency_s)

    def seconds(self, sender: int, receiver: int, size_bytes: int) -> float:
        """The time of one transfer."""
        return self.latency_s[sender][receiver] + size_bytes / self.bytes_per_s[sender][receiver]


def uniform_links(num_ranks: int, latency_s: float, bytes_per_s: float, source: str) -> LinkCosts:
    """The same link between all ranks."""
    return LinkCosts(
        latency_s=((latency_s,) * num_ranks,) * num_ranks,
        bytes_per_s=((bytes_per_s,) * num_ranks,) * num_ranks,
        source=source,
    )


def fit_link(seconds_by_size: Mapping[int, float]) -> tuple[float, float]:
    """Fit latency + size / bandwidth to measured transfers by least squares of relative errors.

    Relative, because large transfers would otherwise drown the latency of small ones.

    Parameters
    ----------
    seconds_by_size
        One-way times by bytes, at least two sizes.

    Returns
    -------
    Latency in seconds, at least 0, and bytes per second.

    Raises
    ------
    InputError
        When a time is not a finite number above 0, or larger messages take no longer.
    """
    for size, seconds in seconds_by_size.items():
        if not (math.isfinite(seconds) and seconds > 0):
            raise InputError(
                f"a message of {size} bytes took {seconds} s: a time is finite and above 0, measure again"
            )
    points = [(1 / seconds, size / seconds) for size, seconds in seconds_by_size.items()]
    # Both columns against 1: the normal equations of two unknowns.
    uu, uv, vv = (sum(a * b for a, b in pairs) for pairs in _products(points))
    u, v = (sum(column) for column in zip(*points, strict=True))
    determinant = uu * vv - uv * uv
    latency, per_byte = (u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant
    if latency < 0:
        latency, per_byte = 0.0, v / vv
    if per_byte <= 0:
        largest = max(seconds_by_size)
        raise InputError(
            f"messages of up to {largest} bytes take no longer than small ones: measure larger ones"
        )
    return latency, 1 / per_byte


def _products(points: list[tuple[float, float]]) -> tuple[list[tuple[float, float]], ...]:
    return [(u, u) for u, _ in points], points, [(v, v) for _, v in points]


def write_links(links: LinkCosts) -> str:
    """Write a file that :func:`read_links` reads."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "source": links.source,
        "latency_s": links.latency_s,
        "bytes_per_s": links.bytes_per_s,
    }
    return layout(document)


def read_links(text: str, source: str) -> LinkCosts:
    """Read measured links.

    Raises
    ------
    InputError
        Saying what is wrong with the file.
    """
    try:
        tree: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is no JSON: give a file of measured links") from error
    if not isinstance(tree, dict) or (tree.get("format"), tree.get("version")) != (FORMAT, VERSION):
        raise InputError(f"{source} holds no measured links: give a {FORMAT} file, version {VERSION}")
    latency = _matrix(tree.get("latency_s"), f"{source}: latency_s", least=0.0)
    speed = _matrix(tree.get("bytes_per_s"), f"{source}: bytes_per_s", least=math.ulp(0.0))
    if len(latency) != len(speed):
        raise InputError(
            f"{source}: latency_s is for {len(latency)} ranks and bytes_per_s for {len(speed)}: give both"
        )
    return LinkCosts(latency_s=latency, bytes_per_s=speed, source=str(tree.get("source", "")))


def _matrix(given: object, where: str, least: float) -> Matrix:
    if not isinstance(given, list) or not given:
        raise InputError(f"{where} is no matrix: give a row for each rank")
    rows = []
    for a, row in enumerate(given):
        if not isinstance(row, list) or len(row) != len(given):
            raise InputError(f"{where}[{a}] does not have {len(given)} entries: give one for each rank")
        for b, value in enumerate(row):
            good = isinstance(value, int | float) and not isinstance(value, bool)
            if not good or not (least if a != b else 0) <= value < 1e300:
                kind = "at least 0" if least == 0 else "above 0"
                raise InputError(f"{where}[{a}][{b}] is {value}: give a finite number {kind}")
        rows.append(tuple(map(float, row)))
    return tuple(rows)


def check_ranks(links: LinkCosts, num_ranks: int) -> None:
    """Make sure that links are for so many ranks.

    Raises
    ------
    InputError
        When they are for another number.
    """
    if links.num_ranks != num_ranks:
        raise InputError(
            f"the links were measured between {links.num_ranks} ranks, and {num_ranks} are asked for: "
            "measure them between as many"
        )


def pair_bytes(sent_bytes: Sequence[int], stage_to_rank: Sequence[int]) -> dict[tuple[int, int], int]:
    """The largest transfer of each ordered pair of ranks: an output one way, its gradient the other."""
    largest: dict[tuple[int, int], int] = {}
    neighbours = zip(stage_to_rank, stage_to_rank[1:], sent_bytes, strict=False)
    for a, b, size in neighbours:
        for pair in ((a, b), (b, a)):
            largest[pair] = max(size, largest.get(pair, 0))
    return largest
