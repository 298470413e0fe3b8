"""The documents as written: one frozen type per JSON object, separate from the domain.

A description is what an error message says would be accepted; the JSON Schemas carry it too.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from synth.certificate import Status
from synth.ops import OpKind
from synth.problem import Links, Objective
from synth.topology import Duplex, SharedBy

PROBLEM_FORMAT: Final = "pipesynth.problem"
SCHEDULE_FORMAT: Final = "pipesynth.schedule"
TIMELINE_FORMAT: Final = "pipesynth.timeline"
TOPOLOGY_FORMAT: Final = "pipesynth.topology"
VERSION: Final = 1
"""The version written, and the newest one read."""

Count = Annotated[int, Meta(ge=1, description="an integer ≥ 1")]
Amount = Annotated[int, Meta(ge=0, description="an integer ≥ 0")]
Tick = Annotated[int, Meta(description="an integer number of ticks")]
Number = Annotated[float, Meta(description="a finite number")]
Text = Annotated[str, Meta(description="a string")]
Amounts = Annotated[tuple[Amount, ...], Meta(description="a list of integers ≥ 0, one per rank")]
ObjectiveName = Annotated[Objective, Meta(description='"makespan" or "rank_span"')]
Microbatches = Annotated[tuple[Amount, ...], Meta(description="a list of microbatches")]
Slices = Annotated[
    int, Meta(ge=1, le=1000, description="an integer from 1 to 1000, sequence slices per microbatch")
]
NamedKind = Literal["loop", "v", "wave", "auto"]


class Wire(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An object of a document, as written."""


class OpCostWire(Wire, frozen=True, kw_only=True):
    """What one op takes."""

    ticks: Count
    alloc_bytes: Amount = 0
    free_bytes: Amount = 0


Costs = Annotated[
    OpCostWire | Annotated[tuple[OpCostWire, ...], Meta(min_length=1)],
    Meta(description="an object with ticks, alloc_bytes and free_bytes, or a list of them, one per slice"),
]


class StageWire(Wire, frozen=True, kw_only=True):
    """A stage: F, and B with W, or BW, or all of them; and what feeds it, where it is not the one before."""

    F: Costs
    B: Costs | None = None
    W: Costs | None = None
    BW: Costs | None = None
    R: OpCostWire | UnsetType | None = UNSET
    static_bytes: Amount = 0
    weight_bytes: Amount | UnsetType = UNSET
    weight_versions: Count | UnsetType = UNSET
    layers: Annotated[tuple[Text, ...] | UnsetType, Meta(description="a list of layer names")] = UNSET
    inputs: Annotated[tuple[Amount, ...] | UnsetType, Meta(description="a list of stages")] = UNSET
    microbatches: Microbatches | UnsetType = UNSET
    model_stage: Amount | UnsetType = UNSET
    slice: Amount | UnsetType = UNSET


class PlacementWire(Wire, frozen=True, kw_only=True):
    """A map from stages to ranks, or the name of one."""

    stage_to_rank: (
        Annotated[tuple[Amount, ...], Meta(description="a list of ranks, one per stage")] | UnsetType
    ) = UNSET
    kind: Annotated[NamedKind, Meta(description='"loop", "v", "wave" or "auto"')] | UnsetType = UNSET


def _exactly_one(key: str, other: str, description: str) -> Meta:
    """One of two keys, never both: schemas can say it, the wire types cannot, so the domain step checks."""
    one_of = [{"required": [key]}, {"required": [other]}]
    return Meta(description=description, extra_json_schema={"oneOf": one_of})


PLACEMENT_KEYS = '{"stage_to_rank": […]} or {"kind": "loop", "v", "wave" or "auto"}'
PLACEMENT_RULE = _exactly_one("stage_to_rank", "kind", PLACEMENT_KEYS)


class DirectionWire(Wire, frozen=True, kw_only=True):
    """One of several pipelines through the stages: where it has them, and the microbatches it carries."""

    placement: Annotated[PlacementWire, PLACEMENT_RULE]
    microbatches: Microbatches


