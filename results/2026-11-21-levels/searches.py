"""The synthesized schedule of a machine, and what it gains over the best published one at equal memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from config import (
    MEMORIES,
    PAPER,
    SEARCH_S,
    SEED,
    SLICED,
    Cell,
    network,
    problem,
    transfer_bytes,
    transfer_ticks,
)
from evaluate import GIB, fastest, published

from synth import lower_bounds, synthesize
from synth.baselines import baseline_problem
from synth.levels import Cut, Entrant, Levels, cuts_of, look_at
from synth.problem import uniform_transfers
from synth.search.synthesizer import Result


def search(task: tuple[Cell, int, int]) -> list[dict[str, Any]]:
    """One row for every memory: the best published schedule within it, and the one found within it."""
    cell, depth, batch = task
    rows = published(cell, depth, batch)
    return [_search(cell, depth, batch, memory, rows) for memory in MEMORIES]


def _search(cell: Cell, depth: int, batch: int, memory: str, rows: Sequence[Levels]) -> dict[str, Any]:
    holder = MEMORIES[memory]
    alike = [row for row in rows if (row.name == SLICED) == (holder == SLICED)]
    peak = next(row.simulation.peak_bytes for row in alike if row.name == holder)
    best = fastest(alike, peak)
    found, result, bound_ticks = _synthesized(cell, _cuts(cell, depth, batch, holder), peak)
    tick = Fraction(result.schedule.problem.tick_seconds)
    bound = bound_ticks * tick
    within = [row for row in alike if row.name in PAPER and row.simulation.peak_bytes <= peak]
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
        "planned_seconds": round(float(result.value * tick), 7),
        "bound_seconds": round(float(bound), 7),
        "gap": round(1 - bound_ticks / result.value, 5),
        "gain": _saved(found.simulation.seconds, best),
        "most_possible_gain": _saved(bound, best),
        "found_by": result.provenance.method,
        "best_of_paper": of_paper and of_paper.name,
        "gain_over_paper": of_paper and _saved(found.simulation.seconds, of_paper),
    }


def _saved(seconds: Fraction, over: Levels) -> float:
    """The share of a schedule's time that a shorter one saves."""
    return round(float(1 - seconds / over.simulation.seconds), 5)


def _cuts(cell: Cell, depth: int, batch: int, holder: str) -> list[tuple[Cut, float]]:
    """What to search, each with its seconds, the longest first: chunks and stages, or slices alone."""
    cuts = cuts_of(problem(cell, depth, batch))
    if holder != SLICED:
        return sorted(zip(cuts, SEARCH_S, strict=True), key=lambda pair: -pair[1])
    sliced = baseline_problem(SLICED, cuts[-1].problem)
    # What a slice sends is a share of what its microbatch would.
    share = transfer_bytes() // (sliced.num_stages // depth)
    ticks = uniform_transfers(depth, transfer_ticks(cell, share))
    return [(replace(cuts[-1], problem=replace(sliced, transfer_ticks=ticks)), max(SEARCH_S))]


def _synthesized(cell: Cell, cuts: Sequence[tuple[Cut, float]], peak: Fraction) -> tuple[Levels, Result, int]:
    """The schedule at all levels, what the search says of it, and the least bound of all cuts of the model.

    A cut that cannot beat what another one gave is not searched: its own bounds prove it.
    """
    best: tuple[Result, Cut] | None = None
    bounds = []
    for cut, seconds in cuts:
        limited = cut.problem.with_memory_limit(int(peak * cut.bytes_scale))
        bounds.append(max(bound.ticks for bound in lower_bounds(limited)))
        if best and bounds[-1] >= best[0].value:
            continue
        result = synthesize(limited, time_limit=seconds, workers=1, seed=SEED)
        bounds[-1] = max(bounds[-1], result.lower_bound)
        if best is None or result.value < best[0].value:
            best = result, cut
    result, cut = best
    own = Cut(problem=result.schedule.problem, bytes_scale=cut.bytes_scale)
    entrant = Entrant.planned("synthesized", own, result.schedule)
    return look_at(entrant, network(cell, own.problem)), result, min(bounds)
