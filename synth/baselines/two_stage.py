"""2BP, two-stage backpropagation: known schedules with every backward divided and W put off to the end.

Symbols: p ranks, m microbatches, v stages per rank, r the rank, c ticks per transfer; F, B, W ticks of one
stage; A bytes that F allocates, A_W bytes still held between B and W. All from Rae et al., "2BP: 2-Stage
Backpropagation", arXiv 2405.18047, figure 1, where B and W are backward-p1 and backward-p2; when W runs is
taken from the authors' released code, which the picture does not show for more than 2p microbatches.
"""

from __future__ import annotations

from collections import deque

from synth.baselines.flushed import gpipe, gpipe_peak_bytes, one_f_one_b
from synth.baselines.interleaved import check_groups, forwards_ahead, interleaved_1f1b
from synth.baselines.shapes import (
    chain_ranks,
    check_divides,
    equal_activation_bytes,
    equal_bytes_for_w,
    equal_ticks,
    holds_from_forward_on,
)
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_ON_INTERLEAVED = "2bp-interleaved-1f1b"


def two_bp_gpipe(problem: Problem) -> RankOrders:
    """2BP on GPipe: all forwards, all B, then all W.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, B=one, W=one))
    >>> print(render_grid(schedule_orders(problem, two_bp_gpipe(problem))))
     rank 0  F0 F1 F2 F3 .  .  .  .  .  .  B0 B1 B2 B3 W0 W1 W2 W3
     rank 1  .  F0 F1 F2 F3 .  .  .  .  B0 B1 B2 B3 W0 W1 W2 W3 .
     rank 2  .  .  F0 F1 F2 F3 .  .  B0 B1 B2 B3 W0 W1 W2 W3 .  .
     rank 3  .  .  .  F0 F1 F2 F3 B0 B1 B2 B3 W0 W1 W2 W3 .  .  .

    Bubble (p-1)(F+B) + 2(p-1)c and peak m·A on every rank, with one stage per rank; any placement will do.

    Raises
    ------
    BaselineUndefinedError
        When a stage cannot divide its backward.
    """
    check_divides("2bp-gpipe", problem)
    return tuple(
        (*divided, *(op._replace(kind=OpKind.W) for op in divided if op.kind is OpKind.B))
        for divided in map(_without_w, gpipe(problem))
    )


def two_bp_gpipe_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F + B) + 2(p-1)c; exact for equal stages, one per rank, any m and any c."""
    check_divides("2bp-gpipe", problem)
    ticks = equal_ticks(problem, divided=True)
    if ticks is None or problem.num_stages != problem.num_ranks:
        return None
    return (problem.num_ranks - 1) * (ticks.F + ticks.B + 2 * ticks.transfer)


def two_bp_gpipe_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """GPipe's: m·A over each rank's stages, plus static bytes."""
    check_divides("2bp-gpipe", problem)
    return gpipe_peak_bytes(problem)


def two_bp_1f1b(problem: Problem) -> RankOrders:
    """2BP on 1F1B: F and B alternately; behind the last F the oldest W follows every B, the rest come last.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 6, StageCosts(F=one, B=one, W=one))
    >>> print(render_grid(schedule_orders(problem, two_bp_1f1b(problem))))
     rank 0  F0 F1 F2 F3 .  .  .  B0 F4 B1 F5 B2 W0 B3 W1 B4 W2 B5 W3 W4 W5
     rank 1  .  F0 F1 F2 .  .  B0 F3 B1 F4 B2 F5 B3 W0 B4 W1 B5 W2 W3 W4 W5
     rank 2  .  .  F0 F1 .  B0 F2 B1 F3 B2 F4 B3 F5 B4 W0 B5 W1 W2 W3 W4 W5
     rank 3  .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 W0 W1 W2 W3 W4 W5

    Bubble (p-1)(F+B-W), that of ZB-H1, but W waits for the cool-down on every rank: peak
    (p-r)·A + (m-p+r)·A_W on rank r.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages, or a stage cannot divide its backward.
    """
    _check_1f1b(problem)
    return tuple(map(_with_w_in_cooldown, one_f_one_b(problem)))


def two_bp_1f1b_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B) - (min(m, p)-1)W + 2(p-1 + m-1 - ⌈(m-1)/p⌉)c; exact for equal stages with W ≤ F.

    A microbatch's way down and up again paces the first rank, as in 1F1B.
    """
    _check_1f1b(problem)
    ticks = equal_ticks(problem, divided=True)
    if ticks is None or ticks.W > ticks.F:
        return None
    p, m = problem.num_ranks, problem.num_microbatches
    hops = p - 1 + m - 1 + (1 - m) // p
    return (p - 1) * (ticks.F + ticks.B) - (min(m, p) - 1) * ticks.W + 2 * hops * ticks.transfer


