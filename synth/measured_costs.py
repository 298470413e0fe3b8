"""What a measured step says of its problem's costs: op times, transfers and bytes, to plan with again."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from synth.measured import NS_PER_S, MeasuredOp, Timeline
from synth.measured_bytes import limit_is_of_other_bytes, with_measured_bytes
from synth.ops import Op, OpKind
from synth.problem import OpCost, Problem, StageCosts
from synth.timeline import transfers

Key = TypeVar("Key", bound=Hashable)


def measured_problem(timeline: Timeline) -> Problem:
    """The timeline's problem with what was measured for costs: feed it back to plan again.

    An op takes the mean over its stage's microbatches, at least a tick, with the time before it
    (:func:`with_time_before`). A transfer takes, for each ordered pair of ranks, the mean over those messages
    whose consumer's rank stood ready before their producer ended, less the time before the consumer; where
    none ever did, the problem's own ticks stay. Means keep what a step takes in all, of which medians leave
    out whatever disturbs single ops. Where a stage's backward ran in one of its forms alone (BW, or B and W),
    the ticks of the other keep their ratio to it.

    Bytes are what :func:`~synth.measured_bytes.with_measured_bytes` makes of the allocator's; where the
    timeline has none they stay as they were.
    """
    problem, whole = timeline.problem, with_time_before(timeline)
    times: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
    for rank in whole.ranks:
        for op, start, end in rank:
            times[op.stage, op.kind].append(end - start)
    timed = with_op_times(problem, {key: [mean] for key, mean in _means(times).items()})
    ran = kinds_that_ran(timeline)
    stages = tuple(map(_with_other_form, problem.stages, timed.stages, ran))
    matrix = [list(row) for row in problem.transfer_ticks]
    for (sender, receiver), mean in _means(_waits_ns(whole)).items():
        matrix[sender][receiver] = round(mean / (problem.tick_seconds * NS_PER_S))
    return replace(
        with_measured_bytes(replace(timed, stages=stages), timeline),
        transfer_ticks=tuple(map(tuple, matrix)),
        source=f"measured: {timeline.source}" if timeline.source else "measured",
    )


def caveats(timeline: Timeline) -> tuple[str, ...]:
    """What in :func:`measured_problem` was not measured, in sentences, and what would do about it."""
    said = []
    stages = zip(timeline.problem.stages, kinds_that_ran(timeline), strict=True)
    missing = [
        f"{stage}{kind}"
        for stage, (costs, ran) in enumerate(stages)
        for kind, _ in costs.offered
        if kind not in ran
    ]
    if missing:
        said.append(
            f"{', '.join(missing)} did not run and keep their ratios to what did: a timeline of a schedule "
            "that runs them would measure them"
        )
    if timeline.held_bytes is None:
        said.append("the timeline does not say what ops hold, so bytes stay as they were")
    elif limit_is_of_other_bytes(timeline):
        said.append(
            "the problem's memory limit is left out: the run held more, so it was not about these bytes; "
            "plan with --memory-limit, a size such as 12GiB or a multiple of what 1F1B holds such as 1x"
        )
    return tuple(said)


def with_time_before(timeline: Timeline) -> Timeline:
    """The same step, each op with the time before it that belongs to it: what its rank does to get there.

    An op that awaits no message begins where the op before it on its rank ended. Any other begins so long
    before its start as those of its stage and kind that await none do on average, or where there are none
    such as those of its rank do; but not before the op before it, or its messages' producers, ended. So does
    the first op of a rank.
    """
    awaited = _awaited(timeline)
    gaps = _Gaps.of(timeline, awaited)
    ended = {ran.op: ran.end_ns for rank in timeline.ranks for ran in rank}

    def begun(before: MeasuredOp | None, here: MeasuredOp) -> MeasuredOp:
        if before is not None and not awaited[here.op]:
            return here._replace(start_ns=before.end_ns)
        known = [ended[source] for source in awaited[here.op]] + ([] if before is None else [before.end_ns])
        return here._replace(start_ns=min(here.start_ns, max([here.start_ns - gaps.ns(here.op), *known])))

    return replace(
        timeline,
        ranks=tuple(tuple(map(begun, (None, *rank[:-1]), rank)) for rank in timeline.ranks),
    )


def with_op_times(problem: Problem, times_ns: Mapping[tuple[int, OpKind], Sequence[float]]) -> Problem:
    """A problem whose ops take what was measured of them: the median, at least a tick.

    Parameters
    ----------
    problem
        Gives all else, and the length of a tick.
    times_ns
        By stage and kind; an op of which there are none keeps its ticks.
    """
    tick_ns = problem.tick_seconds * NS_PER_S

    def timed(stage: int, costs: StageCosts) -> StageCosts:
        def cost(kind: OpKind, own: OpCost) -> OpCost:
            times = times_ns.get((stage, kind))
            return replace(own, ticks=max(1, round(statistics.median(times) / tick_ns))) if times else own

        return costs.map_costs(cost)

    return replace(problem, stages=tuple(map(timed, range(problem.num_stages), problem.stages)))


def kinds_that_ran(timeline: Timeline) -> list[set[OpKind]]:
    """By stage, the kinds of op that ran at least once."""
    ran: list[set[OpKind]] = [set() for _ in timeline.problem.stages]
    for op in (op for order in timeline.orders for op in order):
        ran[op.stage].add(op.kind)
    return ran


def _with_other_form(own: StageCosts, measured: StageCosts, ran: set[OpKind]) -> StageCosts:
    """A stage, the ticks of what did not run of its backward in their ratio to what did."""
    backward = [kind for kind in (OpKind.B, OpKind.W, OpKind.BW) if kind in ran]
    before = sum(own.cost(kind).ticks for kind in backward)
    after = sum(measured.cost(kind).ticks for kind in backward)

    def cost(kind: OpKind, known: OpCost) -> OpCost:
        if kind in ran or not backward:
            return known
        return replace(known, ticks=max(1, round(known.ticks * after / before)))

    return measured.map_costs(cost)


@dataclass(frozen=True, slots=True)
class _Gaps:
    """How long a rank is on its way to an op when it need not wait: means, in nanoseconds."""

    by_kind: Mapping[tuple[int, OpKind], float]
    by_rank: Mapping[int, float]
    stage_to_rank: Sequence[int]

    @classmethod
    def of(cls, timeline: Timeline, awaited: Mapping[Op, Sequence[Op]]) -> _Gaps:
        """From the ops that await nothing."""
        kinds: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
        ranks: dict[int, list[int]] = defaultdict(list)
        for number, rank in enumerate(timeline.ranks):
            for before, here in pairwise(rank):
                if not awaited[here.op]:
                    gap = here.start_ns - before.end_ns
                    kinds[here.op.stage, here.op.kind].append(gap)
                    ranks[number].append(gap)
        return cls(_means(kinds), _means(ranks), timeline.problem.stage_to_rank)

    def ns(self, op: Op) -> int:
        """Of the op's stage and kind, or where none of those need not wait, of its rank."""
        of_rank = self.by_rank.get(self.stage_to_rank[op.stage], 0.0)
        return round(self.by_kind.get((op.stage, op.kind), of_rank))


