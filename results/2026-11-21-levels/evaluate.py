"""All schedules at all levels, for one machine, depth and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from config import PAPER, TWO_WAVES, Cell, network, problem

from synth.chunks import cut_every_way
from synth.levels import (
    Cut,
    Entrant,
    Levels,
    Standing,
    baseline_entrants,
    cuts_of,
    is_laid_out,
    look_at,
    rank_levels,
    simulation_level,
)
from synth.placement import PlacementKind
from synth.problem import Problem
from synth.simulate import Network

GIB = 2**30


def entrants_of(given: Problem) -> list[tuple[str, Entrant]]:
    """Every published schedule on its cut, by the name it is listed under; Hanayo with one wave and two.

    Left out is BPipe, which moves activations whose size is not that of a boundary.
    """
    entrants = baseline_entrants(cuts_of(given))[0]
    found = [(entrant.name, entrant) for entrant in entrants if is_laid_out(entrant.cut.problem)]
    waves = cut_every_way(given, PlacementKind.WAVE)
    cut = Cut(problem=waves.problems[-1], bytes_scale=waves.bytes_scale)
    return [*found, (TWO_WAVES, Entrant.baseline("hanayo", cut))]


def published(cell: Cell, depth: int, batch: int) -> list[Levels]:
    """The published schedules at all levels, transfers overlapped with compute, gradients not summed."""
    return [row for row, _ in _looked_at(cell, depth, batch)]


def _looked_at(cell: Cell, depth: int, batch: int) -> list[tuple[Levels, Entrant]]:
    return [
        (replace(look_at(entrant, network(cell, entrant.cut.problem)), name=name), entrant)
        for name, entrant in entrants_of(problem(cell, depth, batch))
    ]


def _otherwise(row: Levels, entrant: Entrant, over: Network) -> Levels:
    """The same schedule, simulated over another network."""
    return replace(row, simulation=simulation_level(entrant, over))


def evaluate(task: tuple[Cell, int, int]) -> list[dict[str, Any]]:
    """One row per schedule; for the paper's, one more without overlap and one with gradients summed."""
    cell, depth, batch = task
    looked_at = _looked_at(cell, depth, batch)
    of_paper = [(row, entrant) for row, entrant in looked_at if row.name in PAPER]
    ways = {
        "overlapped": [row for row, _ in looked_at],
        "blocking": [_otherwise(r, e, network(cell, e.cut.problem, overlaps=False)) for r, e in of_paper],
        "summed": [_otherwise(r, e, network(cell, e.cut.problem, sums=True)) for r, e in of_paper],
    }
    at = {"compute": cell.compute, "network": cell.network, "step": cell.step, "depth": depth, "batch": batch}
    return [
        {**at, "transfers": way, **_row(levels, standing)}
        for way, rows in ways.items()
        for levels, standing in zip(rows, rank_levels(rows), strict=True)
    ]


def _row(levels: Levels, standing: Standing) -> dict[str, Any]:
    formula = levels.formula
    return {
        "schedule": levels.name,
        "stages": levels.num_stages,
        "formula_idle": _rounded(formula and formula.idle_share),
        "formula_peak_activations": _rounded(formula and formula.peak_activations),
        "weight_copies": formula and formula.weight_copies,
        "formula_rank": standing.places[0],
        "slots": _rounded(levels.slots.slots),
        "slot_idle": _rounded(levels.slots.idle_share),
        "slot_peak_activations": _rounded(levels.slots.peak_activations),
        "slot_rank": standing.places[1],
        "seconds": round(float(levels.simulation.seconds), 7),
        "idle": _rounded(levels.simulation.idle_share),
        "peak_gib": round(float(levels.simulation.peak_bytes) / GIB, 3),
        "rank": standing.places[2],
    }


def _rounded(value: Fraction | float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def fastest(rows: Sequence[Levels], limit_bytes: Fraction) -> Levels:
    """The fastest schedule whose fullest rank holds no more than this."""
    return min(
        (row for row in rows if row.simulation.peak_bytes <= limit_bytes),
        key=lambda row: row.simulation.seconds,
    )
