"""Chimera: two opposite pipelines of 1F1B, merged so that each runs in the other's idle slots.

Symbols: p ranks, m microbatches; F, BW ticks of one stage; A bytes that its F allocates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

from synth.baselines.directions import Stream, in_two_directions, streams_by_depth
from synth.baselines.pieces import piece_of
from synth.baselines.shapes import (
    EqualTicks,
    equal_ticks,
    holds_from_forward_on,
    with_offered_backwards,
)
from synth.chunks import merge_stages
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem, StageCosts

_ASYMMETRIC = "chimera-asymmetric"


def chimera_problem(problem: Problem) -> Problem:
    """A plain chain in two directions: see :func:`~synth.baselines.directions.in_two_directions`."""
    return in_two_directions("chimera", problem)


def chimera(problem: Problem) -> RankOrders:
    """Chimera: units of p microbatches, half of them against the other half, one unit behind the other.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = chimera_problem(uniform_problem(4, 4, StageCosts(F=one, BW=OpCost(ticks=2))))
    >>> print(render_grid(schedule_orders(problem, chimera(problem))))
     rank 0  0F0  0F1  .    7F2  7BW2----- 7F3  7BW3----- .    0BW0----- .    .    0BW1-----
     rank 1  .    1F0  6F2  1F1  6F3  .    6BW2----- 1BW0----- 6BW3----- 1BW1----- .    .
     rank 2  .    5F2  2F0  5F3  2F1  .    2BW0----- 5BW2----- 2BW1----- 5BW3----- .    .
     rank 3  4F2  4F3  .    3F0  3BW0----- 3F1  3BW1----- .    4BW2----- .    .    4BW3-----

    On a grid in which F and BW last a slot each, the ops of a unit never meet, and the next unit's begin in
    the idle slots of the one before ("direct concatenation"). Every op's slot comes behind those of all that
    it waits for, so the order of the slots cannot deadlock, whatever ops last.

    Bubble (p/2-1)(F+BW) for F = BW, and from p/2 + 1 activations on the first and the last rank to p in the
    middle.

    References
    ----------
    Li and Hoefler, "Chimera: Efficiently Training Large-Scale Neural Networks with Bidirectional Pipelines",
    arXiv 2107.06925, figure 3 for a unit, and its direct concatenation of several.
    """
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for first, second in streams_by_depth(problem):
        by_slot = sorted([*_slots(problem, first), *_slots(problem, second)])
        rank = problem.stage_to_rank[first.stage]
        orders[rank] = with_offered_backwards(problem, (op for _, op in by_slot))
    return tuple(orders)


def chimera_bubble_ticks(problem: Problem) -> int | None:
    """(p-2)(max(F, BW) + (m/p-1)|BW-F|) with units of p microbatches, no transfers and equal stages.

    The published ratio (p-2)/(2m+p-2) is that of F = BW: (p/2-1)(F+BW), however many units. With fewer than
    p microbatches (p-2)(F+BW) - (m-2)min(F, BW).
    """
    ticks = _undivided_ticks(problem)
    return None if ticks is None else _bubble_ticks(problem, ticks.F + ticks.B, min(ticks.F, ticks.B))


def chimera_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """p/2 microbatches of one direction and min(r, p-1-r) + 1 of the other, plus static bytes, on rank r.

    For any costs, if F allocates and backward frees A; of either direction at most its m/2 microbatches.
    """
    if not all(map(holds_from_forward_on, problem.stages)):
        return None
    half, most = problem.num_ranks // 2, problem.num_microbatches // 2
    peaks = list(problem.static_bytes_by_rank)
    for depth, (first, second) in enumerate(streams_by_depth(problem)):
        # The direction that this rank is among the first of runs ahead there.
        ahead, behind = (first, second) if depth < half else (second, first)
        from_the_end = min(depth, problem.num_ranks - 1 - depth)
        peaks[problem.stage_to_rank[first.stage]] += (
            min(half, most) * problem.stages[ahead.stage].F.alloc_bytes
            + min(from_the_end + 1, most) * problem.stages[behind.stage].F.alloc_bytes
        )
    return tuple(peaks)


def chimera_asymmetric_problem(problem: Problem) -> Problem:
    """A plain chain in two directions, cut anew: the first p/2 stages have half the layers of the others.

    Barley et al. give the blocks out 1 to 2, to ease the memory of the first stages; the two directions even
    this out, so that every rank runs as much as before. Layers in one stage are taken as equal. A problem of
    two directions stays as it is.

    References
    ----------
    Barley et al., "A Tabular Schedule Abstraction for Communication-Aware Evaluation of Pipeline-Parallel LLM
    Training", arXiv 2605.24006, its asymmetric Chimera. That the first stages are the smaller ones is read
    from its aim, and leaves the highest peak as it is, as found there.
    """
    as_it_is = in_two_directions(_ASYMMETRIC, problem)
    if problem.feeds:
        return as_it_is
    half = problem.num_ranks // 2
    sizes = [Fraction(2, 3)] * half + [Fraction(4, 3)] * half
    stages = tuple(
        _between(problem, end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)
    )
    return in_two_directions(_ASYMMETRIC, replace(problem, stages=stages))


def chimera_asymmetric(problem: Problem) -> RankOrders:
    """Chimera's orders on stages of 1 and 2 shares of the layers.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> stage = StageCosts(F=OpCost(ticks=3), BW=OpCost(ticks=6))
    >>> problem = chimera_asymmetric_problem(uniform_problem(4, 4, stage))
    >>> print(render_grid(schedule_orders(problem, chimera_asymmetric(problem)), slot_ticks=2, last_slot=16))
     rank 0  0F0  0F1  .    .    7F2------ 7BW2--------------- 7F3------ 7BW3--------------- …
     rank 1  .    1F0  6F2------ 1F1  6F3------ .    .    .    6BW2--------------- 1BW0----- …
     rank 2  .    5F2  2F0------ 5F3  2F1------ .    .    .    2BW0--------------- 5BW2----- …
     rank 3  4F2  4F3  .    .    3F0------ 3BW0--------------- 3F1------ 3BW1--------------- …

    The ranks in the middle hold p/2 activations of a small and p/2 of a large stage, as much as Chimera's:
    the highest peak of any rank stays.
    """
    return chimera(problem)


def chimera_asymmetric_bubble_ticks(problem: Problem) -> int | None:
    """Chimera's with (F+BW)/3 for min(F, BW) where that is less; F, BW ticks of a stage of the even cut.

    Exact for stages of exactly one and two shares, no transfers, and m as in Chimera's.
    """
    p = problem.num_ranks
    lights = (*problem.stages[: p // 2], *problem.stages[p : p + p // 2])
    heavies = (*problem.stages[p // 2 : p], *problem.stages[p + p // 2 :])
    light, heavy = (_undivided_ticks(replace(problem, stages=half * 2)) for half in (lights, heavies))
    if light is None or heavy is None or (heavy.F, heavy.B) != (2 * light.F, 2 * light.B):
        return None
    # In halves of a tick: an even stage is one and a half small ones.
    work = 3 * (light.F + light.B)
    halves = _bubble_ticks(problem, work, min(3 * light.F, 3 * light.B, light.F + light.B))
    return None if halves is None else halves // 2


def _between(problem: Problem, begin: Fraction, end: Fraction) -> StageCosts:
    """The layers of a chain from one place to another, in stages, as one stage."""
    parts = []
    for stage, costs in enumerate(problem.stages):
        first, last = max(begin, Fraction(stage)), min(end, Fraction(stage + 1))
        if first < last:
            parts.append(piece_of(costs, first - stage, last - stage))
    return merge_stages(parts)


def _slots(problem: Problem, stream: Stream) -> Iterator[tuple[int, Op]]:
    """A direction's ops on a rank, each in its slot of a grid on which no two ops of a rank meet."""
    p = problem.num_ranks
    depth = stream.stage % p
    for number, microbatch in enumerate(stream.microbatches):
        unit, position = divmod(number, p // 2)
        begins = 2 * (p * unit + position)
        yield begins + depth, Op(OpKind.F, stream.stage, microbatch)
        yield begins + 2 * p - 1 - depth, Op(OpKind.BW, stream.stage, microbatch)


def _undivided_ticks(problem: Problem) -> EqualTicks | None:
    """The ticks of equal stages with undivided backwards and no transfers."""
    ticks = equal_ticks(problem, divided=False)
    return None if ticks is None or ticks.W or ticks.transfer else ticks


def _bubble_ticks(problem: Problem, work: int, shared: int) -> int | None:
    """The bubble of stages of so much work, of which ``shared`` is hidden behind the other direction."""
    p, m = problem.num_ranks, problem.num_microbatches
    if m <= p:
        return (p - 2) * work - (m - 2) * shared
    if m % p:
        return None
    return (p - 2) * (work - shared + (m // p - 1) * (work - 2 * shared))