def _awaited(timeline: Timeline) -> dict[Op, list[Op]]:
    """For every op, those of other ranks that it awaits something of: a message, or their part of a sum."""
    awaited: dict[Op, list[Op]] = {op: [] for order in timeline.orders for op in order}
    for transfer in transfers(timeline.schedule):
        awaited[transfer.consumer].append(transfer.producer)
    ranks, replicas = timeline.problem.stage_to_rank, timeline.problem.replicas_by_stage
    sums = [op for op in awaited if op.kind is OpKind.R]
    parts = [op for op in awaited if sums and op.kind in (OpKind.W, OpKind.BW)]
    for op in sums:
        others = {stage for stage in replicas[op.stage] if ranks[stage] != ranks[op.stage]}
        awaited[op] += [part for part in parts if part.stage in others]
    return awaited


def _waits_ns(whole: Timeline) -> dict[tuple[int, int], list[int]]:
    """For each ordered pair of ranks: how long messages took whose consumer's rank was waiting for them."""
    ran: dict[Op, MeasuredOp] = {}
    idle_from: dict[Op, int] = {}
    first = min(rank[0].start_ns for rank in whole.ranks)
    for rank in whole.ranks:
        before = first
        for measured in rank:
            ran[measured.op], idle_from[measured.op] = measured, before
            before = measured.end_ns
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for transfer in transfers(whole.schedule):
        produced = ran[transfer.producer].end_ns
        if idle_from[transfer.consumer] <= produced:
            waited = ran[transfer.consumer].start_ns - produced
            found[transfer.from_rank, transfer.to_rank].append(waited)
    return found


def _means(found: Mapping[Key, Sequence[int]]) -> dict[Key, float]:
    return {key: statistics.fmean(values) for key, values in found.items()}
