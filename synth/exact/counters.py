"""The counter formulation: how many ops of every stream have started by every slot, as a MILP.

Microbatches are identical and keep their order, so they need no variables. With ``N_q(t)`` the number of ops
of stream q (a kind on a stage) started by slot t, every rule is linear: a stream waits for another when its
count never exceeds the other's count a while ago, a rank is busy with what started within a duration, and
memory is a weighted sum of counts. There are no big constants and no pairwise orders, and the relaxation to
fractions is tight. The objective is fixed: the question is whether a schedule exists within so many slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd
from typing import TypeAlias

import pulp

from synth.exact.answer import FoundOrders, Stream, orders_from_starts
from synth.exact.slots import Slots
from synth.ops import OpKind
from synth.problem import Objective, Problem

Count: TypeAlias = pulp.LpVariable | int
"""A count that the model decides, or one that is known."""

LARGEST_COEFFICIENT = 10_000
"""Rows with larger ones are scaled down: solvers compare to within a millionth."""


@dataclass(slots=True)
class CounterModel:
    """The counters and what they are made of.

    Parameters
    ----------
    lp
        The PuLP model.
    slots
        The problem on its grid.
    span
        Slots within which the objective is to be.
    counts
        For every stream, its count by slot; beyond the last slot it stays as it is.
    """

    lp: pulp.LpProblem
    slots: Slots
    span: int
    counts: dict[Stream, list[Count]] = field(default_factory=dict)
    begun: dict[int, list[Count]] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """The problem behind the grid."""
        return self.slots.problem

    def count(self, stream: Stream, slot: int) -> Count:
        """The ops of a stream that have started by a slot."""
        return 0 if slot < 0 else self.counts[stream][min(slot, len(self.counts[stream]) - 1)]

    def backwards(self, stage: int) -> list[Stream]:
        """The streams of a stage that count as its backward."""
        return [(kind, stage) for kind in (OpKind.B, OpKind.BW) if (kind, stage) in self.counts]

    def streams_of(self, rank: int) -> list[Stream]:
        """The streams of a rank."""
        return [stream for stream in self.counts if self.problem.stage_to_rank[stream[1]] == rank]

    def add_row(self, terms: list[tuple[int, Count]], most: int) -> None:
        """Hold a weighted sum of counts to at most so much, unless it always is."""
        known = sum(weight * count for weight, count in terms if isinstance(count, int))
        weights: dict[pulp.LpVariable, int] = {}
        for weight, count in terms:
            if not isinstance(count, int):
                weights[count] = weights.get(count, 0) + weight
        reach = sum(
            weight * (_most(count) if weight > 0 else _least(count)) for count, weight in weights.items()
        )
        if known + reach <= most:
            return
        scale = max(1, max(map(abs, weights.values()), default=1) / LARGEST_COEFFICIENT)
        row = pulp.LpAffineExpression(
            [(count, weight / scale) for count, weight in weights.items() if weight]
        )
        self.lp.addConstraint(row <= (most - known) / scale)


def build_counter_model(slots: Slots, span: int) -> CounterModel:
    """The model of whether a schedule exists whose objective is within so many slots."""
    model = CounterModel(pulp.LpProblem("counters"), slots, span)
    _counters(model)
    every_op_once(model)
    no_overlap_on_rank(model)
    forward_chain(model)
    backward_chain(model)
    backward_after_forward(model)
    weight_after_backward(model)
    transfer_time(model)
    memory_limit(model)
    if model.problem.objective is Objective.RANK_SPAN:
        rank_span(model)
    return model


def orders_of(model: CounterModel) -> FoundOrders:
    """The orders behind a model's values: an op starts where its stream's count rises."""
    starts: dict[Stream, list[int]] = {}
    for stream, counts in model.counts.items():
        values = [0, *(count if isinstance(count, int) else round(count.value()) for count in counts)]
        risen = [t for t in range(len(counts)) for _ in range(values[t + 1] - values[t])]
        if risen:
            starts[stream] = risen
    return orders_from_starts(model.problem, starts, model.slots.slot_ticks)


def _counters(model: CounterModel) -> None:
    """A counter per stream and slot, between what it must have reached and what it can.

    F(0) of microbatch 0 starts in slot 0. Under ``rank_span``, its rank then ends within the span, and with
    its backwards everything but the W ops of other ranks, which end within a span of their rank's begin.
    """
    problem, slots = model.problem, model.slots
    m, heads, rests = problem.num_microbatches, _heads(slots), _rests(slots)
    for stage, costs in enumerate(problem.stages):
        for kind, _ in costs.offered:
            stream, length = (kind, stage), slots.length(kind, stage)
            latest = model.span - rests[stream]
            if kind is OpKind.W and not _is_within(problem, stage):
                first = (OpKind.F, problem.stages_by_rank[problem.stage_to_rank[stage]][0])
                latest += model.span - rests[first] - (m - 1) * slots.length(*first)
            chosen = costs.can_divide and not costs.must_divide and kind is not OpKind.F
            model.counts[stream] = [
                _counter(
                    model,
                    f"{stage}{kind}_{t}",
                    0
                    if chosen
                    else max(int(stream == (OpKind.F, 0)), m - max(0, -(-(latest - t) // length))),
                    min(m, (t - heads[stream]) // length + 1),
                )
                for t in range(max(1, latest + 1))
            ]
            counts = model.counts[stream]
            for before, after in pairwise(counts):
                model.add_row([(1, before), (-1, after)], 0)


def _counter(model: CounterModel, name: str, least: int, most: int) -> Count:
    """A count between two numbers; one where they meet. Where they cross, no value will do."""
    least, most = max(0, least), max(0, most)
    if least == most:
        return least
    if least > most:
        model.lp.addConstraint(pulp.LpAffineExpression([(model.lp.add_variable(name, 0, 1), 1)]) >= 2)
        return most
    return model.lp.add_variable(name, least, most, cat=pulp.LpInteger)


def _is_within(problem: Problem, stage: int) -> bool:
    """Whether a stage's W ops end within the span from slot 0."""
    is_makespan = problem.objective is Objective.MAKESPAN
    return is_makespan or problem.stage_to_rank[stage] == problem.stage_to_rank[0]


