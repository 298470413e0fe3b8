"""How long one microbatch takes down the forward and up the backward chain."""

from __future__ import annotations

from itertools import accumulate

from synth.problem import Problem


def round_trip_ticks(problem: Problem, first: int, last: int) -> int:
    """The least time from the end of a stage's forward to the start of the backward of a later stage.

    Parameters
    ----------
    problem
        The problem.
    first, last
        The stage whose forward ends, and the stage at or behind it whose backward starts.
    """
    ticks = 0
    for stage in range(first + 1, problem.num_stages):
        ticks += problem.lag_ticks(stage - 1, stage) + problem.stages[stage].F.ticks
    return ticks + way_back_ticks(problem, problem.num_stages - 1, last)


def forward_heads(problem: Problem) -> list[int]:
    """For every stage, the earliest start of a forward."""
    heads = [0]
    for stage in range(1, problem.num_stages):
        heads.append(heads[-1] + problem.stages[stage - 1].F.ticks + problem.lag_ticks(stage - 1, stage))
    return heads


def backward_tails(problem: Problem) -> list[int]:
    """For every stage, the least time from the start of its backward to the end of the gradient's way up.

    The last backward of stage 0, and the W behind it, end the way.
    """
    tails: list[int] = []
    for stage, costs in enumerate(problem.stages):
        way_up = way_back_ticks(problem, stage, stage - 1) + tails[-1] if stage else 0
        tails.append(max(costs.least_backward_ticks, way_up))
    return tails


def way_back_ticks(problem: Problem, last: int, first: int) -> int:
    """The least time from the start of a stage's backward to the start of that of an earlier stage."""
    return sum(_step_up_ticks(problem, stage) for stage in range(first + 1, last + 1))


def climbs_ticks(problem: Problem) -> list[int]:
    """For every stage, the least time from the start of its backward to the start of that of stage 0."""
    return list(accumulate((_step_up_ticks(problem, s) for s in range(1, problem.num_stages)), initial=0))


def _step_up_ticks(problem: Problem, stage: int) -> int:
    """From the start of a stage's backward to the start of that of the stage before."""
    return gradient_ticks(problem, stage) + problem.lag_ticks(stage, stage - 1)


def gradient_ticks(problem: Problem, stage: int) -> int:
    """The least time until a stage's backward has its input gradient."""
    costs = problem.stages[stage]
    return min(cost.ticks for cost in (costs.B, costs.BW) if cost is not None)
