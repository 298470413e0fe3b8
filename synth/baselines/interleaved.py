"""Interleaved 1F1B: several stages per rank in a loop, microbatches in groups of p.

Symbols: p ranks, m microbatches, v stages per rank, c ticks per transfer; F, BW ticks of one stage (one
chunk); A bytes that the F of one stage allocates.
"""

from __future__ import annotations

from synth.baselines.shapes import (
    equal_activation_bytes,
    equal_ticks,
    loop_ranks,
    undivided_backward,
)
from synth.errors import BaselineUndefinedError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_NAME = "interleaved-1f1b"


def interleaved_1f1b(problem: Problem) -> RankOrders:
    """Interleaved 1F1B: 1F1B over chunks, each group of p microbatches through one chunk before the next.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, BW=OpCost(ticks=2)), chunks=2)
    >>> print(render_grid(schedule_orders(problem, interleaved_1f1b(problem)), last_slot=18))
     rank 0  0F0  0F1  0F2  0F3  4F0  4F1  4F2  4F3  .    .    .    .    .    .    4BW0----- .    4BW1- …
     rank 1  .    1F0  1F1  1F2  1F3  5F0  5F1  5F2  5F3  .    .    .    5BW0----- .    5BW1----- . …
     rank 2  .    .    2F0  2F1  2F2  2F3  6F0  6F1  6F2  .    6BW0----- 6F3  6BW1----- .    6BW2----- …
     rank 3  .    .    .    3F0  3F1  3F2  3F3  7F0  7BW0----- 7F1  7BW1----- 7F2  7BW2----- 7F3  7BW3- …

    Rank r runs (v-1)p + 2(p-1-r) forwards, then F and BW alternately. Bubble (p-1)(F+BW), a v-th of 1F1B's
    for the same model, and peak (pv+p-1)·A on the first rank, v stages being one rank's share. With v = 1 the
    rule still holds: 1F1B's bubble, forwards run ahead as far as in ZB-H2.

    References
    ----------
    Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
    arXiv 2104.04473, section 2.2.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop, or m is no multiple of p.
    """
    turn = check_groups(_NAME, problem)
    p, passes = problem.num_ranks, problem.num_stages // problem.num_ranks * problem.num_microbatches
    orders: list[tuple[Op, ...]] = [()] * p
    for depth, rank in enumerate(turn):
        warmup = min(forwards_ahead(problem, depth), passes)
        forwards = [Op(OpKind.F, *_nth_pass(problem, n, depth)) for n in range(passes)]
        order = forwards[:warmup]
        for n in range(passes):
            order += forwards[n + warmup : n + warmup + 1]
            stage, microbatch = _nth_pass(problem, n, depth)
            order += undivided_backward(problem, _mirrored(problem, stage, depth), microbatch)
        orders[rank] = tuple(order)
    return tuple(orders)


def interleaved_1f1b_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F + BW) + (2pv - 2)c; exact for equal stages, an undivided backward, and c ≤ F and c ≤ BW.

    The published figures ("Zero Bubble Pipeline Parallelism", arXiv 2401.10241, tables 5 and 8) have p·c
    less: their script charges the hop from the last rank back to the first only once per group.
    """
    check_groups(_NAME, problem)
    ticks = equal_ticks(problem, divided=False)
    if ticks is None or ticks.W or ticks.transfer > min(ticks.F, ticks.B):
        return None
    return (problem.num_ranks - 1) * (ticks.F + ticks.B) + 2 * (problem.num_stages - 1) * ticks.transfer


def interleaved_1f1b_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """((v-1)p + 2(p-1-r) + 1)·A on rank r, at most m·v·A, plus static bytes; equal stages, F allocates A."""
    turn = check_groups(_NAME, problem)
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    passes = problem.num_stages // problem.num_ranks * problem.num_microbatches
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(turn):
        peaks[rank] += min(forwards_ahead(problem, depth) + 1, passes) * activation
    return tuple(peaks)


def check_groups(name: str, problem: Problem) -> tuple[int, ...]:
    """The ranks along one turn of the loop, for schedules that run microbatches in groups of p.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop, or m is no multiple of p.
    """
    turn = loop_ranks(name, problem)
    p, m = problem.num_ranks, problem.num_microbatches
    if m % p:
        near = [n for n in (m - m % p, m - m % p + p) if n]
        raise BaselineUndefinedError(
            name,
            f"{m} microbatches on {p} ranks; it runs them in groups of {p}: use "
            f"{' or '.join(map(str, near))} microbatches",
        )
    return turn


def forwards_ahead(problem: Problem, depth: int) -> int:
    """Forwards before the first backward's own: the other chunks' first group, and two per hop."""
    return problem.num_stages - problem.num_ranks + 2 * (problem.num_ranks - 1 - depth)


def _nth_pass(problem: Problem, n: int, depth: int) -> tuple[int, int]:
    """The stage and microbatch of a rank's n-th forward."""
    group, inside = divmod(n, problem.num_stages)
    chunk, member = divmod(inside, problem.num_ranks)
    return chunk * problem.num_ranks + depth, group * problem.num_ranks + member


def _mirrored(problem: Problem, stage: int, depth: int) -> int:
    """The stage of the same rank that is as far from the last chunk as this one from the first."""
    return problem.num_stages - problem.num_ranks - stage + 2 * depth
