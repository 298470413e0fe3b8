"""The setting of formulas and slot tables: equal stages in unit times, without transfers and sums."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from synth.flows import computing_stages, laid_out_of
from synth.ops import OpKind
from synth.problem import OpCost, Problem, StageCosts
from synth.slot_table import unit_problem

SLOT_TICKS = 5040
"""The ticks of a slot: stages that a schedule makes of thirds, slices or nothing much last whole ticks."""

IDEAL_BYTES = 256 * SLOT_TICKS
"""What a stage's F allocates: fine enough for the share that stays until W."""


def ideal_problem(problem: Problem) -> Problem:
    """Equal stages in unit times: the setting of formulas and slot tables.

    F holds :data:`IDEAL_BYTES`, of which B frees all but the share that the problem's stages keep until W, on
    average; nothing else takes memory. Sums over replicas are left out. Stages that are no directions
    and slices of a chain keep their own bytes, scaled so that a forward holds :data:`IDEAL_BYTES` on average.
    """
    if laid_out_of(problem) is None:
        return _in_own_bytes(problem)
    divided = [costs for costs in problem.stages if costs.W is not None]
    kept = sum(min(costs.cost(OpKind.W).free_bytes, costs.F.alloc_bytes) for costs in divided)
    held = sum(costs.F.alloc_bytes for costs in divided)
    until_w = IDEAL_BYTES * kept // held if held else 0
    frees = {OpKind.B: IDEAL_BYTES - until_w, OpKind.W: until_w, OpKind.BW: IDEAL_BYTES}

    def backward(kind: OpKind, cost: OpCost | None) -> OpCost | None:
        return None if cost is None else OpCost(ticks=cost.ticks * SLOT_TICKS, free_bytes=frees[kind])

    def ideal_stage(costs: StageCosts) -> StageCosts:
        return StageCosts(
            F=OpCost(ticks=costs.F.ticks * SLOT_TICKS, alloc_bytes=IDEAL_BYTES),
            B=backward(OpKind.B, costs.B),
            W=backward(OpKind.W, costs.W),
            BW=backward(OpKind.BW, costs.BW),
        )

    unit = unit_problem(problem)
    return replace(unit, stages=tuple(map(ideal_stage, unit.stages)), memory_limit_bytes=None)


def _in_own_bytes(problem: Problem) -> Problem:
    """Stages that compute in unit times; those that only keep what they are handed take next to none."""
    unit = unit_problem(problem)
    computing = computing_stages(problem)
    held = [unit.stages[stage].F.alloc_bytes for stage in computing]
    scale = Fraction(IDEAL_BYTES * len(held), max(1, sum(held)))

    def ideal_stage(stage: int, costs: StageCosts) -> StageCosts:
        def ideal(_: OpKind, cost: OpCost) -> OpCost:
            return OpCost(
                ticks=cost.ticks * SLOT_TICKS if stage in computing else 1,
                alloc_bytes=round(cost.alloc_bytes * scale),
                free_bytes=round(cost.free_bytes * scale),
            )

        bare = replace(costs, R=None, static_bytes=0, weight_bytes=0, weight_versions=1)
        return bare.map_costs(ideal)

    stages = tuple(ideal_stage(stage, costs) for stage, costs in enumerate(unit.stages))
    return replace(unit, stages=stages, memory_limit_bytes=None)
