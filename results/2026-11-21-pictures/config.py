"""What is drawn: the costs, the schedules and which of them stand in which picture."""

from __future__ import annotations

from dataclasses import dataclass

from synth import (
    Objective,
    OpCost,
    OpKind,
    PlacementKind,
    Problem,
    StageCosts,
    load_instance,
    uniform_problem,
)
from synth.chunks import cut_stages

SEED, WORKERS = 0, 2

PROFILE = "zb-1.5b-m24"
"""The times of one rank: arXiv 2401.10241, Table 9."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A schedule of a picture.

    Parameters
    ----------
    file
        Its document, without the suffix.
    title
        Above it in the picture.
    problem
        What is scheduled.
    baseline
        Its name; empty for a synthesized schedule.
    seconds
        How long to synthesize.
    """

    file: str
    title: str
    problem: Problem
    baseline: str = ""
    seconds: float = 0.0


def measured(ranks: int, microbatches: int, objective: Objective) -> Problem:
    """The profile's times on so many ranks; a microbatch's activations are two units, freed at W only."""
    profile = load_instance(PROFILE)
    costs = profile.stages[0]
    stage = StageCosts(
        F=OpCost(ticks=costs.F.ticks, alloc_bytes=2),
        B=OpCost(ticks=costs.cost(OpKind.B).ticks),
        W=OpCost(ticks=costs.cost(OpKind.W).ticks, free_bytes=2),
        BW=OpCost(ticks=costs.cost(OpKind.BW).ticks, free_bytes=2),
    )
    transfer = profile.transfer_ticks[0][1]
    name = f"1.5B times on {ranks} ranks"
    return uniform_problem(
        ranks, microbatches, stage, transfer_ticks=transfer, objective=objective, name=name
    )


def in_a_v(problem: Problem, limit: int) -> Problem:
    """Every stage cut in two, the parts in a V, under a limit in activations of one part."""
    return cut_stages(problem, 2, PlacementKind.V).problem.with_memory_limit(limit)


def in_unit_times(ranks: int, microbatches: int, chunks: int) -> Problem:
    """F = B = W = 2 ticks on a rank, in one stage or in two of a V; no transfers."""
    ticks = 2 // chunks
    stage = StageCosts(
        F=OpCost(ticks=ticks, alloc_bytes=ticks),
        B=OpCost(ticks=ticks),
        W=OpCost(ticks=ticks, free_bytes=ticks),
    )
    kind = PlacementKind.LOOP if chunks == 1 else PlacementKind.V
    return uniform_problem(ranks, microbatches, stage, chunks=chunks, kind=kind, name="unit times")


FOUR = measured(4, 8, Objective.MAKESPAN)
EIGHT = measured(8, 24, Objective.RANK_SPAN)
V_HALF_PEAK = 6
"""V-Half's peak on four ranks, where 1F1B holds 8."""

PICTURES = {
    "schedules": (
        Drawn("1f1b", "1F1B, same times, a third more memory", FOUR, "1f1b"),
        Drawn("v-half", "V-Half, same times", in_a_v(FOUR, V_HALF_PEAK), "v-half"),
        Drawn("synthesized", "Synthesized, same times and memory", in_a_v(FOUR, V_HALF_PEAK), seconds=120),
    ),
    "half-the-memory": (
        Drawn("half-1f1b", "1F1B", EIGHT, "1f1b"),
        Drawn("half-synthesized", "Synthesized in half the memory", in_a_v(EIGHT, 8), seconds=120),
    ),
    "building-blocks": (
        Drawn("unit-1f1b", "1F1B", in_unit_times(4, 16, 1), "1f1b"),
        Drawn("unit-zb-h1", "ZB-H1", in_unit_times(4, 16, 1), "zb-h1"),
        Drawn("unit-v-min", "V-Min", in_unit_times(4, 16, 2), "v-min"),
        Drawn("unit-v-half", "V-Half", in_unit_times(4, 16, 2), "v-half"),
    ),
}
"""By the name of the file; the first is the README's."""
