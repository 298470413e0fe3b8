"""The stages of a document: their costs, where they are and what feeds them, and back.

Directions and slices are written for people and read into stages of their own (:mod:`synth.flows`); a
document that we write has those stages, each with its inputs and microbatches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec import UNSET, UnsetType

from synth.document.refusal import Refusal
from synth.document.wire import DirectionWire, OpCostWire, PlacementWire, ProblemWire, StageWire
from synth.feed import Feed
from synth.flows import Direction, lay_out
from synth.placement import Placement, PlacementKind, place
from synth.problem import OpCost, Problem, StageCosts

FEED_KEYS = ("inputs", "microbatches", "model_stage", "slice")

_CostsWire = OpCostWire | tuple[OpCostWire, ...] | None
_Laid = tuple[Placement, tuple[StageCosts, ...], tuple[Feed, ...]]


def stages_from_wire(wire: ProblemWire, path: str, refuse: Refusal) -> _Laid:
    """The placement, the costs and the feeds of all stages, directions and slices laid out."""
    count = wire.slices if isinstance(wire.slices, int) else 1
    _check_slices(wire, count, path, refuse)
    sliced = [[_stage_costs(stage, number) for number in range(count)] for stage in wire.stages]
    laid_out = wire.placement is UNSET or wire.slices is not UNSET
    if not laid_out:
        assert isinstance(wire.placement, PlacementWire)
        placement = _placement(wire, wire.placement)
        return placement, tuple(costs for (costs,) in sliced), _feeds(wire)
    _check_no_feeds(wire, path, refuse)
    directions = _directions(wire, path, refuse)
    for n, direction in enumerate(directions):
        if len(direction.stage_to_rank) != len(wire.stages):
            where = "placement" if wire.placement is not UNSET else f"directions[{n}].placement"
            rule = f"give one rank for each of the {len(wire.stages)} stages"
            refuse(f"{path}.{where}.stage_to_rank", f"{len(direction.stage_to_rank)} long", rule)
    flow = lay_out(sliced, directions)
    return Placement.explicit(flow.stage_to_rank), flow.stages, flow.feeds


def _check_slices(wire: ProblemWire, count: int, path: str, refuse: Refusal) -> None:
    for stage, costs in enumerate(wire.stages):
        for kind in ("F", "B", "W", "BW"):
            given = getattr(costs, kind)
            if not isinstance(given, tuple):
                continue
            where = f"{path}.stages[{stage}].{kind}"
            if wire.slices is UNSET:
                refuse(where, f"{len(given)} costs", 'give one object, or "slices" in the problem')
            if len(given) != count:
                refuse(
                    where, f"{len(given)} costs", f"give one object, or one for each of the {count} slices"
                )


def _check_no_feeds(wire: ProblemWire, path: str, refuse: Refusal) -> None:
    for stage, costs in enumerate(wire.stages):
        for key in FEED_KEYS:
            if getattr(costs, key) is not UNSET:
                refuse(f"{path}.stages[{stage}].{key}", "given", "leave it out with directions or slices")


def _directions(wire: ProblemWire, path: str, refuse: Refusal) -> list[Direction]:
    everything = tuple(range(wire.num_microbatches))
    if isinstance(wire.placement, PlacementWire):
        _check_named(f"{path}.placement", wire.placement, refuse)
        return [Direction(_placement(wire, wire.placement).stage_to_rank, everything)]
    assert isinstance(wire.directions, tuple), "a problem has a placement or directions"
    if not wire.directions:
        refuse(f"{path}.directions", "[]", "give at least one direction")
    return [_direction(wire, n, given, path, refuse) for n, given in enumerate(wire.directions)]


def _direction(wire: ProblemWire, n: int, given: DirectionWire, path: str, refuse: Refusal) -> Direction:
    where = f"{path}.directions[{n}]"
    _check_named(f"{where}.placement", given.placement, refuse)
    most = wire.num_microbatches - 1
    carried = given.microbatches
    if not carried or len(set(carried)) < len(carried) or max(carried) > most:
        refuse(
            f"{where}.microbatches",
            str(list(carried)) if len(carried) <= 16 else f"{len(carried)} long",
            f"give different microbatches from 0 to {most}, at least one",
        )
    return Direction(_placement(wire, given.placement).stage_to_rank, carried)


def _check_named(path: str, wire: PlacementWire, refuse: Refusal) -> None:
    if wire.kind == PlacementKind.AUTO.value:
        refuse(f"{path}.kind", '"auto"', "with directions or slices, give stage_to_rank or a named map")


def _placement(problem: ProblemWire, wire: PlacementWire) -> Placement:
    if isinstance(wire.stage_to_rank, tuple):
        return Placement.explicit(wire.stage_to_rank)
    return place(PlacementKind(str(wire.kind)), problem.num_ranks, len(problem.stages))


def _feeds(wire: ProblemWire) -> tuple[Feed, ...]:
    """The feeds as given stage by stage; none where no stage gives any."""
    if all(getattr(costs, key) is UNSET for costs in wire.stages for key in FEED_KEYS):
        return ()
    everything = tuple(range(wire.num_microbatches))
    return tuple(
        Feed(
            inputs=_given(costs.inputs, (stage - 1,) if stage else ()),
            microbatches=_given(costs.microbatches, everything),
            model_stage=_given_number(costs.model_stage, stage),
            slice=_given_number(costs.slice, 0),
        )
        for stage, costs in enumerate(wire.stages)
    )


def _given(value: tuple[int, ...] | UnsetType, default: tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else default


def _given_number(value: int | UnsetType, default: int) -> int:
    return value if isinstance(value, int) else default


def _stage_costs(wire: StageWire, number: int) -> StageCosts:
    """The costs of one slice of a stage."""
    of_slice = partial(_op_cost, number=number)
    forward = of_slice(wire.F)
    assert forward is not None, "F is required"
    return StageCosts(
        F=forward,
        B=of_slice(wire.B),
        W=of_slice(wire.W),
        BW=of_slice(wire.BW),
        R=of_slice(wire.R) if isinstance(wire.R, OpCostWire) else None,
        static_bytes=wire.static_bytes,
        weight_bytes=_given_number(wire.weight_bytes, 0),
        weight_versions=_given_number(wire.weight_versions, 1),
        layers=wire.layers if isinstance(wire.layers, tuple) else (),
    )


def _op_cost(wire: _CostsWire, number: int) -> OpCost | None:
    if isinstance(wire, tuple):
        wire = wire[number]
    if wire is None:
        return None
    return OpCost(ticks=wire.ticks, alloc_bytes=wire.alloc_bytes, free_bytes=wire.free_bytes)


def stage_wires(problem: Problem) -> tuple[StageWire, ...]:
    """The stages as written: what is as usual is left out."""
    feeds: Sequence[Feed | None] = problem.feeds or (None,) * problem.num_stages
    return tuple(_stage_wire(costs, feed) for costs, feed in zip(problem.stages, feeds, strict=True))


def _stage_wire(costs: StageCosts, feed: Feed | None) -> StageWire:
    forward = _op_wire(costs.F)
    assert forward is not None, "every stage has a forward"
    return StageWire(
        F=forward,
        B=_op_wire(costs.B),
        W=_op_wire(costs.W),
        BW=_op_wire(costs.BW),
        R=_op_wire(costs.R) or UNSET,
        static_bytes=costs.static_bytes,
        weight_bytes=costs.weight_bytes or UNSET,
        weight_versions=UNSET if costs.weight_versions == 1 else costs.weight_versions,
        layers=costs.layers or UNSET,
        inputs=UNSET if feed is None else feed.inputs,
        microbatches=UNSET if feed is None else feed.microbatches,
        model_stage=UNSET if feed is None else feed.model_stage,
        slice=UNSET if feed is None else feed.slice,
    )


def _op_wire(cost: OpCost | None) -> OpCostWire | None:
    if cost is None:
        return None
    return OpCostWire(ticks=cost.ticks, alloc_bytes=cost.alloc_bytes, free_bytes=cost.free_bytes)
