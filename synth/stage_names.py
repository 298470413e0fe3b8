"""What the stages of a flow are: which stage of the model, in which direction and slice."""

from __future__ import annotations

from synth.problem import Problem


def num_directions(problem: Problem) -> int:
    """How many pipelines there are: as many as sets of microbatches that stages carry, one in a chain."""
    return max(1, len(set(_carried(problem))))


def num_slices(problem: Problem) -> int:
    """Into how many sequence slices microbatches are cut, 1 in a chain."""
    return max((feed.slice + 1 for feed in problem.feeds), default=1)


def shape_words(problem: Problem) -> str:
    """The stages in words.

    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> shape_words(uniform_problem(2, 4, StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))))
    '2 stages'
    """
    words = f"{problem.num_stages} stages"
    if num_directions(problem) > 1:
        words += f" in {num_directions(problem)} directions"
    if num_slices(problem) > 1:
        words += f"{' and' if num_directions(problem) > 1 else ' in'} {num_slices(problem)} slices"
    return words


def stage_name(problem: Problem, stage: int) -> str:
    """What one stage of a flow is, such as ``stage 2 of direction 1, slice 0``."""
    feed = problem.feeds[stage]
    words = f"stage {feed.model_stage}"
    if num_directions(problem) > 1:
        known = list(dict.fromkeys(_carried(problem)))
        words += f" of direction {known.index(feed.microbatches)}"
    if num_slices(problem) > 1:
        words += f", slice {feed.slice}"
    return words


def how_stages_read(problem: Problem) -> str:
    """One line for a legend: what the number of a flow's stage means, by its last one; none for a chain."""
    if num_directions(problem) == num_slices(problem) == 1:
        return ""
    last = problem.num_stages - 1
    return f"stage {last} = {stage_name(problem, last)}"


def _carried(problem: Problem) -> list[tuple[int, ...]]:
    return [feed.microbatches for feed in problem.feeds]
