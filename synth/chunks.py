"""Cutting stages into chunks, and merging chunks back into one stage per rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd

from synth.errors import InputError
from synth.flows import as_chain
from synth.ops import OpKind
from synth.placement import Placement, PlacementKind, place
from synth.problem import OpCost, Problem, StageCosts


@dataclass(frozen=True, slots=True)
class CutProblem:
    """A problem after cutting, and what the cut changed besides.

    Parameters
    ----------
    problem
        One stage for each chunk.
    bytes_scale
        All bytes, limits too, are this many times what they were, so that they divide.
    rounding_ticks
        The largest difference between an op's ticks before the cut and the sum of its parts.
    """

    problem: Problem
    bytes_scale: int
    rounding_ticks: int


@dataclass(frozen=True, slots=True)
class CutsProblem:
    """A problem cut in several ways, in units in which every cut is exact and all of them compare.

    Parameters
    ----------
    problems
        The problem under every cut, the fewest chunks first.
    ticks_scale, bytes_scale
        All times and all bytes are this many times what they were; a tick is as much shorter.
    """

    problems: tuple[Problem, ...]
    ticks_scale: int
    bytes_scale: int


CHUNK_CHOICES = (1, 2, 4)
"""The counts of chunks per rank that are tried where the choice is left open."""


def cut_every_way(problem: Problem, kind: PlacementKind | None) -> CutsProblem:
    """Cut each stage of a one-stage-per-rank problem into 1, 2 and 4 equal chunks.

    Where ticks or bytes do not divide by the largest count, all of them are first multiplied by the least
    factor that makes them, so that values and limits mean the same under every cut and nothing is rounded.

    Parameters
    ----------
    problem
        One stage per rank.
    kind
        Where the chunks go, ``v`` with two chunks only; by default a loop, and one chunk stays where it is.

    Raises
    ------
    InputError
        When the problem has several stages per rank.
    """
    _check_one_stage_per_rank(problem, "auto")
    choices = (2,) if kind is PlacementKind.V else CHUNK_CHOICES
    ticks = [cost.ticks for costs in problem.stages for _, cost in costs.offered]
    ticks_scale = _least_scale(ticks, choices[-1])
    bytes_scale = _least_common_scale(problem, choices[-1])
    finer = _in_finer_units(problem, ticks_scale, bytes_scale)
    problems = tuple(
        finer
        if chunks == 1 and kind is None
        else cut_stages(finer, chunks, kind or PlacementKind.LOOP).problem
        for chunks in choices
    )
    return CutsProblem(problems, ticks_scale, bytes_scale)


def cut_stages(problem: Problem, chunks: int, kind: PlacementKind) -> CutProblem:
    """Cut each stage of a one-stage-per-rank problem into equal chunks.

    Every duration is divided and rounded to the nearest tick (halves to even). Bytes must divide; where
    they do not, all bytes of the problem are first multiplied by the least factor that makes them.

    Parameters
    ----------
    problem
        One stage per rank.
    chunks
        Parts per stage, at least 1.
    kind
        Where the chunks go: ``loop``, ``v`` (two chunks), ``wave`` or ``auto``.

    Raises
    ------
    InputError
        When the problem has several stages per rank, or the counts do not fit the placement.
    """
    _check_one_stage_per_rank(problem, str(chunks))
    if chunks < 1:
        raise InputError(f"--chunks is {chunks}: give an integer ≥ 1")
    scale = _least_common_scale(problem, chunks)
    stages = tuple(_cut(costs, chunks, scale, part) for costs in problem.stages for part in range(chunks))
    limits = problem.memory_limit_bytes
    cut = replace(
        problem,
        placement=place(kind, problem.num_ranks, len(stages)),
        stages=stages,
        memory_limit_bytes=None if limits is None else tuple(limit * scale for limit in limits),
        name=f"{problem.name} in {chunks} chunks" if problem.name and chunks > 1 else problem.name,
    )
    return CutProblem(cut, scale, _largest_rounding(problem, chunks))


def merge_into_ranks(problem: Problem) -> Problem:
    """The same model with one stage per rank: neighbouring stages merged, as evenly by count as can be.

    Costs and static bytes add up; a merged stage offers B and W, or BW, where all of its parts do, and the
    cheaper whole backward of each part where they differ. There is no memory limit. Of directions
    and slices it is the chain that they were laid out from (:func:`synth.flows.as_chain`).
    """
    problem = as_chain(problem)
    if problem.num_stages == problem.num_ranks:
        return replace(problem, memory_limit_bytes=None)
    share, extra = divmod(problem.num_stages, problem.num_ranks)
    sizes = [share + (rank < extra) for rank in range(problem.num_ranks)]
    firsts = [sum(sizes[:rank]) for rank in range(problem.num_ranks)]
    chain = tuple(
        merge_stages(problem.stages[first : first + size]) for first, size in zip(firsts, sizes, strict=True)
    )
    return replace(
        problem,
        stages=chain,
        placement=Placement.explicit(list(range(problem.num_ranks))),
        memory_limit_bytes=None,
    )


def _check_one_stage_per_rank(problem: Problem, chunks: str) -> None:
    if not problem.is_chain:
        raise InputError(f"--chunks {chunks} is given for directions or slices: leave it out")
    if problem.num_stages != problem.num_ranks:
        raise InputError(
            f"--chunks {chunks} is given with {problem.num_stages} stages on {problem.num_ranks} ranks: "
            "only a problem with one stage per rank can be cut; leave --chunks out"
        )


def _in_finer_units(problem: Problem, ticks_scale: int, bytes_scale: int) -> Problem:
    """The same problem, all times and all bytes so many times what they were."""

    def finer(_: OpKind, cost: OpCost) -> OpCost:
        return OpCost(
            ticks=cost.ticks * ticks_scale,
            alloc_bytes=cost.alloc_bytes * bytes_scale,
            free_bytes=cost.free_bytes * bytes_scale,
        )

    def finer_stage(costs: StageCosts) -> StageCosts:
        return replace(
            costs.map_costs(finer),
            static_bytes=costs.static_bytes * bytes_scale,
            weight_bytes=costs.weight_bytes * bytes_scale,
        )

    limits = problem.memory_limit_bytes
    return replace(
        problem,
        stages=tuple(map(finer_stage, problem.stages)),
        transfer_ticks=tuple(tuple(ticks * ticks_scale for ticks in row) for row in problem.transfer_ticks),
        memory_limit_bytes=None if limits is None else tuple(limit * bytes_scale for limit in limits),
        tick_seconds=problem.tick_seconds / ticks_scale,
    )


def _least_common_scale(problem: Problem, chunks: int) -> int:
    """The least factor that makes every byte count divisible by the chunks."""
    return _least_scale([value for costs in problem.stages for value in _all_bytes(costs)], chunks)


def _least_scale(values: list[int], chunks: int) -> int:
    """The least factor that makes every value divisible by the chunks."""
    return chunks // gcd(chunks, *values)


def _all_bytes(costs: StageCosts) -> list[int]:
    values = [costs.static_bytes, costs.weight_bytes]
    for _, cost in costs.offered:
        values += [cost.alloc_bytes, cost.free_bytes]
    return values


def _cut(costs: StageCosts, chunks: int, scale: int, part: int) -> StageCosts:
    def share(_: OpKind, cost: OpCost) -> OpCost:
        return OpCost(
            ticks=_share_of(cost.ticks, chunks),
            alloc_bytes=cost.alloc_bytes * scale // chunks,
            free_bytes=cost.free_bytes * scale // chunks,
        )

    per_part, odd = divmod(len(costs.layers), chunks)
    layers = () if odd else costs.layers[part * per_part : (part + 1) * per_part]
    return replace(
        costs.map_costs(share),
        static_bytes=costs.static_bytes * scale // chunks,
        weight_bytes=costs.weight_bytes * scale // chunks,
        layers=layers,
    )


def _share_of(ticks: int, chunks: int) -> int:
    return max(1, round(Fraction(ticks, chunks)))


def _largest_rounding(problem: Problem, chunks: int) -> int:
    return max(
        abs(cost.ticks - chunks * _share_of(cost.ticks, chunks))
        for costs in problem.stages
        for _, cost in costs.offered
    )


def merge_stages(parts: Sequence[StageCosts]) -> StageCosts:
    """Neighbouring stages as one: see :func:`merge_into_ranks`.

    It sums its gradients over replicas where all its parts do.
    """
    divides = all(part.can_divide for part in parts)
    may_not = not divides or all(not part.must_divide for part in parts)
    versions = {part.weight_versions for part in parts}
    sums = [part.R for part in parts if part.R is not None]
    # Where the parts hold different numbers of versions, all but the first count as static.
    alike = len(versions) == 1
    return StageCosts(
        F=_sum([part.F for part in parts]),
        B=_sum([part.cost(OpKind.B) for part in parts]) if divides else None,
        W=_sum([part.cost(OpKind.W) for part in parts]) if divides else None,
        BW=_sum([_whole_backward(part) for part in parts]) if may_not else None,
        R=_sum(sums) if len(sums) == len(parts) else None,
        static_bytes=sum(part.static_bytes if alike else part.held_bytes for part in parts),
        weight_bytes=sum(part.weight_bytes for part in parts),
        weight_versions=versions.pop() if alike else 1,
        layers=tuple(layer for part in parts for layer in part.layers),
    )


def _whole_backward(costs: StageCosts) -> OpCost:
    if costs.BW is not None:
        return costs.BW
    return _sum([costs.cost(OpKind.B), costs.cost(OpKind.W)])


def _sum(costs: list[OpCost]) -> OpCost:
    return OpCost(
        ticks=sum(cost.ticks for cost in costs),
        alloc_bytes=sum(cost.alloc_bytes for cost in costs),
        free_bytes=sum(cost.free_bytes for cost in costs),
    )
