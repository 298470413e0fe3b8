"""PipeDream and PipeDream-2BW: 1F1B through the microbatches of several batches, no flush between them.

A problem for them has the microbatches of some batches together; batch i is the i-th part, in their order. In
time both are 1F1B on that problem: what they do between batches is not to wait. They differ in which version
of its weights a stage uses, and so in how many versions it holds.

Symbols: p ranks, m microbatches of a batch; F, BW ticks of one stage; A bytes that F allocates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from synth.baselines.flushed import one_f_one_b, one_f_one_b_bubble_ticks, one_f_one_b_peak_bytes
from synth.baselines.shapes import chain_ranks, check_chain
from synth.ops import RankOrders
from synth.placement import Placement
from synth.problem import Problem


def pipedream(problem: Problem) -> RankOrders:
    """PipeDream: a stage updates its weights after every microbatch's backward, and stashes what others use.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 8, StageCosts(F=one, BW=one))
    >>> print(render_grid(schedule_orders(problem, pipedream(problem))))
     rank 0  F0  F1  F2  F3  .   .   .   BW0 F4  BW1 F5  BW2 F6  BW3 F7  BW4 .   BW5 .   BW6 .   BW7
     rank 1  .   F0  F1  F2  .   .   BW0 F3  BW1 F4  BW2 F5  BW3 F6  BW4 F7  BW5 .   BW6 .   BW7 .
     rank 2  .   .   F0  F1  .   BW0 F2  BW1 F3  BW2 F4  BW3 F5  BW4 F6  BW5 F7  BW6 .   BW7 .   .
     rank 3  .   .   .   F0  BW0 F1  BW1 F2  BW2 F3  BW3 F4  BW4 F5  BW5 F6  BW6 F7  BW7 .   .   .

    Microbatch k uses on stage s, forward and backward, the version that k-(p-1-s) updates have made (at least
    the first one), so stage s holds p-s versions: those of the microbatches under way on it.

    Bubble (p-1)(F+BW) without transfers, once for all batches; peak (p-r)·A on rank r, and p-r versions.

    References
    ----------
    Harlap et al., "PipeDream", arXiv 1806.03377 (weight stashing).

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages.
    """
    chain_ranks("pipedream", problem)
    return one_f_one_b(problem)


def pipedream_bubble_ticks(problem: Problem) -> int | None:
    """1F1B's, paid once for all batches; exact where 1F1B's is."""
    chain_ranks("pipedream", problem)
    return one_f_one_b_bubble_ticks(problem)


def pipedream_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """1F1B's, with what the problem says of the versions of weights."""
    chain_ranks("pipedream", problem)
    return one_f_one_b_peak_bytes(problem)


def pipedream_problem(problem: Problem) -> Problem:
    """The chain in which stage s keeps p-s versions of its weights."""
    return _with_versions("pipedream", problem, range(problem.num_stages, 0, -1))


def pipedream_2bw(problem: Problem) -> RankOrders:
    """PipeDream-2BW: the same orders; a stage updates after a batch, and holds two versions of its weights.

    Two batches of three microbatches; batch 1 enters the pipeline while batch 0 leaves it:

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(2, 6, StageCosts(F=one, BW=OpCost(ticks=2)))
    >>> print(render_grid(schedule_orders(problem, pipedream_2bw(problem))))
     rank 0  F0  F1  .   .   BW0---- F2  BW1---- F3  BW2---- F4  BW3---- F5  BW4---- .   BW5----
     rank 1  .   F0  BW0---- F1  BW1---- F2  BW2---- F3  BW3---- F4  BW4---- F5  BW5---- .   .

    Microbatch k uses version max(⌊k/m⌋-1, 0), k from 0, on every stage, forward and backward: every gradient
    is one update late. With m ≥ p the batch before has left when a version is made, and two versions do.

    Bubble (p-1)(F+BW) without transfers, once for all batches; peak (p-r)·A on rank r, and two versions.

    References
    ----------
    Narayanan et al., "Memory-Efficient Pipeline-Parallel DNN Training", arXiv 2006.09503, section 3.1.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages.
    """
    chain_ranks("pipedream-2bw", problem)
    return one_f_one_b(problem)


def pipedream_2bw_bubble_ticks(problem: Problem) -> int | None:
    """1F1B's, paid once for all batches; exact where 1F1B's is."""
    chain_ranks("pipedream-2bw", problem)
    return one_f_one_b_bubble_ticks(problem)


def pipedream_2bw_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """1F1B's, with what the problem says of the versions of weights."""
    chain_ranks("pipedream-2bw", problem)
    return one_f_one_b_peak_bytes(problem)


def pipedream_2bw_problem(problem: Problem) -> Problem:
    """The chain in which every stage keeps two versions of its weights."""
    return _with_versions("pipedream-2bw", problem, [2] * problem.num_stages)


def _with_versions(name: str, problem: Problem, versions: Iterable[int]) -> Problem:
    check_chain(name, problem)
    chain_ranks(name, problem)
    held = zip(problem.stages, versions, strict=True)
    stages = tuple(replace(costs, weight_versions=count) for costs, count in held)
    if stages == problem.stages:
        return problem
    return replace(problem, stages=stages, placement=Placement.explicit(problem.stage_to_rank))
