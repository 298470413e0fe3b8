"""What the stages of a flow are: which stage of the model, in which direction and slice."""

from __future__ import annotations

from synth.flows import laid_out_of
from synth.problem import Problem

_MOST_NAMED = 4
"""So many microbatches, at most, a name lists."""


def shape_words(problem: Problem) -> str:
    """The stages in words.

    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> shape_words(uniform_problem(2, 4, StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))))
    '2 stages'
    """
    words = f"{problem.num_stages} stages"
    laid_out = laid_out_of(problem)
    if laid_out is None:
        return f"{words} for {len({feed.model_stage for feed in problem.feeds})} of the model"
    names = zip(laid_out, ("directions", "slices"), strict=True)
    several = " and ".join(f"{count} {name}" for count, name in names if count > 1)
    return f"{words} in {several}" if several else words


def names_of_stages(problem: Problem) -> list[str]:
    """What every stage of a flow is, such as ``stage 2 of direction 1, slice 0``; none for a chain.

    Where the stages are no directions and slices, by the microbatches that they carry instead.
    """
    laid_out = laid_out_of(problem)
    return [_stage_name(problem, stage, laid_out) for stage in range(len(problem.feeds))]


def how_stages_read(problem: Problem) -> str:
    """One line for a legend: what the number of a flow's stage means, by its last one; none for a chain."""
    laid_out = laid_out_of(problem)
    if laid_out == (1, 1):
        return ""
    last = problem.num_stages - 1
    return f"stage {last} = {_stage_name(problem, last, laid_out)}"


def _stage_name(problem: Problem, stage: int, laid_out: tuple[int, int] | None) -> str:
    feed = problem.feeds[stage]
    words = f"stage {feed.model_stage}"
    if laid_out is None:
        return f"{words} of the model, {_slice_words(problem, stage)}{_carried_words(feed.microbatches)}"
    directions, slices = laid_out
    if directions > 1:
        words += f" of direction {stage // (problem.num_stages // directions)}"
    if slices > 1:
        words += f", slice {feed.slice}"
    return words


def _slice_words(problem: Problem, stage: int) -> str:
    is_sliced = any(feed.slice for feed in problem.feeds)
    return f"slice {problem.feeds[stage].slice}, " if is_sliced else ""


def _carried_words(microbatches: tuple[int, ...]) -> str:
    shown = [str(i) for i in microbatches[:_MOST_NAMED]] + ["…"] * (len(microbatches) > _MOST_NAMED)
    return f"microbatch{'es' if len(microbatches) > 1 else ''} {', '.join(shown)}"
