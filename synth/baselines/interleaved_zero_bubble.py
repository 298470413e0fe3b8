"""Interleaved zero bubble: ZB-H1's rule for W over group-interleaved 1F1B, as PyTorch has it.

Symbols: p ranks, m microbatches, v stages per rank, g microbatches per group, r the rank, c ticks per
transfer; F, B, W ticks of one stage (one chunk); A bytes that the F of one stage allocates, A_W bytes still
held between B and W.
"""

from __future__ import annotations

from collections import deque

from synth.baselines.grouped import forwards_ahead, passes_in_turn
from synth.baselines.shapes import (
    check_divides,
    equal_activation_bytes,
    equal_bytes_for_w,
    equal_ticks,
    loop_ranks,
)
from synth.errors import BaselineUndefinedError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_NAME = "interleaved-zero-bubble"


def interleaved_zero_bubble(problem: Problem) -> RankOrders:
    """Interleaved zero bubble: a group through chunk after chunk, W put off the more the deeper the rank.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, B=one, W=one), chunks=2)
    >>> print(render_grid(schedule_orders(problem, interleaved_zero_bubble(problem)), last_slot=22))
     rank 0  0F0 0F1 0F2 0F3 4F0 4F1 4F2 4F3 .   .   .   4B0 4W0 4B1 4W1 4B2 4W2 4B3 4W3 0B0 0W0 0B1 …
     rank 1  .   1F0 1F1 1F2 1F3 5F0 5F1 5F2 .   .   5B0 5F3 5B1 5W0 5B2 5W1 5B3 5W2 1B0 5W3 1B1 1W0 …
     rank 2  .   .   2F0 2F1 2F2 2F3 6F0 6F1 .   6B0 6F2 6B1 6F3 6B2 6W0 6B3 6W1 2B0 6W2 2B1 6W3 2B2 …
     rank 3  .   .   .   3F0 3F1 3F2 3F3 7F0 7B0 7F1 7B1 7F2 7B2 7F3 7B3 7W0 3B0 7W1 3B1 7W2 3B2 7W3 …

    Rank r runs g(v-1) + p-1-r forwards, then F and B alternately, from the r-th B on each followed by the W
    that waits longest. With v = 1 this is ZB-H1. Bubble (p-1)(F+B-W), a v-th of ZB-H1's for the same model,
    and peak (g(v-1) + p-r)·A + r·A_W on rank r, with g = p that of 1F1B on the first rank.

    References
    ----------
    PyTorch 2.13, ``torch.distributed.pipelining.ScheduleInterleavedZeroBubble``; the rule for W is that of
    ZB-H1 in Qi et al., "Zero Bubble Pipeline Parallelism", arXiv 2401.10241.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop, a stage cannot divide its backward, or m has no groups of one size.
    """
    turn = _check(problem)
    size = _group_size(problem)
    groups = problem.num_microbatches // size
    forwards, backwards = passes_in_turn(problem, (size,) * groups)
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for depth, rank in enumerate(turn):
        ahead = min(forwards_ahead(problem, size, depth), len(forwards))
        forward = [Op(OpKind.F, first + depth, microbatch) for first, microbatch in forwards]
        order = forward[:ahead]
        put_off: deque[Op] = deque()
        for n, (first, microbatch) in enumerate(backwards):
            order += forward[n + ahead : n + ahead + 1]
            order.append(Op(OpKind.B, first + depth, microbatch))
            put_off.append(Op(OpKind.W, first + depth, microbatch))
            if n >= depth:
                order.append(put_off.popleft())
        orders[rank] = (*order, *put_off)
    return tuple(orders)


def interleaved_zero_bubble_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B-W) + ((v+3)p-4)c, with m = p 2c less; equal stages, m a multiple of p, W ≤ F and 2c ≤ W."""
    _check(problem)
    ticks = equal_ticks(problem, divided=True)
    p, m = problem.num_ranks, problem.num_microbatches
    if ticks is None or m % p or ticks.W > ticks.F or 2 * ticks.transfer > ticks.W:
        return None
    if p == 1:
        return 0
    transfers = problem.num_stages + 3 * p - 4 - 2 * (m == p)
    return (p - 1) * (ticks.F + ticks.B - ticks.W) + transfers * ticks.transfer


def interleaved_zero_bubble_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(g(v-1) + p-r)·A + r·A_W on rank r, of m·v passes in all, plus static bytes; equal stages."""
    turn = _check(problem)
    activation, for_w = equal_activation_bytes(problem), equal_bytes_for_w(problem)
    if activation is None or for_w is None:
        return None
    passes = problem.num_stages // problem.num_ranks * problem.num_microbatches
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(turn):
        in_flight = min(forwards_ahead(problem, _group_size(problem), depth) + 1, passes)
        peaks[rank] += in_flight * activation + min(depth, passes - in_flight) * for_w
    return tuple(peaks)


def _check(problem: Problem) -> tuple[int, ...]:
    check_divides(_NAME, problem)
    turn = loop_ranks(_NAME, problem)
    _group_size(problem)
    return turn


def _group_size(problem: Problem) -> int:
    """The microbatches of a group: as many groups as p goes into m, all of one size."""
    p, m = problem.num_ranks, problem.num_microbatches
    groups = max(1, m // p)
    if m % groups:
        raise BaselineUndefinedError(
            _NAME,
            f"{m} microbatches on {p} ranks; it runs them in {groups} groups of one size: use "
            f"{m - m % groups} microbatches, or any multiple of {p}",
        )
    return m // groups
