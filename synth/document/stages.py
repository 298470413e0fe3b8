"""The stages of a document: their costs, where they are and what feeds them, and back.

Directions and slices are written for people and read into stages of their own (:mod:`synth.flows`); a
document that we write has those stages, each with its inputs and microbatches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import chain

from msgspec import UNSET, UnsetType

from synth.document.refusal import Refusal
from synth.document.wire import DirectionWire, OpCostWire, PlacementWire, ProblemWire, StageWire
from synth.feed import Feed
from synth.flows import Direction, lay_out
from synth.placement import Placement, PlacementKind, place
from synth.problem import OpCost, Problem, StageCosts, shortened

FEED_KEYS = ("inputs", "microbatches", "model_stage", "slice")

MOST_CARRIED = 1_000_000
"""How many stages times microbatches a flow may have: unlike a plain chain, it lists what each carries."""

_STAGE = re.compile(r"stages\[(\d+)\]")

_CostsWire = OpCostWire | tuple[OpCostWire, ...] | None
_Laid = tuple[Placement, tuple[StageCosts, ...], tuple[Feed, ...]]


def stages_from_wire(wire: ProblemWire, path: str, refuse: Refusal) -> _Laid:
    """The placement, the costs and the feeds of all stages, directions and slices laid out."""
    count = _given_number(wire.slices, 1)
    _check_slices(wire, count, path, refuse)
    _check_size(wire, count, path, refuse)
    sliced = [[_stage_costs(stage, number) for number in range(count)] for stage in wire.stages]
    laid_out = wire.placement is UNSET or wire.slices is not UNSET
    if not laid_out:
        assert isinstance(wire.placement, PlacementWire)
        placement = _placement(wire, wire.placement)
        return placement, tuple(costs for (costs,) in sliced), _feeds(wire)
    _check_no_feeds(wire, path, refuse)
    directions = _directions(wire, path, refuse)
    used = set(chain.from_iterable(direction.stage_to_rank for direction in directions))
    for rank in range(wire.num_ranks):
        if rank not in used:
            rule = f"no stage is on rank {rank}; put one there, or lower num_ranks"
            refuse(f"{path}.num_ranks", str(wire.num_ranks), rule)
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
                refuse(where, f"{len(given)} long", 'give one object, or "slices" in the problem')
            if len(given) != count:
                refuse(where, f"{len(given)} long", f"give one object, or one for each of the {count} slices")


def _check_size(wire: ProblemWire, count: int, path: str, refuse: Refusal) -> None:
    """Before anything of the size stages times microbatches is built."""
    is_flow = wire.directions is not UNSET or wire.slices is not UNSET or _gives_feeds(wire)
    stages = len(wire.stages) * num_directions(wire) * count
    if is_flow and stages * wire.num_microbatches > MOST_CARRIED:
        rule = f"with {stages} stages of directions and slices give at most {MOST_CARRIED // stages}"
        refuse(f"{path}.num_microbatches", str(wire.num_microbatches), rule)


def num_directions(wire: ProblemWire) -> int:
    """How many pipelines go through the stages."""
    return len(wire.directions) if isinstance(wire.directions, tuple) else 1


def place_in_document(wire: ProblemWire, where: str) -> str:
    """Where in the document something stands that directions and slices have laid out."""
    count, stages = _given_number(wire.slices, 1), len(wire.stages)
    return _STAGE.sub(lambda match: f"stages[{int(match[1]) // count % stages}]", where)


def _check_no_feeds(wire: ProblemWire, path: str, refuse: Refusal) -> None:
    for stage, costs in enumerate(wire.stages):
        for key in FEED_KEYS:
            if getattr(costs, key) is not UNSET:
                refuse(f"{path}.stages[{stage}].{key}", "given", "leave it out with directions or slices")


def _directions(wire: ProblemWire, path: str, refuse: Refusal) -> list[Direction]:
    everything = tuple(range(wire.num_microbatches))
    if isinstance(wire.placement, PlacementWire):
        return [Direction(_ranks(wire, wire.placement, f"{path}.placement", refuse), everything)]
    assert isinstance(wire.directions, tuple), "a problem has a placement or directions"
    if not wire.directions:
        refuse(f"{path}.directions", "[]", "give at least one direction")
    return [_direction(wire, n, given, path, refuse) for n, given in enumerate(wire.directions)]


def _direction(wire: ProblemWire, n: int, given: DirectionWire, path: str, refuse: Refusal) -> Direction:
    where = f"{path}.directions[{n}]"
    ranks = _ranks(wire, given.placement, f"{where}.placement", refuse)
    most = wire.num_microbatches - 1
    carried = given.microbatches
    if not carried or len(set(carried)) < len(carried) or max(carried) > most:
        refuse(
            f"{where}.microbatches",
            str(shortened(carried)),
            f"give different microbatches from 0 to {most}, at least one",
        )
    return Direction(ranks, carried)


def _ranks(problem: ProblemWire, wire: PlacementWire, path: str, refuse: Refusal) -> tuple[int, ...]:
    """The rank of every model stage of one direction."""
    if wire.kind == PlacementKind.AUTO.value:
        refuse(f"{path}.kind", '"auto"', "with directions or slices, give stage_to_rank or a named map")
    ranks = _placement(problem, wire).stage_to_rank
    if len(ranks) != len(problem.stages):
        rule = f"give one rank for each of the {len(problem.stages)} stages"
        refuse(f"{path}.stage_to_rank", f"{len(ranks)} long", rule)
    for stage, rank in enumerate(ranks):
        if rank >= problem.num_ranks:
            rule = f"give a rank from 0 to {problem.num_ranks - 1}"
            refuse(f"{path}.stage_to_rank[{stage}]", str(rank), rule)
    return ranks


def _placement(problem: ProblemWire, wire: PlacementWire) -> Placement:
    if isinstance(wire.stage_to_rank, tuple):
        return Placement.explicit(wire.stage_to_rank)
    return place(PlacementKind(str(wire.kind)), problem.num_ranks, len(problem.stages))


def _feeds(wire: ProblemWire) -> tuple[Feed, ...]:
    """The feeds as given stage by stage; none where no stage gives any."""
    if not _gives_feeds(wire):
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


def _gives_feeds(wire: ProblemWire) -> bool:
    return any(getattr(costs, key) is not UNSET for costs in wire.stages for key in FEED_KEYS)


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
