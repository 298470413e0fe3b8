"""What flows that are no plain chain need of memory."""

from __future__ import annotations

from synth.graph import carried_microbatches
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem, StageCosts


def flow_serial_orders(problem: Problem) -> RankOrders:
    """One microbatch at a time: forwards from the first stage on, then backwards from the last.

    A divided backward runs its W right behind its B; gradients are summed in the end.
    """
    orders: list[list[Op]] = [[] for _ in range(problem.num_ranks)]
    carried = carried_microbatches(problem)
    ranks = problem.stage_to_rank
    for microbatch in range(problem.num_microbatches):
        stages = [stage for stage in range(problem.num_stages) if carried[stage, microbatch]]
        for stage in stages:
            orders[ranks[stage]].append(Op(OpKind.F, stage, microbatch))
        for stage in reversed(stages):
            kinds = backward_kinds(problem.stages[stage])
            orders[ranks[stage]] += [Op(kind, stage, microbatch) for kind in kinds]
    for stage, costs in enumerate(problem.stages):
        if costs.R is not None:
            orders[ranks[stage]].append(Op(OpKind.R, stage, 0))
    return tuple(map(tuple, orders))


def backward_kinds(costs: StageCosts) -> tuple[OpKind, ...]:
    """The ops of a backward: undivided where that is offered."""
    return (OpKind.B, OpKind.W) if costs.must_divide else (OpKind.BW,)


def flow_needed_bytes(problem: Problem) -> tuple[int, ...]:
    """What no order of a rank's ops does without, static bytes included.

    Where all stages that carry a microbatch lead to one last stage, its forwards all come before its first
    backward; then the rank holds what they leave. Otherwise only single ops are counted.
    """
    carried = carried_microbatches(problem)
    outputs = problem.outputs_by_stage
    needed = [0] * problem.num_ranks
    for rank, costs in zip(problem.stage_to_rank, problem.stages, strict=True):
        needed[rank] = max(needed[rank], costs.F.alloc_bytes)
    if any(_may_lower(costs) for costs in problem.stages):
        return problem.static_bytes_by_rank
    for microbatch in range(problem.num_microbatches):
        stages = [stage for stage in range(problem.num_stages) if carried[stage, microbatch]]
        ends = [s for s in stages if not any(carried[after, microbatch] for after in outputs[s])]
        if len(ends) > 1:
            continue
        left = [0] * problem.num_ranks
        for stage in stages:
            costs = problem.stages[stage]
            left[problem.stage_to_rank[stage]] += costs.F.alloc_bytes - costs.F.free_bytes
        needed = [max(pair) for pair in zip(needed, left, strict=True)]
    return tuple(map(sum, zip(problem.static_bytes_by_rank, needed, strict=True)))


def _may_lower(costs: StageCosts) -> bool:
    """Whether an op, or a whole microbatch, may leave less live than there was before."""
    net = {kind: cost.alloc_bytes - cost.free_bytes for kind, cost in costs.offered}
    ways = [net[OpKind.B], net[OpKind.B] + net[OpKind.W]] if OpKind.B in net else []
    ways += [net[OpKind.BW]] if OpKind.BW in net else []
    return net[OpKind.F] < 0 or any(net[OpKind.F] + way < 0 for way in ways)
