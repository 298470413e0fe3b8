"""What a measured step says of its problem's costs: op times, transfers and bytes, to plan with again."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

from synth.measured import NS_PER_S, MeasuredOp, Timeline
from synth.measured_bytes import limit_is_of_other_bytes, stores, with_measured_bytes
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
    timed = with_op_times(problem, _means(times))
    ran = kinds_that_ran(timeline)
    stages = tuple(map(_with_other_form, problem.stages, timed.stages, ran))
    matrix = [list(row) for row in problem.transfer_ticks]
    for (sender, receiver), mean in _means(_waits_ns(whole, _awaited(timeline))).items():
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
            f"{', '.join(missing)} did not run: estimated from what did, in the ratios of the problem's own "
            "ticks, with its bytes if they are like the measured; the timeline of a schedule that runs them "
            "measures them"
        )
    if timeline.held_bytes is None:
        said.append("the timeline does not say what ops hold, so bytes stay as they were")
    elif stores(timeline.problem):
        said.append("what ranks store for others passes beside ops, so bytes stay as they were")
    elif limit_is_of_other_bytes(timeline):
        said.append(
            "the problem's memory limit is left out: the run held over twice as much, so it was not about "
            "these bytes; plan with --memory-limit, a size such as 12GiB or a multiple of 1F1B's such as 1x"
        )
    return tuple(said)


def with_time_before(timeline: Timeline) -> Timeline:
    """The same step, each op with the time before it that belongs to it: what its rank does to get there.

    An op that waited for nothing begins where the op before it on its rank ended: it awaits no message, or
    its messages were there by then, as long as they take on average. Any other begins so long before its
    start as those of its stage and kind that waited for nothing do on average, or where there are none such
    as those of its rank do; but not before the op before it, or its messages' producers, ended. So does the
    first op of a rank.
    """
    awaited = _awaited(timeline)
    prompt = {op for op, messages in awaited.items() if not messages}
    took = _means(_waits_ns(_begun(timeline, awaited, prompt), awaited))
    tick_ns, planned = timeline.problem.tick_seconds * NS_PER_S, timeline.problem.transfer_ticks
    ended = {ran.op: ran.end_ns for rank in timeline.ranks for ran in rank}
    for before, here in (pair for rank in timeline.ranks for pair in pairwise(rank)):
        arrivals = (
            ended[source] + took.get((sender, receiver), planned[sender][receiver] * tick_ns)
            for source, (sender, receiver) in awaited[here.op]
        )
        if all(arrival <= before.end_ns for arrival in arrivals):
            prompt.add(here.op)
    return _begun(timeline, awaited, prompt)


def with_op_times(problem: Problem, times_ns: Mapping[tuple[int, OpKind], float]) -> Problem:
    """A problem whose ops take what was measured of them, at least a tick.

    Parameters
    ----------
    problem
        Gives all else, and the length of a tick.
    times_ns
        By stage and kind; an op without one keeps its ticks.
    """
    tick_ns = problem.tick_seconds * NS_PER_S

    def timed(stage: int, costs: StageCosts) -> StageCosts:
        def cost(kind: OpKind, own: OpCost) -> OpCost:
            time_ns = times_ns.get((stage, kind))
            return own if time_ns is None else replace(own, ticks=max(1, round(time_ns / tick_ns)))

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


class _Message(NamedTuple):
    """What an op gets from another rank: from which op, and from which rank to which."""

    producer: Op
    pair: tuple[int, int]


def _awaited(timeline: Timeline) -> dict[Op, list[_Message]]:
    """For every op, what it awaits of other ranks: messages, or their part of a sum."""
    awaited: dict[Op, list[_Message]] = {op: [] for order in timeline.orders for op in order}
    for transfer in transfers(timeline.schedule):
        pair = transfer.from_rank, transfer.to_rank
        awaited[transfer.consumer].append(_Message(transfer.producer, pair))
    ranks, replicas = timeline.problem.stage_to_rank, timeline.problem.replicas_by_stage
    sums = [op for op in awaited if op.kind is OpKind.R]
    parts = [op for op in awaited if sums and op.kind in (OpKind.W, OpKind.BW)]
    for op in sums:
        here = ranks[op.stage]
        awaited[op] += [
            _Message(part, (ranks[part.stage], here))
            for part in parts
            if part.stage in replicas[op.stage] and ranks[part.stage] != here
        ]
    return awaited


def _begun(timeline: Timeline, awaited: Mapping[Op, Sequence[_Message]], prompt: Collection[Op]) -> Timeline:
    """The step with the time before its ops, given which of them waited for nothing."""
    ended = {ran.op: ran.end_ns for rank in timeline.ranks for ran in rank}
    gap_ns = _gaps_ns(timeline, prompt)

    def begun(before: MeasuredOp | None, here: MeasuredOp) -> MeasuredOp:
        if before is not None and here.op in prompt:
            return here._replace(start_ns=before.end_ns)
        known = [ended[message.producer] for message in awaited[here.op]]
        known += [] if before is None else [before.end_ns]
        start = max([here.start_ns - gap_ns(here.op), *known])
        return here._replace(start_ns=min(here.start_ns, start))

    ranks = tuple(tuple(map(begun, (None, *rank[:-1]), rank)) for rank in timeline.ranks)
    return replace(timeline, ranks=ranks)


def _gaps_ns(timeline: Timeline, prompt: Collection[Op]) -> Callable[[Op], int]:
    """How long a rank is on its way to an op: the mean over its stage's of its kind, or over the rank's."""
    kinds: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
    ranks: dict[int, list[int]] = defaultdict(list)
    for number, rank in enumerate(timeline.ranks):
        for before, here in pairwise(rank):
            if here.op in prompt:
                gap = here.start_ns - before.end_ns
                kinds[here.op.stage, here.op.kind].append(gap)
                ranks[number].append(gap)
    by_kind, by_rank, stage_to_rank = _means(kinds), _means(ranks), timeline.problem.stage_to_rank

    def gap_ns(op: Op) -> int:
        of_rank = by_rank.get(stage_to_rank[op.stage], 0.0)
        return round(by_kind.get((op.stage, op.kind), of_rank))

    return gap_ns


def _waits_ns(whole: Timeline, awaited: Mapping[Op, Sequence[_Message]]) -> dict[tuple[int, int], list[int]]:
    """For each ordered pair of ranks: how long messages took whose consumer's rank was waiting for them."""
    ended = {ran.op: ran.end_ns for rank in whole.ranks for ran in rank}
    first = min(rank[0].start_ns for rank in whole.ranks)
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for rank in whole.ranks:
        idle_from = first
        for op, start, end in rank:
            for message in awaited[op]:
                produced = ended[message.producer]
                if idle_from <= produced and op.kind is not OpKind.R:
                    found[message.pair].append(max(0, start - produced))
            idle_from = end
    return found


def _means(found: Mapping[Key, Sequence[int]]) -> dict[Key, float]:
    return {key: statistics.fmean(values) for key, values in found.items()}