def _heads(slots: Slots) -> dict[Stream, int]:
    """For every stream, the slot in which its first op can start."""
    problem, heads = slots.problem, dict[Stream, int]()
    for s in range(problem.num_stages):
        heads[OpKind.F, s] = heads[OpKind.F, s - 1] + slots.wait(OpKind.F, s - 1, s) if s else 0
    for s, costs in reversed(list(enumerate(problem.stages))):
        ready = heads[OpKind.F, s] + slots.length(OpKind.F, s)
        if s + 1 < problem.num_stages:
            ways = [kind for kind, _ in problem.stages[s + 1].offered if kind in (OpKind.B, OpKind.BW)]
            ready = max(ready, min(heads[k, s + 1] + slots.wait(k, s + 1, s) for k in ways))
        for kind, _ in costs.offered:
            if kind in (OpKind.B, OpKind.BW):
                heads[kind, s] = ready
        if costs.can_divide:
            heads[OpKind.W, s] = ready + slots.length(OpKind.B, s)
    return heads


def _rests(slots: Slots) -> dict[Stream, int]:
    """For every stream, the slots from the start of an op to the end of what must follow within the span."""
    problem, rests = slots.problem, dict[Stream, int]()
    least: list[int] = []
    for s, costs in enumerate(problem.stages):
        for kind, _ in costs.offered:
            length = slots.length(kind, s)
            if kind in (OpKind.B, OpKind.BW):
                behind = kind is OpKind.B and _is_within(problem, s)
                rests[kind, s] = length + (slots.length(OpKind.W, s) if behind else 0)
                if s:
                    rests[kind, s] = max(rests[kind, s], slots.wait(kind, s, s - 1) + least[s - 1])
            elif kind is OpKind.W:
                rests[kind, s] = length
        least.append(min(rests[k, s] for k in (OpKind.B, OpKind.BW) if (k, s) in rests))
    for s in reversed(range(problem.num_stages)):
        rests[OpKind.F, s] = slots.length(OpKind.F, s) + least[s]
        if s + 1 < problem.num_stages:
            onwards = slots.wait(OpKind.F, s, s + 1) + rests[OpKind.F, s + 1]
            rests[OpKind.F, s] = max(rests[OpKind.F, s], onwards)
    return rests


def every_op_once(model: CounterModel) -> None:
    """Every stage runs for every microbatch F once, and once either BW or B and W."""
    m = model.problem.num_microbatches
    for stage, costs in enumerate(model.problem.stages):
        last = {kind: model.counts[kind, stage][-1] for kind, _ in costs.offered}
        _equal(model, [(1, last[OpKind.F])], m)
        _equal(model, [(1, last[kind]) for kind in (OpKind.B, OpKind.BW) if kind in last], m)
        if OpKind.W in last:
            _equal(model, [(1, last[OpKind.B]), (-1, last[OpKind.W])], 0)


def _equal(model: CounterModel, terms: list[tuple[int, Count]], value: int) -> None:
    model.add_row(terms, value)
    model.add_row([(-weight, count) for weight, count in terms], -value)


def no_overlap_on_rank(model: CounterModel) -> None:
    """A rank runs one op at a time: in every slot, at most one has started and not ended."""
    for rank in range(model.problem.num_ranks):
        streams = model.streams_of(rank)
        for t in range(max(len(model.counts[stream]) for stream in streams)):
            started = [(1, model.count(stream, t)) for stream in streams]
            ended = [(-1, model.count(stream, t - model.slots.length(*stream))) for stream in streams]
            model.add_row(started + ended, 1)


