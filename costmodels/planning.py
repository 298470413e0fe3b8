"""From a model, a way to train it and a machine to a problem: cut into stages, costed, rounded, explained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from costmodels.chain import Chain
from costmodels.cluster import Cluster
from costmodels.hardware import Link, latency_source
from costmodels.layers import Layer, model_layers
from costmodels.model_shape import ModelShape
from costmodels.optimizer_state import StaticBytes, static_bytes
from costmodels.partition import CutRules, cut_layers
from costmodels.quantise import Quantiser
from costmodels.roofline import Efficiencies, transfer_seconds
from costmodels.stages import LayerCost, PassCost, StagePasses, layer_costs, passes_of
from costmodels.training import Training
from synth.errors import InputError
from synth.placement import PlacementKind, place
from synth.problem import Objective, OpCost, Problem, StageCosts

_PER_SECOND = 10**9
"""The cut compares whole nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """How the model is spread over pipeline ranks.

    Parameters
    ----------
    num_ranks, num_microbatches
        Counts.
    chunks
        Stages on every rank.
    kind
        The named placement.
    first_blocks, last_blocks
        Blocks of the first and of the last stage, or None where the cut may choose.
    divided
        Whether B and W are offered beside the whole backward.
    objective
        What schedules are to minimise.
    tick_seconds
        The length of a tick.
    stages_given
        Whether the number of stages was asked for rather than that of chunks: suggestions speak of the same.
    """

    num_ranks: int
    num_microbatches: int
    chunks: int = 1
    kind: PlacementKind = PlacementKind.LOOP
    first_blocks: int | None = None
    last_blocks: int | None = None
    divided: bool = True
    objective: Objective = Objective.MAKESPAN
    tick_seconds: float = 1e-6
    stages_given: bool = False

    def __post_init__(self) -> None:
        if self.num_stages == 1 and (self.first_blocks, self.last_blocks) != (None, None):
            raise InputError("--first or --last is given with one stage, which has all blocks: leave it out")

    @property
    def num_stages(self) -> int:
        """Stages on all ranks."""
        return self.num_ranks * self.chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A problem and what it was made of.

    Parameters
    ----------
    model, training, pipeline, cluster
        What was asked for.
    problem
        The problem document's content.
    stage_layers
        The layers of every stage.
    static_by_rank
        Static bytes of every rank.
    rounding_error, transfer_rounding_error
        The largest relative error of rounding an op's time, a transfer's time.
    cut_fits
        Whether every rank can hold its layers with one microbatch; if not, the cut is the fastest regardless.
    """

    model: ModelShape
    training: Training
    pipeline: Pipeline
    cluster: Cluster
    problem: Problem
    stage_layers: tuple[tuple[Layer, ...], ...]
    static_by_rank: tuple[StaticBytes, ...]
    rounding_error: float
    transfer_rounding_error: float
    cut_fits: bool


def make_plan(model: ModelShape, training: Training, pipeline: Pipeline, cluster: Cluster) -> Plan:
    """Turn a model and a machine into a problem.

    Raises
    ------
    InputError
        When the model cannot be shared or cut as asked.
    """
    placement = place(pipeline.kind, pipeline.num_ranks, pipeline.num_stages)
    layers, machine = model_layers(model, training), cluster.machine(training)
    held = _held(layers, model, training, one_rank=placement.stage_to_rank[0] == placement.stage_to_rank[-1])
    limit_bytes = cluster.memory_limit_bytes(max(layer.transient_bytes for layer in layers if layer.is_block))
    costs = layer_costs(layers, machine)
    cuts, cut_fits = _cut(layers, costs, held, pipeline, limit_bytes)
    stage_layers = tuple(layers[first:last] for first, last in pairwise(cuts))
    passes = [passes_of(costs[first:last]) for first, last in pairwise(cuts)]
    statics = [_sum(held[first:last]) for first, last in pairwise(cuts)]
    quantiser = Quantiser(tick_seconds=pipeline.tick_seconds)
    transfers = _transfer_seconds(model, training, pipeline, cluster)
    op_error = quantiser.largest_error(cost.seconds for stage in passes for cost in _offered(stage, pipeline))
    problem = Problem(
        num_ranks=pipeline.num_ranks,
        num_microbatches=pipeline.num_microbatches,
        placement=placement,
        stages=tuple(
            _stage_costs(stage, static, training.weight_versions, named, quantiser, pipeline)
            for stage, static, named in zip(passes, statics, stage_layers, strict=True)
        ),
        transfer_ticks=tuple(tuple(quantiser.ticks(s, least=0) for s in row) for row in transfers),
        memory_limit_bytes=(limit_bytes,) * pipeline.num_ranks,
        objective=pipeline.objective,
        tick_seconds=pipeline.tick_seconds,
        name=model.name,
    )
    by_rank = [_sum(statics[stage] for stage in held) for held in problem.stages_by_rank]
    plan = Plan(
        model=model,
        training=training,
        pipeline=pipeline,
        cluster=cluster,
        problem=problem,
        stage_layers=stage_layers,
        static_by_rank=tuple(by_rank),
        rounding_error=op_error,
        transfer_rounding_error=quantiser.largest_error(
            (seconds for row in transfers for seconds in row), least=0
        ),
        cut_fits=cut_fits,
    )
    return replace(plan, problem=replace(problem, source=provenance(plan)))


def provenance(plan: Plan) -> str:
    """Where the numbers of a plan's problem come from, in words."""
    training, cluster, gpu = plan.training, plan.cluster, plan.cluster.gpu
    blocks = [sum(layer.is_block for layer in stage) for stage in plan.stage_layers]
    links = sorted(_links(plan), key=lambda link: link.name)
    over = ", ".join(f"{link.name} ({link.latency_s * 1e6:g} us)" for link in links) or "nothing"
    given = cluster.rank_latency_s is not None
    return "; ".join(
        [
            f"analytic: {plan.model.name}, {plan.model.parameters} parameters",
            f"training: {training}",
            f"GPU: {gpu.name}, {cluster.gpus_per_node} in a node ({gpu.source})",
            "neighbouring ranks share a node",
            f"times: roofline at efficiencies {cluster.efficiencies}, {_efficiency_source(plan)}",
            f"transfers: {boundary_bytes(plan.model, training)} bytes over {over}",
            *(f"{link.name}: {link.source}" for link in links),
            f"latencies: {'as given' if given else latency_source()}",
            "activations and FLOPs: by operation, arXiv 2205.05198 (section 4) and 2401.10241 (Table 1)",
            f"static bytes: Adam, arXiv 1910.02054 (section 3.1){_tied(plan)}",
            f"memory limit: {_limit_source(plan)}",
            f"blocks per stage: {' '.join(map(str, blocks))}, {_cut_source(plan)}",
            "left out: traffic between replicas, sliding windows (attention is taken as full)",
            _rounding(plan),
        ]
    )


