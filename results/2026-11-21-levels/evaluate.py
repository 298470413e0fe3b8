"""All schedules at all levels, for one machine, depth and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from config import PAPER, TWO_WAVES, Cell, network, problem

from synth.baselines import baseline_orders
from synth.chunks import cut_every_way
from synth.levels import (
    Cut,
    Entrant,
    Levels,
    Standing,
    baseline_entrants,
    cuts_of,
    look_at,
    rank_levels,
    simulation_level,
)
from synth.placement import PlacementKind
from synth.problem import Problem

GIB = 2**30


def entrants_of(given: Problem) -> list[tuple[str, Entrant]]:
    """Every published schedule on its cut, by the name it is listed under; Hanayo with one wave and two."""
    found = [(entrant.name, entrant) for entrant in baseline_entrants(cuts_of(given))[0]]
    waves = cut_every_way(given, PlacementKind.WAVE)
    cut = Cut(problem=waves.problems[-1], bytes_scale=waves.bytes_scale)
    orders = baseline_orders("hanayo", cut.problem)
    return [*found, (TWO_WAVES, Entrant(name="hanayo", cut=cut, orders=orders))]


def published(cell: Cell, depth: int, batch: int) -> list[Levels]:
    """The published schedules at all levels, transfers overlapped with compute."""
    return [row for row, _ in _looked_at(cell, depth, batch)]


def _looked_at(cell: Cell, depth: int, batch: int) -> list[tuple[Levels, Entrant]]:
    return [
        (replace(look_at(entrant, network(cell, entrant.cut.problem)), name=name), entrant)
        for name, entrant in entrants_of(problem(cell, depth, batch))
    ]


def evaluate(task: tuple[Cell, int, int]) -> list[dict[str, Any]]:
    """One row per schedule, and without overlap one for each that the paper compares."""
    cell, depth, batch = task
    looked_at = _looked_at(cell, depth, batch)
    blocking = [
        replace(
            row,
            simulation=simulation_level(entrant, network(cell, entrant.cut.problem, overlaps=False)),
        )
        for row, entrant in looked_at
        if row.name in PAPER
    ]
    at = {"compute": cell.compute, "network": cell.network, "step": cell.step, "depth": depth, "batch": batch}
    return [
        {**at, "overlap": overlaps, **_row(levels, standing)}
        for overlaps, rows in ((True, [row for row, _ in looked_at]), (False, blocking))
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