def forward_chain(model: CounterModel) -> None:
    """F of a stage waits for F of the stage before it; between ranks see :func:`transfer_time`."""
    for s in range(1, model.problem.num_stages):
        if _on_one_rank(model.problem, s - 1, s):
            _follows(model, [(OpKind.F, s - 1)], [(OpKind.F, s)], s)


def backward_chain(model: CounterModel) -> None:
    """B or BW of a stage waits for B or BW of the stage after it; between ranks see :func:`transfer_time`."""
    for s in range(model.problem.num_stages - 1):
        if _on_one_rank(model.problem, s + 1, s):
            _follows(model, model.backwards(s + 1), model.backwards(s), s)


def backward_after_forward(model: CounterModel) -> None:
    """B or BW of a stage waits for F of the same stage."""
    for s in range(model.problem.num_stages):
        _follows(model, [(OpKind.F, s)], model.backwards(s), s)


def weight_after_backward(model: CounterModel) -> None:
    """W of a stage waits for B of the same stage."""
    for s, costs in enumerate(model.problem.stages):
        if costs.can_divide:
            _follows(model, [(OpKind.B, s)], [(OpKind.W, s)], s)


def transfer_time(model: CounterModel) -> None:
    """Between different ranks, the transfer time passes too before the consumer starts; links are free."""
    for s in range(model.problem.num_stages - 1):
        if not _on_one_rank(model.problem, s, s + 1):
            _follows(model, [(OpKind.F, s)], [(OpKind.F, s + 1)], s + 1)
            _follows(model, model.backwards(s + 1), model.backwards(s), s)


def _on_one_rank(problem: Problem, a: int, b: int) -> bool:
    return problem.stage_to_rank[a] == problem.stage_to_rank[b]


def _follows(model: CounterModel, sources: list[Stream], streams: list[Stream], stage: int) -> None:
    """Streams of a stage never count more starts than their sources do ends, transfers included."""
    for t in range(max(len(model.counts[stream]) for stream in streams)):
        fed = [(-1, model.count(source, t - model.slots.wait(*source, stage))) for source in sources]
        model.add_row([(1, model.count(stream, t)) for stream in streams] + fed, 0)


def memory_limit(model: CounterModel) -> None:
    """Static bytes plus what ops hold stay within the rank's limit: what has started, less what has ended."""
    problem = model.problem
    for rank, limit in enumerate(problem.memory_limit_bytes or ()):
        streams = model.streams_of(rank)
        costs = {stream: problem.stages[stream[1]].cost(stream[0]) for stream in streams}
        unit = gcd(*(size for cost in costs.values() for size in (cost.alloc_bytes, cost.free_bytes)))
        if unit == 0:
            continue
        room = (limit - problem.static_bytes_by_rank[rank]) // unit
        for t in range(max(len(model.counts[stream]) for stream in streams)):
            taken = [(costs[q].alloc_bytes // unit, model.count(q, t)) for q in streams]
            freed = [
                (-(costs[q].free_bytes // unit), model.count(q, t - model.slots.length(*q))) for q in streams
            ]
            model.add_row(taken + freed, room)


def rank_span(model: CounterModel) -> None:
    """Every rank ends within a span of its begin: once it has begun, all is done a span later.

    A binary per slot says whether the rank has begun: it is at least the forwards of its first stage that
    started within one duration, of which there is one at most, and never falls.
    """
    m = model.problem.num_microbatches
    for rank, held in enumerate(model.problem.stages_by_rank):
        first = (OpKind.F, held[0])
        counts, length = model.counts[first], model.slots.length(*first)
        begun: list[Count] = []
        for t in range(len(counts)):
            fresh = _counter(model, f"begun{rank}_{t}", min(1, _least(counts[t])), min(1, _most(counts[t])))
            model.add_row([(1, counts[t]), (-1, model.count(first, t - length)), (-1, fresh)], 0)
            if begun:
                model.add_row([(1, begun[-1]), (-1, fresh)], 0)
            begun.append(fresh)
        model.begun[rank] = begun
        for t, fresh in enumerate(begun):
            for terms, total in _ends(model, held, t + model.span, m):
                model.add_row([(m, fresh), *terms], total)


def _least(count: Count) -> int:
    return count if isinstance(count, int) else int(count.lowBound)


def _most(count: Count) -> int:
    return count if isinstance(count, int) else int(count.upBound)


def _ends(
    model: CounterModel, held: tuple[int, ...], slot: int, m: int
) -> Iterator[tuple[list[tuple[int, Count]], int]]:
    """For every stage, what is to have ended by a slot: rows that bind once ``m`` is added."""
    for stage in held:
        if (OpKind.BW, stage) in model.counts:
            streams = model.backwards(stage)
            yield [(-1, model.count(q, slot - model.slots.length(*q))) for q in streams], 0
        if (OpKind.W, stage) in model.counts:
            last = model.counts[OpKind.B, stage][-1]
            weights = model.count((OpKind.W, stage), slot - model.slots.length(OpKind.W, stage))
            yield [(1, last), (-1, weights)], m
