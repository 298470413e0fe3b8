"""PipeDream's planner on a model and a cluster: what it plans, and whether that fits."""

from __future__ import annotations

from dataclasses import dataclass

from costmodels.layers import model_layers
from costmodels.model_shape import ModelShape
from costmodels.optimizer_state import static_bytes
from costmodels.planning import boundary_bytes
from costmodels.plans.fleet import Fleet
from costmodels.plans.pipedream import LayerProfile, Level, PipeDreamPlan, plan_pipedream
from costmodels.stages import layer_costs
from costmodels.training import Training
from synth.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class StashingPlan:
    """PipeDream's plan for minibatches of one size.

    Parameters
    ----------
    training
        How it trains; its microbatch is PipeDream's minibatch, and weights change after each.
    plan
        The stages with their replicas.
    bytes_by_stage
        What each GPU of a stage holds: stashed weights and activations, gradients and optimizer state.
    limit_bytes
        What a GPU may hold.
    """

    training: Training
    plan: PipeDreamPlan
    bytes_by_stage: tuple[int, ...]
    limit_bytes: int

    @property
    def fits(self) -> bool:
        """Whether every GPU holds what it must."""
        return max(self.bytes_by_stage) <= self.limit_bytes

    @property
    def sequences_per_s(self) -> float:
        """Throughput, a minibatch each period."""
        return self.training.microbatch_size / self.plan.period_s


def stashing_plan(model: ModelShape, training: Training, fleet: Fleet) -> StashingPlan:
    """Plan as PipeDream does: the times and sizes of the layers, and the bandwidths of the two levels.

    Raises
    ------
    InputError
        When the GPUs are not the same number in each node.
    """
    layers, cluster = model_layers(model, training), fleet.cluster
    costs = layer_costs(layers, cluster.machine(training))
    profile = [
        LayerProfile(
            seconds=cost.seconds,
            output_bytes=boundary_bytes(model, training),
            weight_bytes=(layer.parameters + layer.expert_parameters) * training.number_bytes,
            kept_bytes=cost.kept_bytes,
        )
        for layer, cost in zip(layers, costs, strict=True)
    ]
    plan = plan_pipedream(profile, _levels(fleet))
    others = [static.gradients + static.optimizer for static in (static_bytes(n, training) for n in layers)]
    stashed = plan.bytes_by_stage(profile)
    return StashingPlan(
        training=training,
        plan=plan,
        bytes_by_stage=tuple(
            held + sum(others[stage.first : stage.last])
            for stage, held in zip(plan.stages, stashed, strict=True)
        ),
        limit_bytes=cluster.memory_limit_bytes(max(n.transient_bytes for n in layers if n.is_block)),
    )


def _levels(fleet: Fleet) -> list[Level]:
    cluster, share = fleet.cluster, fleet.cluster.efficiencies.link
    inside = fleet.gpus_per_node
    if fleet.num_gpus % inside:
        raise InputError(
            f"{fleet.num_gpus} GPUs are given in nodes of {inside}, and PipeDream's planner takes equal "
            f"nodes: give a multiple of {inside}"
        )
    levels = [Level(units=inside, bytes_per_s=share * cluster.gpu.nvlink.bytes_per_s)]
    if fleet.num_gpus > inside:
        between = share * cluster.between_nodes.bytes_per_s
        levels.append(Level(units=fleet.num_gpus // inside, bytes_per_s=between))
    return levels
