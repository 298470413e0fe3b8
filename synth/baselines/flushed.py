"""GPipe and 1F1B: synchronous schedules with an undivided backward and a flush at the end.

Symbols: p ranks, m microbatches, c ticks per transfer; F, BW ticks of one stage; A bytes that F allocates.
"""

from __future__ import annotations

from synth.baselines.shapes import (
    chain_ranks,
    equal_ticks,
    holds_from_forward_on,
    undivided_backward,
)
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem


def gpipe(problem: Problem) -> RankOrders:
    """GPipe: all forwards, then all backwards.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, BW=OpCost(ticks=2)))
    >>> print(render_grid(schedule_orders(problem, gpipe(problem))))
     rank 0  F0  F1  F2  F3  .   .   .   .   .   .   .   .   .   BW0---- BW1---- BW2---- BW3----
     rank 1  .   F0  F1  F2  F3  .   .   .   .   .   .   BW0---- BW1---- BW2---- BW3---- .   .
     rank 2  .   .   F0  F1  F2  F3  .   .   .   BW0---- BW1---- BW2---- BW3---- .   .   .   .
     rank 3  .   .   .   F0  F1  F2  F3  BW0---- BW1---- BW2---- BW3---- .   .   .   .   .   .

    Bubble (p-1)(F+BW) + 2(p-1)c and peak m·A on every rank, with one stage per rank.

    With several stages per rank, each rank runs its stages one after the other, every microbatch through
    one before the next: ascending forward, descending backward. Any placement will do: "all F by stage and
    microbatch, then all backwards by descending stage and microbatch" is one sequence in which every op comes
    after what it waits for, and each rank's order is a part of it, so nothing can deadlock.

    References
    ----------
    Huang et al., "GPipe", arXiv 1811.06965, figure 2.
    """
    microbatches = range(problem.num_microbatches)
    return tuple(
        (
            *(Op(OpKind.F, stage, i) for stage in held for i in microbatches),
            *(
                op
                for stage in held[::-1]
                for i in microbatches
                for op in undivided_backward(problem, stage, i)
            ),
        )
        for held in problem.stages_by_rank
    )


def gpipe_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F + BW) + 2(p-1)c; exact for equal stages, one per rank, any m.

    Where BW must be B then W, the gradient leaves after B, and B replaces BW.
    """
    ticks = equal_ticks(problem, divided=False)
    if ticks is None or problem.num_stages != problem.num_ranks:
        return None
    return (problem.num_ranks - 1) * (ticks.F + ticks.B + 2 * ticks.transfer)


def gpipe_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """m·A over each rank's stages, plus static bytes; any placement, if F allocates and backward frees A."""
    if not all(map(holds_from_forward_on, problem.stages)):
        return None
    return tuple(
        static + problem.num_microbatches * sum(problem.stages[stage].F.alloc_bytes for stage in held)
        for static, held in zip(problem.static_bytes_by_rank, problem.stages_by_rank, strict=True)
    )


def one_f_one_b(problem: Problem) -> RankOrders:
    """1F1B, also PipeDream-Flush and DAPPLE: after p-1-r forwards, rank r alternates forward and backward.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 4, StageCosts(F=one, BW=OpCost(ticks=2)))
    >>> print(render_grid(schedule_orders(problem, one_f_one_b(problem))))
     rank 0  F0  F1  F2  F3  .   .   .   .   .   .   BW0---- .   BW1---- .   BW2---- .   BW3----
     rank 1  .   F0  F1  F2  .   .   .   .   BW0---- F3  BW1---- .   BW2---- .   BW3---- .   .
     rank 2  .   .   F0  F1  .   .   BW0---- F2  BW1---- F3  BW2---- .   BW3---- .   .   .   .
     rank 3  .   .   .   F0  BW0---- F1  BW1---- F2  BW2---- F3  BW3---- .   .   .   .   .   .

    Bubble (p-1)(F+BW) without transfers, peak (p-r)·A on rank r.

    References
    ----------
    Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN Training", arXiv 2006.09503;
    Fan et al., "DAPPLE", arXiv 2007.01045.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages.
    """
    depth_ranks = chain_ranks("1f1b", problem)
    m = problem.num_microbatches
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for stage, rank in enumerate(depth_ranks):
        warmup = min(problem.num_ranks - 1 - stage, m)
        order = [Op(OpKind.F, stage, i) for i in range(warmup)]
        for i in range(m):
            if i + warmup < m:
                order.append(Op(OpKind.F, stage, i + warmup))
            order += undivided_backward(problem, stage, i)
        orders[rank] = tuple(order)
    return tuple(orders)


def one_f_one_b_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F + BW) + 2(p-1 + m-1 - ⌈(m-1)/p⌉)c; exact for equal stages and transfers, any m and any c.

    A microbatch's way down and up again paces the first rank: every p microbatches pay for 2(p-1) transfers.
    With m a multiple of p the second term is the (2(p-1)m/p + 2(p-2))c that the published figures obey
    ("Zero Bubble Pipeline Parallelism", arXiv 2401.10241, table 5).

    Where BW must be B then W, the gradient leaves after B: (p-1)(F + B + 2c), exact while 2c ≤ W.
    """
    chain_ranks("1f1b", problem)
    ticks = equal_ticks(problem, divided=False)
    if ticks is None or 0 < ticks.W < 2 * ticks.transfer:
        return None
    p, m = problem.num_ranks, problem.num_microbatches
    paced = 0 if ticks.W else m - 1 + (1 - m) // p
    return (p - 1) * (ticks.F + ticks.B) + 2 * (p - 1 + paced) * ticks.transfer


def one_f_one_b_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """min(p-r, m)·A on rank r, plus static bytes; for any costs, if F allocates and backward frees A."""
    depth_ranks = chain_ranks("1f1b", problem)
    if not all(map(holds_from_forward_on, problem.stages)):
        return None
    peaks = list(problem.static_bytes_by_rank)
    for stage, rank in enumerate(depth_ranks):
        in_flight = min(problem.num_ranks - stage, problem.num_microbatches)
        peaks[rank] += in_flight * problem.stages[stage].F.alloc_bytes
    return tuple(peaks)