def _efficiency_source(plan: Plan) -> str:
    if plan.cluster.efficiencies != Efficiencies():
        return "as given"
    return (
        "stated for A100, memory fitted to one profile of arXiv 2401.10241, from whose F, B and W they "
        "differ by up to 10%, 20% and 5%; for other GPUs assumed"
    )


def _tied(plan: Plan) -> str:
    if not plan.model.tied:
        return ""
    ranks = plan.problem.stage_to_rank
    return "; the tied head " + ("shares the embedding" if ranks[0] == ranks[-1] else "has a copy of its own")


def _limit_source(plan: Plan) -> str:
    if plan.cluster.limit_bytes is not None:
        return "as given"
    assert plan.problem.memory_limit_bytes is not None, "plans have a limit"
    reserve = (plan.cluster.gpu.memory_bytes - plan.problem.memory_limit_bytes[0]) / 2**30
    return (
        f"the GPU's memory but for an assumed reserve of {reserve:.3g} GiB (driver, communication, "
        "fragmentation, what a block holds only while it runs)"
    )


def _cut_source(plan: Plan) -> str:
    if not plan.cut_fits:
        return "the fastest cut regardless of memory: none that fits was found"
    shared = plan.pipeline.chunks > 1
    return "the fastest cut found that fits" if shared else "the fastest cut that fits"


def _rounding(plan: Plan) -> str:
    op, transfer = map(_percent, (plan.rounding_error, plan.transfer_rounding_error))
    tick_s = plan.pipeline.tick_seconds
    return f"rounding to ticks of {tick_s:g} s: at most {op} of an op, {transfer} of a transfer"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"


