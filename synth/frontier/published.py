"""Published schedules as points beside a frontier: their values at their own peak memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from synth.baselines import BASELINES, baseline_schedule
from synth.chunks import merge_into_ranks
from synth.errors import BaselineUndefinedError
from synth.frontier.axis import Axis
from synth.frontier.points import Point
from synth.placement import PlacementKind, place
from synth.problem import Problem
from synth.schedule import measure

OF_CHUNKS = ("interleaved-1f1b", "group-interleaved-1f1b")
"""Baselines that are about several chunks: on one merged from them they are 1F1B with more warm-up."""

_MERGED = " (one chunk)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """A published schedule on the problem's costs.

    Parameters
    ----------
    name
        The baseline's name, and on what it stands where that is not the problem's own placement.
    memory_bytes
        The smallest limit that it fits, on the frontier's axis.
    value
        The objective's value, ticks.
    bubble_ratio
        ``1 - work / value``.
    source
        Where it was published.
    """

    name: str
    memory_bytes: int
    value: int
    bubble_ratio: float
    source: str


def published_points(problems: Sequence[Problem], axis: Axis) -> tuple[PublishedPoint, ...]:
    """Every baseline on the same model, once for every number of chunks it is defined for.

    A baseline takes the problem's own placement where it is defined there, else a loop or a wave of the same
    chunks, else one chunk per rank of the same total model.
    """
    found: dict[tuple[str, int], PublishedPoint] = {}
    for problem, suffix in _grounds(problems):
        for name, baseline in BASELINES.items():
            key = name, problem.num_stages
            if key in found or (suffix == _MERGED and name in OF_CHUNKS):
                continue
            with suppress(BaselineUndefinedError):
                metrics = measure(baseline_schedule(name, problem))
                found[key] = PublishedPoint(
                    name=name + suffix,
                    memory_bytes=axis.needed(problem, metrics.peak_memory_bytes),
                    value=metrics.value(problem.objective),
                    bubble_ratio=metrics.bubble_ratio,
                    source=baseline.source,
                )
    return tuple(found.values())


def curve_value(points: Sequence[Point], memory_bytes: int) -> int | None:
    """The best value at a limit of at most so many bytes; None where there is no schedule."""
    values = [point.value for point in points if point.limit_bytes <= memory_bytes]
    return min((value for value in values if value is not None), default=None)


def above_curve(points: Sequence[Point], published: PublishedPoint) -> float | None:
    """By what share a published value is above the best at its memory; below 0 where it is the better one.

    None where no limit was searched that says it: below the first with a schedule, and above the last.
    """
    if not points or published.memory_bytes > max(point.limit_bytes for point in points):
        return None
    best = curve_value(points, published.memory_bytes)
    return None if best is None else published.value / best - 1


def _grounds(problems: Sequence[Problem]) -> Iterator[tuple[Problem, str]]:
    """The problem under every placement to put a baseline on, with what to add to the baseline's name."""
    several = len(problems) > 1
    for problem in problems:
        chunks, odd = divmod(problem.num_stages, problem.num_ranks)
        count = f" ({chunks} chunks)" if several and chunks > 1 else ""
        for placed in problem.placements:
            yield placed, count
        if chunks > 1 and not odd:
            for kind in (PlacementKind.LOOP, PlacementKind.WAVE):
                placement = place(kind, problem.num_ranks, problem.num_stages)
                yield problem.with_placement(placement), f" ({kind}{f', {chunks} chunks' if several else ''})"
    if problems[0].num_stages != problems[0].num_ranks:
        yield merge_into_ranks(problems[0]), _MERGED
