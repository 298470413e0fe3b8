"""Looped breadth-first pipelining: several stages per rank in a loop, every microbatch through one at a time.

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
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_NAME = "looped-bfs"


def looped_bfs(problem: Problem) -> RankOrders:
    """Looped breadth-first: all forwards of a chunk before the next chunk, and all backwards in reverse.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, BW=OpCost(ticks=2)), chunks=2)
    >>> print(render_grid(schedule_orders(problem, looped_bfs(problem)), last_slot=18))
     rank 0  0F0  0F1  0F2  0F3  4F0  4F1  4F2  4F3  .    .    .    .    .    .    .    .    .    4BW3- …
     rank 1  .    1F0  1F1  1F2  1F3  5F0  5F1  5F2  5F3  .    .    .    .    .    .    5BW3----- 5BW2- …
     rank 2  .    .    2F0  2F1  2F2  2F3  6F0  6F1  6F2  6F3  .    .    .    6BW3----- 6BW2----- 6BW1- …
     rank 3  .    .    .    3F0  3F1  3F2  3F3  7F0  7F1  7F2  7F3  7BW3----- 7BW2----- 7BW1----- 7BW0- …

    Bubble (p-1)(F+BW), a v-th of GPipe's for the same model, and peak m·v·A on every rank: what it gains is
    that weights and gradients of a chunk are needed in one stretch of time only. The microbatches run
    backwards in reverse, as PyTorch's ``ScheduleLoopedBFS`` has them.

    References
    ----------
    Lamy-Poirier, "Breadth-First Pipeline Parallelism", arXiv 2211.05953, MLSys 2023.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no loop.
    """
    loop_ranks(_NAME, problem)
    microbatches = range(problem.num_microbatches)
    return tuple(
        (
            *(Op(OpKind.F, stage, i) for stage in held for i in microbatches),
            *(
                op
                for stage in reversed(held)
                for i in reversed(microbatches)
                for op in undivided_backward(problem, stage, i)
            ),
        )
        for held in problem.stages_by_rank
    )


def looped_bfs_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F + BW + 2c), and every turn of the loop waits max(0, pc - (m-p)X) more, X being F and BW.

    Exact for equal stages, an undivided backward, and c ≤ F and c ≤ BW.
    """
    loop_ranks(_NAME, problem)
    ticks = equal_ticks(problem, divided=False)
    if ticks is None or ticks.W or ticks.transfer > min(ticks.F, ticks.B):
        return None
    p, turns = problem.num_ranks, problem.num_stages // problem.num_ranks - 1
    ahead = problem.num_microbatches - p
    waits = sum(max(0, p * ticks.transfer - ahead * each) for each in (ticks.F, ticks.B))
    return (p - 1) * (ticks.F + ticks.B + 2 * ticks.transfer) + turns * waits * (p > 1)


def looped_bfs_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """m·v·A on every rank, plus static bytes; equal stages, F allocates A."""
    loop_ranks(_NAME, problem)
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    held = problem.num_microbatches * problem.num_stages // problem.num_ranks * activation
    return tuple(static + held for static in problem.static_bytes_by_rank)