def _links(plan: Plan) -> set[Link]:
    ranks = range(plan.pipeline.num_ranks)
    return {plan.cluster.link_between(a, b, plan.training) for a in ranks for b in ranks if a != b}


def boundary_bytes(model: ModelShape, training: Training) -> int:
    """What one GPU sends to the next stage: 2sbh in half precision, its share with sequence parallelism."""
    return training.hidden_bytes_per_width * model.hidden


def _held(
    layers: Sequence[Layer], model: ModelShape, training: Training, *, one_rank: bool
) -> list[StaticBytes]:
    """The static bytes of every layer; a tied head on the rank of the embedding has none of its own."""
    shared = (model.modules.head,) if model.tied and one_rank else None
    known: dict[tuple[int, int], StaticBytes] = {}

    def held(layer: Layer) -> StaticBytes:
        if layer.modules == shared:
            return StaticBytes()
        alike = layer.parameters, layer.expert_parameters
        if alike not in known:
            known[alike] = static_bytes(layer, training)
        return known[alike]

    return [held(layer) for layer in layers]


def _sum(parts: Iterable[StaticBytes]) -> StaticBytes:
    return sum(parts, start=StaticBytes())


def _cut(
    layers: Sequence[Layer],
    costs: Sequence[LayerCost],
    statics: Sequence[StaticBytes],
    pipeline: Pipeline,
    limit_bytes: int,
) -> tuple[tuple[int, ...], bool]:
    """The first layer of every stage and their number, and whether every rank can hold its own."""
    chain = Chain(
        costs=tuple(round(cost.seconds * _PER_SECOND) for cost in costs),
        static_bytes=tuple(static.total for static in statics),
        kept_bytes=tuple(cost.kept_bytes for cost in costs),
        extra_bytes=tuple(cost.backward_extra_bytes for cost in costs),
        may_cut_before=tuple(not layer.stays_with_previous for layer in layers),
        blocks=tuple(layer.is_block for layer in layers),
    )
    rules = partial(
        CutRules,
        stage_to_rank=place(pipeline.kind, pipeline.num_ranks, pipeline.num_stages).stage_to_rank,
        first_blocks=pipeline.first_blocks,
        last_blocks=pipeline.last_blocks,
    )
    fitting = cut_layers(chain, rules(limit_bytes=limit_bytes))
    cuts = fitting or cut_layers(chain, rules())
    assert cuts is not None, "without a limit there is a cut"
    return cuts, fitting is not None


def _transfer_seconds(
    model: ModelShape, training: Training, pipeline: Pipeline, cluster: Cluster
) -> list[list[float]]:
    """The time of one transfer for every pair of ranks, none to itself."""
    size, ranks = boundary_bytes(model, training), range(pipeline.num_ranks)

    def seconds(a: int, b: int) -> float:
        if a == b:
            return 0.0
        return transfer_seconds(size, cluster.link_between(a, b, training), cluster.efficiencies)

    return [[seconds(a, b) for b in ranks] for a in ranks]


def _offered(passes: StagePasses, pipeline: Pipeline) -> list[PassCost]:
    divided = [passes.B, passes.W] if pipeline.divided else []
    return [passes.F, *divided, passes.BW]


def _stage_costs(
    passes: StagePasses,
    static: StaticBytes,
    versions: int,
    layers: tuple[Layer, ...],
    quantiser: Quantiser,
    pipeline: Pipeline,
) -> StageCosts:
    def cost(given: PassCost) -> OpCost:
        ticks = quantiser.ticks(given.seconds)
        return OpCost(ticks=ticks, alloc_bytes=given.alloc_bytes, free_bytes=given.free_bytes)

    forward, b, w = map(cost, (passes.F, passes.B, passes.W))
    whole = cost(passes.BW)
    if pipeline.divided:
        # Rounded once: the whole backward takes what its halves take.
        whole = OpCost(ticks=b.ticks + w.ticks, alloc_bytes=whole.alloc_bytes, free_bytes=whole.free_bytes)
    return StageCosts(
        F=forward,
        B=b if pipeline.divided else None,
        W=w if pipeline.divided else None,
        BW=whole,
        static_bytes=static.total - (versions - 1) * static.weights // versions,
        weight_bytes=static.weights // versions,
        weight_versions=versions,
        layers=tuple(module for layer in layers for module in layer.modules),
    )