def two_bp_1f1b_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(p-r)·A + (m-p+r)·A_W on rank r from m = p on, m·A below, plus static bytes; any costs."""
    depth_ranks = _check_1f1b(problem)
    if not all(map(holds_from_forward_on, problem.stages)):
        return None
    peaks = list(problem.static_bytes_by_rank)
    for stage, rank in enumerate(depth_ranks):
        costs = problem.stages[stage]
        in_flight = min(problem.num_ranks - stage, problem.num_microbatches)
        for_w = costs.F.alloc_bytes - costs.cost(OpKind.B).free_bytes
        peaks[rank] += in_flight * costs.F.alloc_bytes + (problem.num_microbatches - in_flight) * for_w
    return tuple(peaks)


def two_bp_interleaved_1f1b(problem: Problem) -> RankOrders:
    """2BP on interleaved 1F1B, by the rule of 2BP on 1F1B, which the paper leaves to any schedule.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, B=one, W=one), chunks=2)
    >>> print(render_grid(schedule_orders(problem, two_bp_interleaved_1f1b(problem)), last_slot=22))
     rank 0  0F0 0F1 0F2 0F3 4F0 4F1 4F2 4F3 .   .   .   4B0 4W0 4B1 4W1 4B2 4W2 4B3 4W3 0B0 0W0 0B1 …
     rank 1  .   1F0 1F1 1F2 1F3 5F0 5F1 5F2 5F3 .   5B0 5W0 5B1 5W1 5B2 5W2 5B3 5W3 1B0 1W0 1B1 1W1 …
     rank 2  .   .   2F0 2F1 2F2 2F3 6F0 6F1 6F2 6B0 6F3 6B1 6W0 6B2 6W1 6B3 6W2 2B0 6W3 2B1 2W0 2B2 …
     rank 3  .   .   .   3F0 3F1 3F2 3F3 7F0 7B0 7F1 7B1 7F2 7B2 7F3 7B3 7W0 3B0 7W1 3B1 7W2 3B2 7W3 …

    Bubble (p-1)(F+B-W) at m = p and (p-1)(F+B-2W) from m = 2p on while 2W ≤ F. With n = (v-1)p + 2(p-1-r) + 1
    forwards before rank r's first B ends, its peak is n·A + (m·v - n)·A_W.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop, m is no multiple of p, or a stage cannot divide its backward.
    """
    _check_interleaved(problem)
    return tuple(map(_with_w_in_cooldown, interleaved_1f1b(problem)))


def two_bp_interleaved_1f1b_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B-W) + ((v+1)p-2)c at m = p, for W ≤ F, W ≤ B and c ≤ W; exact for equal stages.

    (p-1)(F+B-2W) + ((v+1)p-2)c from m = 2p on, for 2W ≤ F, c ≤ W and c ≤ B.
    """
    _check_interleaved(problem)
    ticks = equal_ticks(problem, divided=True)
    if ticks is None or ticks.transfer > min(ticks.W, ticks.B):
        return None
    p = problem.num_ranks
    filled = 1 if problem.num_microbatches == p else 2
    if filled * ticks.W > ticks.F or (filled == 1 and ticks.W > ticks.B):
        return None
    transfers = problem.num_stages + p - 2
    return (p - 1) * (ticks.F + ticks.B - filled * ticks.W) + transfers * ticks.transfer


def two_bp_interleaved_1f1b_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """n·A + (m·v-n)·A_W with n = (v-1)p + 2(p-1-r) + 1, at most m·v·A, plus static bytes; equal stages."""
    turn = _check_interleaved(problem)
    activation, for_w = equal_activation_bytes(problem), equal_bytes_for_w(problem)
    if activation is None or for_w is None:
        return None
    passes = problem.num_stages // problem.num_ranks * problem.num_microbatches
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(turn):
        in_flight = min(forwards_ahead(problem, depth) + 1, passes)
        peaks[rank] += in_flight * activation + (passes - in_flight) * for_w
    return tuple(peaks)


def _check_1f1b(problem: Problem) -> tuple[int, ...]:
    check_divides("2bp-1f1b", problem)
    return chain_ranks("2bp-1f1b", problem)


def _check_interleaved(problem: Problem) -> tuple[int, ...]:
    check_divides(_ON_INTERLEAVED, problem)
    return check_groups(_ON_INTERLEAVED, problem)


def _without_w(order: tuple[Op, ...]) -> list[Op]:
    """The same order with B for every backward, and no W."""
    return [
        op if op.kind is OpKind.F else op._replace(kind=OpKind.B) for op in order if op.kind is not OpKind.W
    ]


def _with_w_in_cooldown(order: tuple[Op, ...]) -> tuple[Op, ...]:
    """Behind the last F the oldest W put off follows every B; the rest come last."""
    divided = _without_w(order)
    last_forward = max(n for n, op in enumerate(divided) if op.kind is OpKind.F)
    put_off: deque[Op] = deque()
    result: list[Op] = []
    for n, op in enumerate(divided):
        result.append(op)
        if op.kind is OpKind.B:
            put_off.append(op._replace(kind=OpKind.W))
            if n > last_forward:
                result.append(put_off.popleft())
    return (*result, *put_off)
