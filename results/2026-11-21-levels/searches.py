"""The synthesized schedule of a machine, and what it gains over the best published one at equal memory."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from config import MEMORIES, PAPER, SEARCH_S, SEED, Cell, network, problem
from evaluate import GIB, fastest, published

from synth import synthesize
from synth.levels import Cut, Entrant, Levels, cuts_of, look_at


def search(task: tuple[Cell, int, int]) -> list[dict[str, Any]]:
    """One row for every memory: the best published schedule within it, and the one found within it."""
    cell, depth, batch = task
    rows = published(cell, depth, batch)
    return [_search(cell, depth, batch, memory, rows) for memory in MEMORIES]


def _search(cell: Cell, depth: int, batch: int, memory: str, rows: Sequence[Levels]) -> dict[str, Any]:
    of = {row.name: row for row in rows}
    holder = MEMORIES[memory]
    peak = (of[holder] if holder else min(rows, key=lambda row: row.simulation.seconds)).simulation.peak_bytes
    best = fastest(rows, peak)
    found, value, bound, gap, best_from = _synthesized(cell, depth, batch, peak)
    within = [row for row in rows if row.name in PAPER and row.simulation.peak_bytes <= peak]
    of_paper = fastest(within, peak) if within else None
    return {
        "compute": cell.compute,
        "network": cell.network,
        "depth": depth,
        "batch": batch,
        "memory": memory,
        "limit_gib": round(float(peak) / GIB, 3),
        "published": best.name,
        "published_seconds": round(float(best.simulation.seconds), 7),
        "published_peak_gib": round(float(best.simulation.peak_bytes) / GIB, 3),
        "synthesized_seconds": round(float(found.simulation.seconds), 7),
        "synthesized_peak_gib": round(float(found.simulation.peak_bytes) / GIB, 3),
        "synthesized_stages": found.num_stages,
        "planned_seconds": round(float(value), 7),
        "bound_seconds": round(float(bound), 7),
        "gap": round(gap, 5),
        "gain": _saved(found.simulation.seconds, best),
        "most_possible_gain": _saved(bound, best),
        "found_by": best_from,
        "best_of_paper": of_paper and of_paper.name,
        "gain_over_paper": of_paper and _saved(found.simulation.seconds, of_paper),
    }


def _saved(seconds: Fraction, over: Levels) -> float:
    """The share of a schedule's time that a shorter one saves."""
    return round(float(1 - seconds / over.simulation.seconds), 5)


def _synthesized(cell: Cell, depth: int, batch: int, peak: Fraction) -> tuple[Any, ...]:
    """The schedule at all levels, what it was planned to take, and the bound, over all cuts of the model."""
    cuts = cuts_of(problem(cell, depth, batch))[::-1]
    limited = [cut.problem.with_memory_limit(int(peak * cut.bytes_scale)) for cut in cuts]
    result = synthesize(limited[0], alternatives=limited[1:], time_limit=SEARCH_S, workers=1, seed=SEED)
    own = result.schedule.problem
    entrant = Entrant(
        name="synthesized",
        cut=Cut(problem=own, bytes_scale=cuts[0].bytes_scale),
        orders=result.schedule.orders,
    )
    tick = Fraction(own.tick_seconds)
    found = look_at(entrant, network(cell, own))
    return found, result.value * tick, result.lower_bound * tick, result.gap, result.provenance.method
