"""How long a step takes: the pipeline of one replica, and what is exposed of the sum over the replicas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from synth.bounds import best_bound
from synth.bounds.chains import forward_heads
from synth.drafts import Draft, WeightPolicy
from synth.graph import KINDS, build_graph, divided_in_orders
from synth.ops import OpKind, RankOrders
from synth.problem import Problem
from synth.schedule import Schedule
from synth.timing import earliest_starts

ENDING = (OpKind.W, OpKind.BW)
"""Ops that add to a weight gradient."""


def flushed_step_ticks(schedule: Schedule, all_reduce_ticks: Sequence[int]) -> int:
    """From the first start to the end of the last op or all-reduce.

    A stage's all-reduce begins when the last of its weight gradients is there, and runs beside other ops; a
    rank runs one at a time, in the order in which they become ready. The step ends when all are done.

    Parameters
    ----------
    schedule
        One batch on one replica.
    all_reduce_ticks
        Of every stage.
    """
    begun = min(rank[0].start for rank in schedule.ranks)
    ended = begun
    for rank in schedule.ranks:
        ready: dict[int, int] = {}
        for timed in rank:
            if timed.op.kind in ENDING:
                ready[timed.op.stage] = timed.end
        ended = max(ended, rank[-1].end, _summed_at(begun, ready, all_reduce_ticks))
    return ended - begun


def ordered_step_ticks(problem: Problem, orders: RankOrders, all_reduce_ticks: Sequence[int]) -> int:
    """The same of orders at their earliest times, which it does not lay out op by op.

    Parameters
    ----------
    problem, orders
        One batch on one replica: for every rank, all its ops in execution order.
    all_reduce_ticks
        Of every stage.
    """
    graph = build_graph(problem, divided_in_orders(problem, orders))
    ids = graph.orders_to_ids(orders)
    ends = earliest_starts(graph, ids) + graph.ticks
    begun = min(int(ends[order[0]] - graph.ticks[order[0]]) for order in ids)
    ending = np.isin(graph.kind, [KINDS.index(kind) for kind in ENDING])
    ended = begun
    for order, held in zip(ids, problem.stages_by_rank, strict=True):
        ready = {stage: int(ends[(graph.stage == stage) & ending].max()) for stage in held}
        ended = max(ended, int(ends[order[-1]]), _summed_at(begun, ready, all_reduce_ticks))
    return ended - begun


def _summed_at(begun: int, ready: Mapping[int, int], all_reduce_ticks: Sequence[int]) -> int:
    """When a rank has summed the gradients of its stages, given when each has them: one at a time."""
    clock = begun
    for stage, at in sorted(ready.items(), key=lambda item: item[1]):
        clock = max(clock, at) + all_reduce_ticks[stage]
    return clock


def buffered_step_ticks(problem: Problem, all_reduce_ticks: Sequence[int]) -> int:
    """A batch of PipeDream-2BW in its steady state: 1F1B that never flushes, p - r microbatches in flight.

    A microbatch takes the longest mean of any neighbouring stages: their F and BW and the transfers between
    them both ways, over their number. (Every cycle of 1F1B's event graph goes down some stages and up again,
    and passes as many microbatches as stages; more turns only put such cycles together.) Where transfers cost
    nothing that is the slowest stage.

    A batch's gradients are summed while the next one runs, and are due when the first microbatch of the one
    after starts. By 1F1B's order that forward of rank r comes p - r - 1 forwards and backwards before the
    last backward of the batch between, whose own sum follows: so a batch takes at least that long and the
    sum. In other words, a sum has the time of m - (p - r - 1) microbatches to hide behind.

    Parameters
    ----------
    problem
        One stage per rank, stage r on rank r; m microbatches in a batch, m ≥ p.
    all_reduce_ticks
        Of every stage.

    References
    ----------
    Narayanan et al., Memory-Efficient Pipeline-Parallel DNN Training, arXiv 2006.09503, section 3.1.
    """
    m, p = problem.num_microbatches, problem.num_ranks
    period = microbatch_period_ticks(problem)
    steps = [m * period]
    steps += [(p - rank - 1) * period + ticks for rank, ticks in enumerate(all_reduce_ticks) if ticks]
    return math.ceil(max(steps))


def microbatch_period_ticks(problem: Problem) -> Fraction:
    """How often a microbatch leaves 1F1B without flushes; see :func:`buffered_step_ticks`."""
    best = Fraction(0)
    stages = range(problem.num_stages)
    work = [problem.stages[s].F.ticks + whole_backward_ticks(problem, s) for s in stages]
    for first in stages:
        ticks = work[first]
        best = max(best, Fraction(ticks))
        for last in range(first + 1, problem.num_stages):
            ticks += work[last] + problem.lag_ticks(last - 1, last) + problem.lag_ticks(last, last - 1)
            best = max(best, Fraction(ticks, last - first + 1))
    return best


def whole_backward_ticks(problem: Problem, stage: int) -> int:
    """The backward of schedules that do not divide it: BW, or B and W behind each other."""
    costs = problem.stages[stage]
    if costs.BW is not None:
        return costs.BW.ticks
    return costs.cost(OpKind.B).ticks + costs.cost(OpKind.W).ticks


def least_step_ticks(draft: Draft) -> int:
    """What no schedule's step can beat; for double buffering, the step itself."""
    quick = quick_least_step_ticks(draft)
    if draft.policy is WeightPolicy.DOUBLE_BUFFERED:
        return quick
    return max(best_bound(draft.problem).ticks, quick)


def quick_least_step_ticks(draft: Draft) -> int:
    """The same, by work alone: each rank's wait for its first microbatch, its ops and its least sum.

    A rank's last op ends a weight gradient, whose sum over the replicas comes after everything it does.
    """
    problem, sums = draft.problem, draft.all_reduce_ticks
    if draft.policy is WeightPolicy.DOUBLE_BUFFERED:
        return buffered_step_ticks(problem, sums)
    heads, work = forward_heads(problem), problem.work_ticks_by_rank
    return max(
        heads[held[0]] + work[rank] + min(sums[stage] for stage in held)
        for rank, held in enumerate(problem.stages_by_rank)
    )


def least_undivided_step_ticks(draft: Draft) -> int:
    """What no flushed step can beat that divides no backward where it need not.

    A rank's last op is then the whole backward of one of its stages, behind which those of all stages before
    follow one another up to stage 0, and the sums over the replicas.
    """
    problem, sums = draft.problem, draft.all_reduce_ticks
    heads, tails = forward_heads(problem), [sums[0]]
    for stage in range(1, problem.num_stages):
        costs = problem.stages[stage]
        ahead = costs.cost(OpKind.W).ticks if costs.must_divide else 0  # B, then W beside the way up
        way = problem.lag_ticks(stage, stage - 1) + whole_backward_ticks(problem, stage - 1)
        tails.append(max(sums[stage], way - ahead + tails[-1]))
    work = [costs.F.ticks + whole_backward_ticks(problem, s) for s, costs in enumerate(problem.stages)]
    return max(
        heads[held[0]]
        + problem.num_microbatches * sum(work[stage] for stage in held)
        + min(tails[stage] for stage in held)
        for held in problem.stages_by_rank
    )