class TransfersWire(Wire, frozen=True, kw_only=True):
    """The ticks of a transfer, for every pair of different ranks or for each."""

    ticks: Amount | UnsetType = UNSET
    ticks_by_rank_pair: (
        Annotated[tuple[Amounts, ...], Meta(description="a square matrix of integers ≥ 0, [from][to]")]
        | UnsetType
    ) = UNSET
    links: Annotated[Links, Meta(description='"free" or "exclusive"')] = Links.FREE


TRANSFERS_RULE = _exactly_one("ticks", "ticks_by_rank_pair", '{"ticks": …} or {"ticks_by_rank_pair": [[…]]}')


class ProblemWire(Wire, frozen=True, kw_only=True):
    """A ``pipesynth.problem`` document."""

    format: Literal["pipesynth.problem"]
    version: Literal[1]
    name: Text = ""
    source: Text = ""
    tick_seconds: Annotated[float, Meta(gt=0, description="a finite number of seconds above 0")] = 1e-6
    num_ranks: Count
    num_microbatches: Count
    placement: Annotated[PlacementWire | UnsetType, PLACEMENT_RULE] = UNSET
    directions: Annotated[
        tuple[DirectionWire, ...] | UnsetType,
        Meta(description="a list of directions, each with its placement and its microbatches"),
    ] = UNSET
    slices: Slices | UnsetType = UNSET
    stages: Annotated[
        tuple[StageWire, ...], Meta(min_length=1, description="a list with one entry per stage, at least one")
    ]
    transfers: Annotated[TransfersWire, TRANSFERS_RULE] = TransfersWire(ticks=0)
    memory_limit_bytes: Annotated[
        Amount | Amounts | None,
        Meta(description="an integer ≥ 0 for every rank, a list with one per rank, or null for no limit"),
    ] = None
    objective: ObjectiveName = Objective.MAKESPAN


class TimedOpWire(Wire, frozen=True, kw_only=True):
    """An op with its planned start and end in ticks."""

    op: Annotated[OpKind, Meta(description='"F", "B", "W", "BW" or "R"')]
    stage: Amount
    microbatch: Amount
    start: Tick
    end: Tick


class MetricsWire(Wire, frozen=True, kw_only=True):
    """What the schedule achieves: ticks, and bytes per rank."""

    makespan: Amount
    rank_span: Amount
    work: Amount
    bubble_ratio: Number
    peak_memory_bytes: Amounts


class CertificateWire(Wire, frozen=True, kw_only=True):
    """A value, a lower bound, and the argument for the bound."""

    objective: ObjectiveName
    value: Count
    lower_bound: Amount
    gap: Number
    status: Annotated[Status, Meta(description='"optimal", "feasible", "infeasible" or "unknown"')]
    bound_from: Text


class ProvenanceWire(Wire, frozen=True, kw_only=True):
    """How the schedule was made."""

    tool: Text
    tool_version: Text
    method: Text
    solver: Text = ""
    solver_version: Text = ""
    seed: Amount = 0
    workers: Count = 1
    wall_seconds: Annotated[float, Meta(ge=0, description="a finite number of seconds ≥ 0")] = 0.0
    created: Text


Ranks = Annotated[
    tuple[Annotated[tuple[TimedOpWire, ...], Meta(description="a list of timed ops")], ...],
    Meta(description="a list with one list of timed ops per rank"),
]


class ScheduleWire(Wire, frozen=True, kw_only=True):
    """A ``pipesynth.schedule`` document."""

    format: Literal["pipesynth.schedule"]
    version: Literal[1]
    problem: Annotated[ProblemWire, Meta(description="the full problem document")]
    ranks: Ranks
    metrics: MetricsWire
    certificate: CertificateWire
    provenance: ProvenanceWire


class MeasuredOpWire(Wire, frozen=True, kw_only=True):
    """An op with its real start and end, in nanoseconds of one clock for all ranks."""

    op: Annotated[OpKind, Meta(description='"F", "B", "W", "BW" or "R"')]
    stage: Amount
    microbatch: Amount
    start_ns: Amount
    end_ns: Amount


OpAmounts = Annotated[tuple[Amount, ...], Meta(description="a list of integers ≥ 0, one per op of the rank")]

