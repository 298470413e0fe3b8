"""Two pipelines that run against each other over the same ranks, each with a replica of every stage."""

from __future__ import annotations

from dataclasses import dataclass

from synth.baselines.shapes import chain_ranks
from synth.errors import BaselineUndefinedError
from synth.feed import Feed
from synth.flows import Direction, lay_out, with_directions
from synth.problem import Problem

HELD_TWICE = "two directions, the weights of every stage held twice"
"""What becomes of a plain chain, in words."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What a rank runs of one direction: the stage it holds, and the microbatches in their order."""

    stage: int
    microbatches: tuple[int, ...]


def in_two_directions(name: str, problem: Problem) -> Problem:
    """A plain chain as two opposite pipelines, the first half of the microbatches in the first.

    Stage s of the first direction is where the chain has it, that of the second where the chain has stage
    p - 1 - s. A problem that is two such directions stays as it is, whichever half of the microbatches each
    carries.

    Raises
    ------
    BaselineUndefinedError
        When ranks or microbatches are odd in number, or the stages neither one chain nor two opposite ones.
    """
    _check_even(name, problem)
    if problem.feeds:
        _check_directions(name, problem)
        return problem
    ranks, half = chain_ranks(name, problem), problem.num_microbatches // 2
    directions = (
        Direction(ranks, tuple(range(half))),
        Direction(ranks[::-1], tuple(range(half, 2 * half))),
    )
    return with_directions(problem, directions)


def streams_by_depth(problem: Problem) -> tuple[tuple[Stream, Stream], ...]:
    """For the rank of every stage of the first direction: what it runs of the first, and of the second."""
    p = problem.num_ranks
    first, second = (tuple(problem.microbatches_of(stage)) for stage in (0, p))
    return tuple((Stream(depth, first), Stream(2 * p - 1 - depth, second)) for depth in range(p))


def _check_even(name: str, problem: Problem) -> None:
    for count, what in ((problem.num_ranks, "ranks"), (problem.num_microbatches, "microbatches")):
        if count % 2:
            raise BaselineUndefinedError(
                name,
                f"{count} {what}; half of its work runs against the other half: "
                f"use {f'{count - 1} or ' if count > 1 else ''}{count + 1} {what}",
            )


def _check_directions(name: str, problem: Problem) -> None:
    ranks, p, half = problem.stage_to_rank, problem.num_ranks, problem.num_microbatches // 2
    if not (
        problem.num_stages == 2 * p
        and len(set(ranks[:p])) == p
        and ranks[p:] == ranks[:p][::-1]
        and problem.feeds == _opposite_feeds(problem)
        and len(problem.microbatches_of(0)) == len(problem.microbatches_of(p)) == half
    ):
        raise BaselineUndefinedError(
            name,
            f"the {problem.num_stages} stages are no two opposite pipelines with half of the microbatches "
            "each: give those, or a plain chain of one stage per rank",
        )


def _opposite_feeds(problem: Problem) -> tuple[Feed, ...]:
    """The feeds of two directions with the microbatches that the first stage of either carries."""
    ranks, p = problem.stage_to_rank, problem.num_ranks
    first, second = (tuple(problem.microbatches_of(stage)) for stage in (0, p))
    if set(first) & set(second):
        return ()
    directions = (Direction(ranks[:p], first), Direction(ranks[p:], second))
    return lay_out([[costs] for costs in problem.stages[:p]], directions).feeds
