"""Every shape of a plan as a bound, and as a problem: the model's half of the planner."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import accumulate

from costmodels.fitting import fits_at_all
from costmodels.layers import Layer, model_layers
from costmodels.model_shape import ModelShape
from costmodels.optimizer_state import static_bytes
from costmodels.planning import Pipeline, Plan, boundary_bytes, make_plan
from costmodels.plans.fleet import Fleet
from costmodels.plans.seats import SeatOrder, Seats
from costmodels.plans.shapes import Shape, Space
from costmodels.plans.traffic import all_reduce_s, transfer_matrix_s
from costmodels.quantise import Quantiser
from costmodels.stages import layer_costs
from costmodels.training import Training
from synth.drafts import Draft, Outline, WeightPolicy
from synth.errors import InputError

TICK_SECONDS = 1e-6
MOST_PLANS = 512
"""How many are kept: a shape is laid out, and wanted again when it takes its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What some layers hold: static bytes, and what the forward of each microbatch leaves behind."""

    static_bytes: int
    kept_bytes: int

    def bytes(self, in_flight: int) -> int:
        """With so many microbatches in flight."""
        return self.static_bytes + in_flight * self.kept_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A model's layers together, on one GPU of each stage, for one microbatch.

    Parameters
    ----------
    work_s
        F, B and W of all layers.
    chain_s
        F and B of all layers: one microbatch down and up; the embedding gives no gradient.
    longest_part_s
        Of the layers between two places where the model may be cut.
    held
        All layers: static bytes, and what one microbatch's forward leaves behind.
    held_byte_seconds
        The latter over time: each layer holds its part from its forward on at least until the gradient has
        been down to the loss and back through the layer.
    num_blocks, block, block_extra_bytes
        How many blocks there are, the least that one holds, and besides while its backward runs.
    first, last
        What the first stage holds whatever the cut, and the last: the layers before the blocks and behind.
    limit_bytes
        What a GPU may hold.
    """

    work_s: float
    chain_s: float
    longest_part_s: float
    held: Held
    held_byte_seconds: float
    num_blocks: int
    block: Held
    block_extra_bytes: int
    first: Held
    last: Held
    limit_bytes: int

    def refusal(self, shape: Shape, num_microbatches: int) -> str:
        """Why no cut can fit, or empty: all layers are somewhere, and a rank has whole blocks."""
        gib, least_bytes = 2**30, self.held.bytes(1)
        ranks = f"{shape.pp} rank{'s' if shape.pp > 1 else ''} of {self.limit_bytes / gib:.1f} GiB"
        if least_bytes > shape.pp * self.limit_bytes:
            return f"static bytes and one microbatch take {least_bytes / gib:.1f} GiB, more than {ranks}"
        flushes = shape.weights is WeightPolicy.FLUSH
        in_flight = [1 if flushes else min(shape.pp - rank, num_microbatches) for rank in range(shape.pp)]
        taken, passing = [0] * shape.pp, [self.block_extra_bytes] * shape.pp
        taken[0] += self.first.bytes(in_flight[0])
        taken[shape.last_rank] += self.last.static_bytes
        # What the last layers keep is gone when the backward comes to the blocks.
        passing[shape.last_rank] = max(self.block_extra_bytes, self.last.kept_bytes)
        room = [self.limit_bytes - held - more for held, more in zip(taken, passing, strict=True)]
        if sum(map(self._most_blocks, in_flight, room)) < self.num_blocks:
            return f"{self.num_blocks} blocks do not fit {ranks}"
        return ""

    def least_flushed_s(self, num_ranks: int, num_microbatches: int, rounding_s: float) -> float:
        """What no flushed step can beat: one microbatch's way, and all of them through the memory there is.

        What microbatches hold and how long adds up to no more than the memory of all ranks times the step.
        """
        way_s = self.chain_s - rounding_s
        room_bytes = num_ranks * self.limit_bytes - self.held.static_bytes
        held = self.held_byte_seconds - self.held.kept_bytes * rounding_s
        return max(way_s, num_microbatches * held / room_bytes) if room_bytes > 0 else way_s

    def _most_blocks(self, in_flight: int, room_bytes: int) -> int:
        return max(0, room_bytes // self.block.bytes(in_flight))


class PlanRecipe:
    """A model, a way to train it and a cluster: the shapes of a plan, their bounds and their problems.

    Parameters
    ----------
    model
        The model.
    training
        How it is trained, but for what shapes choose: microbatch, degrees, recomputation, versions.
    fleet
        The cluster.
    space
        What may be chosen.
    sequence_parallel, zero_stage
        Asked for wherever there are several tensor-parallel GPUs, several replicas.
    """

    def __init__(
        self,
        model: ModelShape,
        training: Training,
        fleet: Fleet,
        space: Space,
        *,
        sequence_parallel: bool = False,
        zero_stage: int = 0,
    ) -> None:
        self.model, self.training, self.fleet, self.space = model, training, fleet, space
        self.sequence_parallel, self.zero_stage = sequence_parallel, zero_stage
        self._totals: dict[Training, Totals | str] = {}
        self._plans = lru_cache(MOST_PLANS)(self._make_plan)
        self._drafts = lru_cache(MOST_PLANS)(self._make_draft)

    def __reduce__(self) -> tuple[object, ...]:
        """Without what was computed so far; another process keeps what it computes from call to call."""
        given = (self.model, self.training, self.fleet, self.space)
        return _recipe_there, (*given, self.sequence_parallel, self.zero_stage)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Every shape's name."""
        return tuple(shape.key for shape in self.space.shapes(self.fleet, len(self.model.blocks) + 3))

    @property
    def fingerprint(self) -> str:
        """A digest of what costs follow from, this version too; what may be chosen is not part of it."""
        wanted = (self.sequence_parallel, self.zero_stage)
        batch, made_by = self.space.batch, version("pipesynth")
        given = (self.model, self.training, self.fleet, batch, TICK_SECONDS, wanted, made_by)
        return hashlib.sha256(repr(given).encode()).hexdigest()

    @property
    def limit_bytes(self) -> int:
        """What a GPU may hold, before what a block may need besides."""
        return self.fleet.cluster.memory_limit_bytes()

    def num_microbatches(self, shape: Shape) -> int:
        """Of one replica in one batch."""
        return self.space.batch // shape.dp // shape.microbatch

    def policy_of(self, key: str) -> WeightPolicy:
        """When a shape's weights change."""
        return Shape.of(key).weights

    def outline(self, key: str) -> Outline:
        """What totals say: the work of the average rank, the longest part, a microbatch's way and memory.

        Ops are rounded to ticks, so that a rank may lose half a tick on each.
        """
        shape = Shape.of(key)
        totals = self._totals_of(shape)
        if isinstance(totals, str):
            return Outline(key=key, policy=shape.weights, refusal=totals)
        num_microbatches = self.num_microbatches(shape)
        rounding_s = 1.5 * TICK_SECONDS * shape.chunks
        work_s = max(totals.work_s / shape.pp, totals.longest_part_s) - rounding_s
        least_s = num_microbatches * work_s
        if shape.weights is WeightPolicy.FLUSH:
            held_s = totals.least_flushed_s(shape.pp, num_microbatches, rounding_s * shape.pp)
            least_s = max(least_s, held_s)
        return Outline(
            key=key,
            policy=shape.weights,
            least_ticks=max(1, int(least_s / TICK_SECONDS)),
            refusal=totals.refusal(shape, num_microbatches),
        )

    def draft(self, key: str) -> Draft:
        """Cut the model, and put its ranks where the shape says.

        Raises
        ------
        InputError
            When the model cannot be cut or shared so, or no cut fits.
        """
        return self._drafts(key)

    def _make_draft(self, key: str) -> Draft:
        shape = Shape.of(key)
        plan, fits = self._plans(_anywhere(shape))
        if not fits:
            raise InputError("no cut fits: some rank cannot hold its static bytes and one microbatch")
        seats, quantiser = self._seats(shape), Quantiser(tick_seconds=TICK_SECONDS)
        matrix = transfer_matrix_s(self.fleet, seats, boundary_bytes(self.model, plan.training))
        problem = replace(
            plan.problem,
            transfer_ticks=tuple(tuple(quantiser.ticks(s, least=0) for s in row) for row in matrix),
            source=f"{plan.problem.source}; planned as {key}, over these links with neighbours {shape.seats}",
        )
        return Draft(
            problem=problem, all_reduce_ticks=self._all_reduce_ticks(plan, shape), policy=shape.weights
        )

    def plan(self, shape: Shape) -> Plan:
        """The shape as the cost model plans it, one replica on a cluster of its own.

        Who are neighbours changes nothing in it.
        """
        return self._plans(_anywhere(shape))[0]

    def _make_plan(self, shape: Shape) -> tuple[Plan, bool]:
        """A plan, and whether it fits."""
        pipeline = Pipeline(
            num_ranks=shape.pp,
            num_microbatches=self.num_microbatches(shape),
            chunks=shape.chunks,
            kind=shape.placement,
            tick_seconds=TICK_SECONDS,
        )
        plan = make_plan(self.model, self.training_of(shape), pipeline, self.fleet.cluster)
        return plan, plan.cut_fits and fits_at_all(plan)

    def training_of(self, shape: Shape) -> Training:
        """How a shape trains the model.

        Double buffers hold a second version of the weights. With replicas they hold a second accumulator
        too: a batch's gradients are summed over the replicas while the next batch adds to its own, and
        :func:`~synth.planner.steps.buffered_step_ticks` hides the sum there. The paper's expressions
        count neither that nor any gradient (arXiv 2006.09503, section 3.3); one replica sums nothing.
        """
        buffers = shape.weights is WeightPolicy.DOUBLE_BUFFERED
        return replace(
            self.training,
            microbatch_size=shape.microbatch,
            tensor_parallel=shape.tp,
            sequence_parallel=self.sequence_parallel and shape.tp > 1,
            data_parallel=shape.dp,
            zero_stage=self.zero_stage if shape.dp > 1 else 0,
            recompute=shape.recompute,
            weight_versions=2 if buffers else 1,
            gradient_buffers=2 if buffers and shape.dp > 1 else 1,
        )

    def _seats(self, shape: Shape) -> Seats:
        return Seats(
            num_ranks=shape.pp,
            replicas=shape.dp,
            tensor=shape.tp,
            order=shape.seats,
            gpus_per_node=self.fleet.gpus_per_node,
        )

    def _all_reduce_ticks(self, plan: Plan, shape: Shape) -> tuple[int, ...]:
        """For every stage the sum of its gradients over the replicas, in their accumulated type."""
        seats, ranks = self._seats(shape), plan.problem.stage_to_rank
        sizes = [
            plan.training.gradient_bytes * sum(layer.parameters + layer.expert_parameters for layer in stage)
            for stage in plan.stage_layers
        ]
        return tuple(
            math.ceil(all_reduce_s(self.fleet, seats, rank, size) / TICK_SECONDS)
            for rank, size in zip(ranks, sizes, strict=True)
        )

    def _totals_of(self, shape: Shape) -> Totals | str:
        """The totals of how a shape trains, or why it cannot be trained so."""
        try:
            training = self.training_of(shape)
        except InputError as error:
            return str(error)
        if not training.zero_stage:
            training = replace(training, data_parallel=1)  # which then changes nothing
        if training not in self._totals:
            try:
                self._totals[training] = self._sum(training)
            except InputError as error:
                self._totals[training] = str(error)
        return self._totals[training]

    def _sum(self, training: Training) -> Totals:
        layers, cluster = model_layers(self.model, training), self.fleet.cluster
        costs = layer_costs(layers, cluster.machine(training))
        work = [cost.seconds for cost in costs]
        tied = self.model.modules.head if self.model.tied else None
        static = [0 if layer.modules == (tied,) else static_bytes(layer, training).total for layer in layers]
        cuts = [number for number, layer in enumerate(layers) if number and not layer.stays_with_previous]

        def held(first: int, last: int) -> Held:
            return Held(
                static_bytes=sum(static[first:last]),
                kept_bytes=sum(cost.kept_bytes for cost in costs[first:last]),
            )

        blocks = [layer for layer in layers if layer.is_block]
        ways_s = list(accumulate(cost.forward_s + cost.input_gradient_s for cost in reversed(costs)))
        return Totals(
            work_s=sum(work),
            chain_s=ways_s[-1],
            longest_part_s=_longest_part(layers, work),
            held=held(0, len(layers)),
            held_byte_seconds=sum(
                cost.kept_bytes * way_s for cost, way_s in zip(reversed(costs), ways_s, strict=True)
            ),
            num_blocks=len(blocks),
            block=Held(
                static_bytes=min(static_bytes(layer, training).total for layer in blocks),
                kept_bytes=min(layer.kept_bytes for layer in blocks),
            ),
            block_extra_bytes=min(layer.backward_extra_bytes for layer in blocks),
            first=held(0, cuts[0]),
            last=held(cuts[-1], len(layers)),
            limit_bytes=cluster.memory_limit_bytes(max(layer.transient_bytes for layer in blocks)),
        )


@lru_cache(maxsize=1)
def _recipe_there(
    model: ModelShape,
    training: Training,
    fleet: Fleet,
    space: Space,
    sequence_parallel: bool,
    zero_stage: int,
) -> PlanRecipe:
    return PlanRecipe(
        model, training, fleet, space, sequence_parallel=sequence_parallel, zero_stage=zero_stage
    )


def _anywhere(shape: Shape) -> Shape:
    """The same for shapes that differ in who are neighbours only."""
    return replace(shape, seats=SeatOrder.STAGES)


def _longest_part(layers: tuple[Layer, ...], work: list[float]) -> float:
    parts = [0.0]
    for layer, seconds in zip(layers, work, strict=True):
        parts.append(parts.pop() + seconds if layer.stays_with_previous else seconds)
    return max(parts)
