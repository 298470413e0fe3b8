"""What a measured step says of its problem's bytes: those of ops, and those held throughout."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from synth.flows import computing_stages
from synth.measured import HeldBytes, Timeline
from synth.ops import Op, OpKind
from synth.problem import OpCost, Problem, StageCosts


def with_measured_bytes(problem: Problem, timeline: Timeline) -> Problem:
    """A timeline's problem with the bytes that its allocators saw; without any, or with storage, as it is.

    An op allocates what its rank held at most while it ran, above what it held before, and frees what is not
    left behind: medians over a stage's microbatches, of two middle ones the lower, so that the first weight
    gradients, which bring the tensors that they are in, count among what is held throughout. What a forward
    leaves its backward frees, all of it: W what B leaves. A form of the backward that did not run keeps its
    own bytes if those of F were like the measured ones; if not, they were in units of their own, and it is
    taken to rise as high as the other, and B to free nothing. R keeps its bytes.

    Static bytes are what that leaves open of the peaks that were measured: weights, the optimizer's state,
    buffers for messages, and the weight gradients, though they come with a stage's first W or BW alone. So
    the orders that ran come to their peaks again, or where a peak comes before some gradients do to so much
    more. They are shared among a rank's stages as before, or equally; further versions of weights come on
    top, as they did. A memory limit of less than half of what the run held was not about these bytes:
    there is none then.

    Parameters
    ----------
    problem
        The timeline's, maybe at other ticks.
    timeline
        What was measured.
    """
    if timeline.held_bytes is None or timeline.peak_memory_bytes is None or stores(problem):
        return problem
    seen = _changes(timeline, timeline.held_bytes)
    stages = tuple(
        _with_bytes(costs, {kind: seen[s, kind] for kind, _ in costs.offered if (s, kind) in seen})
        for s, costs in enumerate(problem.stages)
    )
    limit = None if limit_is_of_other_bytes(timeline) else problem.memory_limit_bytes
    measured = replace(problem, stages=stages, memory_limit_bytes=limit)
    return _with_static_bytes(measured, timeline, timeline.held_bytes, timeline.peak_memory_bytes)


def stores(problem: Problem) -> bool:
    """Whether some stages just store what others evict, which passes beside ops and belongs to none."""
    return len(computing_stages(problem)) < problem.num_stages


def limit_is_of_other_bytes(timeline: Timeline) -> bool:
    """Whether a rank held over twice its problem's limit, which was then in units of its own."""
    limits, peaks = timeline.problem.memory_limit_bytes, timeline.peak_memory_bytes
    if limits is None or peaks is None:
        return False
    return any(peak > 2 * limit for peak, limit in zip(peaks, limits, strict=True))


@dataclass(frozen=True, slots=True)
class _Change:
    """What ops of one kind on one stage did: how far what was held rose, and what they left, in bytes."""

    rise: int
    net: int


def _changes(timeline: Timeline, held: tuple[HeldBytes, ...]) -> dict[tuple[int, OpKind], _Change]:
    """By stage and kind, the medians over microbatches."""
    rises: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
    nets: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
    for order, rank in zip(timeline.orders, held, strict=True):
        befores = (rank.start_bytes, *rank.after_bytes)
        for op, before, most, after in zip(order, befores, rank.most_bytes, rank.after_bytes, strict=False):
            rises[op.stage, op.kind].append(most - before)
            nets[op.stage, op.kind].append(after - before)
    return {
        key: _Change(statistics.median_low(found), statistics.median_low(nets[key]))
        for key, found in rises.items()
    }


def _with_bytes(costs: StageCosts, seen: Mapping[OpKind, _Change]) -> StageCosts:
    """A stage whose ops do what was seen of them."""
    if OpKind.F not in seen:
        return costs
    rises = {kind: change.rise for kind, change in seen.items()}
    kept = seen[OpKind.F].net
    own_b = costs.B if costs.B is not None and _is_of_a_size(costs, kept) else None
    after_b = 0 if own_b is None else own_b.alloc_bytes - own_b.free_bytes
    after_b = seen[OpKind.B].net if OpKind.B in seen else after_b
    nets = {OpKind.F: kept, OpKind.B: after_b, OpKind.W: -kept - after_b, OpKind.BW: -kept}
    highest = max((rise for kind, rise in rises.items() if kind is not OpKind.F), default=0)

    def cost(kind: OpKind, own: OpCost) -> OpCost:
        if kind is OpKind.R:
            return own
        estimate = own.alloc_bytes if _is_of_a_size(costs, kept) else highest
        alloc = max(0, nets[kind], rises.get(kind, estimate))
        return replace(own, alloc_bytes=alloc, free_bytes=alloc - nets[kind])

    return costs.map_costs(cost)


def _is_of_a_size(costs: StageCosts, kept: int) -> bool:
    """Whether a stage's own bytes are like those measured, within a factor of 2: not in other units."""
    own = costs.F.alloc_bytes - costs.F.free_bytes
    return 0 < kept <= 2 * own <= 4 * kept


def _with_static_bytes(
    problem: Problem, timeline: Timeline, held: tuple[HeldBytes, ...], peaks: tuple[int, ...]
) -> Problem:
    """The problem whose ranks hold throughout what its ops and the measured peaks leave open."""
    stages = list(problem.stages)
    for own, order, seen, peak in zip(problem.stages_by_rank, timeline.orders, held, peaks, strict=True):
        of_ops, gradients = _peak_of_ops(problem, order, seen)
        shares = [stages[stage].static_bytes for stage in own]
        for stage, part in zip(own, _shared(max(0, peak - of_ops + gradients), shares), strict=True):
            stages[stage] = replace(stages[stage], static_bytes=part)
    return replace(problem, stages=tuple(stages))


def _peak_of_ops(problem: Problem, order: tuple[Op, ...], seen: HeldBytes) -> tuple[int, int]:
    """What a rank's ops come to at most, weight gradients from when they came, and those gradients."""
    live = highest = gradients = 0
    with_gradients: set[int] = set()
    befores = (seen.start_bytes, *seen.after_bytes)
    for op, before, most, after in zip(order, befores, seen.most_bytes, seen.after_bytes, strict=False):
        cost = problem.stages[op.stage].cost(op.kind)
        rise, net = cost.alloc_bytes, cost.alloc_bytes - cost.free_bytes
        if op.kind in (OpKind.W, OpKind.BW) and op.stage not in with_gradients:
            with_gradients.add(op.stage)
            brought = max(0, after - before - net)
            rise, net, gradients = max(rise, most - before), net + brought, gradients + brought
        highest = max(highest, live + rise)
        live += net
    return highest, gradients


def _shared(total: int, shares: list[int]) -> list[int]:
    """A whole number in the ratio of others, or equally where all are 0; the first gets what is left over."""
    shares = shares if any(shares) else [1] * len(shares)
    parts = [total * share // sum(shares) for share in shares]
    parts[0] += total - sum(parts)
    return parts