MeasuredRank = Annotated[
    tuple[MeasuredOpWire, ...], Meta(min_length=1, description="a list of measured ops, at least one")
]


class HeldBytesWire(Wire, frozen=True, kw_only=True):
    """What a rank held: before its first op, the most from one op's end to the next's, and behind each."""

    start_bytes: Amount
    most_bytes: OpAmounts
    after_bytes: OpAmounts


class TimelineWire(Wire, frozen=True, kw_only=True):
    """A ``pipesynth.timeline`` document: one executed step."""

    format: Literal["pipesynth.timeline"]
    version: Literal[1]
    source: Text = ""
    problem: Annotated[ProblemWire, Meta(description="the full problem document")]
    ranks: Annotated[
        tuple[MeasuredRank, ...], Meta(description="a list with one list of measured ops per rank")
    ]
    peak_memory_bytes: Annotated[
        Amounts | None, Meta(description="a list of integers ≥ 0, one per rank, or null")
    ] = None
    held_bytes: Annotated[
        tuple[HeldBytesWire, ...] | UnsetType,
        Meta(description="a list with what each rank held from op to op, beside peak_memory_bytes"),
    ] = UNSET


class ChannelWire(Wire, frozen=True, kw_only=True):
    """What a transfer takes, and whether it excludes those in the other direction."""

    latency_seconds: Annotated[float, Meta(ge=0, description="a finite number of seconds ≥ 0")]
    bytes_per_second: Annotated[float, Meta(gt=0, description="a finite number above 0")]
    duplex: Annotated[Duplex, Meta(description='"full" or "half"')] = Duplex.FULL


class LinkWire(ChannelWire, frozen=True, kw_only=True):
    """What links the ranks inside a node or those of two nodes, and who shares it."""

    shared_by: Annotated[SharedBy, Meta(description='"none", "pair", "rank" or "node"')] = SharedBy.PAIR


class PairLinkWire(ChannelWire, frozen=True, kw_only=True):
    """A wire between two ranks that nothing else uses."""

    ranks: Annotated[tuple[Amount, ...], Meta(min_length=2, max_length=2, description="a list of two ranks")]


class NodeWire(Wire, frozen=True, kw_only=True):
    """A node."""

    ranks: Annotated[tuple[Amount, ...], Meta(description="a list of ranks")]


class TransferBytesWire(Wire, frozen=True, kw_only=True):
    """What crosses the boundary of two stages for one microbatch."""

    activation_bytes: Annotated[
        Amount | tuple[Amount, ...],
        Meta(description="an integer ≥ 0, or a list with one per boundary of two stages"),
    ]
    gradient_bytes: Annotated[
        Amount | tuple[Amount, ...],
        Meta(description="an integer ≥ 0, or a list with one per boundary of two stages"),
    ]


class AllReduceWire(Wire, frozen=True, kw_only=True):
    """The sum of the weights' gradients over replicas, behind every stage's last weight gradient."""

    replicas: Count
    weight_gradient_bytes: Annotated[
        Amount | tuple[Amount, ...], Meta(description="an integer ≥ 0, or a list with one per stage")
    ]


class TopologyWire(Wire, frozen=True, kw_only=True):
    """A ``pipesynth.topology`` document."""

    format: Literal["pipesynth.topology"]
    version: Literal[1]
    name: Text = ""
    source: Text = ""
    nodes: Annotated[
        tuple[NodeWire, ...], Meta(min_length=1, description="a list with one entry per node, at least one")
    ]
    inside: LinkWire | None = None
    between: LinkWire | None = None
    pairs: Annotated[tuple[PairLinkWire, ...], Meta(description="a list of links of two ranks")] = ()
    transfer_bytes: TransferBytesWire | None = None
    all_reduce: AllReduceWire | None = None


def generate_schemas() -> dict[str, str]:
    """The JSON Schemas of the documents: file name to text."""
    return {
        f"{kind}.schema.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(wire)},
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
        for kind, wire in (
            ("problem", ProblemWire),
            ("schedule", ScheduleWire),
            ("timeline", TimelineWire),
            ("topology", TopologyWire),
        )
    }
