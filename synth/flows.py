"""Directions and sequence slices as stages: what grows a plain chain of stages into a flow.

With S model stages and k slices, stage s of the model, of direction d and slice j, is stage (d·S + s)·k + j.
F of a slice waits for the slice before it (it attends to its keys and values) and for the same slice of the
stage before; backwards go the other way. Every direction holds its own replica of the weights; the slices of
one stage share them, so only the first of them has static bytes and a gradient to sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from synth.errors import InvalidProblemError
from synth.feed import Feed
from synth.ops import OpKind
from synth.placement import Placement
from synth.problem import OpCost, Problem, StageCosts


@dataclass(frozen=True, slots=True)
class Direction:
    """One of several pipelines through the same model.

    Parameters
    ----------
    stage_to_rank
        The rank of every model stage.
    microbatches
        Which it carries; no other direction does.
    """

    stage_to_rank: tuple[int, ...]
    microbatches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """The stages of a flow: what they cost, where they are, and what feeds them."""

    stages: tuple[StageCosts, ...]
    stage_to_rank: tuple[int, ...]
    feeds: tuple[Feed, ...]


def lay_out(sliced_stages: Sequence[Sequence[StageCosts]], directions: Sequence[Direction]) -> Flow:
    """The stages of all directions and slices.

    Parameters
    ----------
    sliced_stages
        Costs by [model stage][slice], every stage with as many slices.
    directions
        At least one.

    Raises
    ------
    InvalidProblemError
        When two directions share a microbatch.
    """
    _check_apart(directions)
    num_slices = len(sliced_stages[0])
    stages: list[StageCosts] = []
    ranks: list[int] = []
    feeds: list[Feed] = []
    for direction in directions:
        for model_stage, slices in enumerate(sliced_stages):
            for number, costs in enumerate(slices):
                here = len(stages)
                before = [here - num_slices] if model_stage else []
                before += [here - 1] if number else []
                stages.append(costs if number == 0 else _without_weights(costs))
                ranks.append(direction.stage_to_rank[model_stage])
                feeds.append(
                    Feed(
                        inputs=tuple(sorted(before)),
                        microbatches=tuple(sorted(direction.microbatches)),
                        model_stage=model_stage,
                        slice=number,
                    )
                )
    return Flow(tuple(stages), tuple(ranks), tuple(feeds))


def computing_stages(problem: Problem) -> tuple[int, ...]:
    """The stages that compute, and do not just keep what another stage of the same model stage hands over."""
    if not problem.feeds:
        return tuple(range(problem.num_stages))
    runs = [(feed.model_stage, feed.slice) for feed in problem.feeds]
    return tuple(
        stage
        for stage, feed in enumerate(problem.feeds)
        if all(runs[source] != runs[stage] for source in feed.inputs)
    )


def _check_apart(directions: Sequence[Direction]) -> None:
    owner: dict[int, int] = {}
    for number, direction in enumerate(directions):
        for microbatch in direction.microbatches:
            first = owner.setdefault(microbatch, number)
            if first != number:
                raise InvalidProblemError(
                    f"directions[{number}].microbatches",
                    f"microbatch {microbatch}, which direction {first} carries too",
                    "give every microbatch to one direction",
                )


def _without_weights(costs: StageCosts) -> StageCosts:
    return replace(costs, static_bytes=0, weight_bytes=0, weight_versions=1, R=None)


def with_directions(problem: Problem, directions: Sequence[Direction]) -> Problem:
    """A plain chain as several pipelines, each with a replica of every stage.

    Parameters
    ----------
    problem
        A plain chain; its placement is not used.
    directions
        They carry all its microbatches between them.
    """
    return _replaced(problem, lay_out([[costs] for costs in problem.stages], directions))


def with_slices(problem: Problem, sliced_stages: Sequence[Sequence[StageCosts]]) -> Problem:
    """A plain chain whose microbatches are cut into sequence slices.

    Parameters
    ----------
    problem
        A plain chain; its stage costs are not used.
    sliced_stages
        Costs by [model stage][slice] instead.
    """
    everything = Direction(problem.stage_to_rank, tuple(range(problem.num_microbatches)))
    return _replaced(problem, lay_out(sliced_stages, [everything]))


def _replaced(problem: Problem, flow: Flow) -> Problem:
    placement = Placement.explicit(flow.stage_to_rank)
    return replace(problem, placement=placement, stages=flow.stages, feeds=flow.feeds)


def as_chain(problem: Problem) -> Problem:
    """The plain chain of the same model: slices put together, on the ranks of the first direction.

    Returns
    -------
    The chain, with all microbatches and the same limits; the problem itself where it is a plain chain.

    Raises
    ------
    InvalidProblemError
        When the stages are no directions and slices of one chain.
    """
    if problem.is_chain:
        return problem
    if not problem.feeds:
        return replace(problem, stages=tuple(replace(costs, R=None) for costs in problem.stages))
    slices = _slices_of_first_direction(problem)
    if laid_out_of(problem) is None:
        raise InvalidProblemError(
            "memory_limit_bytes",
            "a multiple of 1F1B's, and the stages are no directions and slices of one chain",
            "give bytes",
        )
    return replace(
        problem,
        placement=Placement.explicit(tuple(problem.stage_to_rank[held[0]] for held in slices)),
        stages=tuple(_together([problem.stages[stage] for stage in held]) for held in slices),
        feeds=(),
    )


def laid_out_of(problem: Problem) -> tuple[int, int] | None:
    """How many directions and how many slices of one chain the stages are.

    Returns
    -------
    ``(1, 1)`` for a chain; None where the stages are no such directions and slices, as those of BPipe.
    """
    if not problem.feeds:
        return 1, 1
    slices = _slices_of_first_direction(problem)
    num_slices = len(slices[0])
    per_direction = len(slices) * num_slices
    if any(len(held) != num_slices for held in slices) or problem.num_stages % per_direction:
        return None
    directions = []
    for begin in range(0, problem.num_stages, per_direction):
        ranks = problem.stage_to_rank[begin : begin + per_direction : num_slices]
        directions.append(Direction(ranks, problem.feeds[begin].microbatches))
    placed = [[problem.stages[stage] for stage in held] for held in slices]
    try:
        flow = lay_out(placed, directions)
    except InvalidProblemError:  # what would be directions share a microbatch
        return None
    as_laid_out = flow.feeds == problem.feeds and flow.stage_to_rank == problem.stage_to_rank
    return (len(directions), num_slices) if as_laid_out else None


def _slices_of_first_direction(problem: Problem) -> list[tuple[int, ...]]:
    """By model stage, the stages that carry what the first stage carries."""
    first = problem.feeds[0].microbatches
    numbered = [stage for stage, feed in enumerate(problem.feeds) if feed.microbatches == first]
    return [tuple(held) for _, held in groupby(numbered, key=lambda stage: problem.feeds[stage].model_stage)]


def _together(slices: Sequence[StageCosts]) -> StageCosts:
    """What all slices of a stage take one after the other."""

    def total(kind: OpKind) -> OpCost | None:
        costs = [dict(part.offered).get(kind) for part in slices]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(slices):
            return None
        return OpCost(
            ticks=sum(cost.ticks for cost in known),
            alloc_bytes=sum(cost.alloc_bytes for cost in known),
            free_bytes=sum(cost.free_bytes for cost in known),
        )

    forward = total(OpKind.F)
    assert forward is not None, "every stage has a forward"
    return replace(slices[0], F=forward, B=total(OpKind.B), W=total(OpKind.W), BW=total(OpKind.BW), R=None)
