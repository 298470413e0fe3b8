"""Free placements: maps of any stages to any ranks that balance work, memory and transfers, by CP-SAT.

A schedule repeats no faster than its busiest rank works, so the busiest rank's work comes first. What a rank
must hold comes next: a stage keeps a microbatch from its forward until its backward has come back from the
last stage, and a building block that repeats every T holds as many microbatches of it as that lifespan has
T (modulo scheduling, DESIGN's building blocks). Then come the transfers between ranks. Each order of these
wishes, with and without a little more work on the busiest rank, gives one map.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, product

from ortools.sat.python import cp_model

from synth.cpsat import SolveParams, solve
from synth.errors import InfeasibleError
from synth.memory import check_feasible
from synth.placement import Placement, PlacementKind, place
from synth.problem import Problem

LARGEST_MODEL = 256
"""Problems with more stages times ranks get no free maps: the named ones serve them better."""

SHARES = 1_000_000
"""Work, lifespans and transfers go into the model as whole shares of their sum."""

EXTRA_WORK = (0.0, 0.05)
"""How much more than the least a busiest rank may work, for the sake of memory and transfers."""

WORK_LIMIT = 0.3
"""Deterministic work per wish; maps of eight stages take a hundredth of it."""


@dataclass(frozen=True, slots=True)
class _MapModel:
    """The model, its choice of rank per stage, and the variables to keep small, by wish."""

    model: cp_model.CpModel
    on_rank: list[list[cp_model.IntVar]]
    wishes: dict[str, cp_model.IntVar]


def open_placements(problem: Problem, time_limit_s: float = 1.0) -> tuple[Problem, ...]:
    """The problem under every placement to try: itself, or for ``auto`` named ones and free maps that fit.

    Parameters
    ----------
    problem
        The problem.
    time_limit_s
        Seconds for finding free maps; with less than a few hundredths there may be none.
    """
    if problem.placement.kind is not PlacementKind.AUTO:
        return (problem,)
    named = {placed.stage_to_rank: placed for placed in problem.placements}
    for stage_to_rank in free_maps(problem, time_limit_s):
        placed = problem.with_placement(Placement.explicit(stage_to_rank))
        # What limit would do is said of named placements: those are there again under any other limit.
        with suppress(InfeasibleError):
            check_feasible(placed)
            named.setdefault(stage_to_rank, placed)
    return tuple(named.values())


def placement_name(problem: Problem) -> str:
    """A placement in a word: its kind, or the map itself."""
    placement = problem.placement
    if placement.kind is not PlacementKind.MAP:
        return placement.kind.value
    return "-".join(map(str, placement.stage_to_rank))


def free_maps(problem: Problem, time_limit_s: float = 1.0) -> list[tuple[int, ...]]:
    """Promising maps from stages to ranks, each rank with a stage, the best balanced first.

    None for a single rank and for large problems (:data:`LARGEST_MODEL`).
    """
    found: list[tuple[int, ...]] = []
    if problem.num_ranks == 1 or problem.num_ranks * problem.num_stages > LARGEST_MODEL:
        return found
    deadline = time.monotonic() + time_limit_s
    for extra, wishes in product(EXTRA_WORK, (("memory", "transfers"), ("transfers", "memory"))):
        stage_to_rank = _best_map(problem, extra, wishes, deadline)
        if stage_to_rank is not None and stage_to_rank not in found:
            found.append(stage_to_rank)
    return found


def _best_map(
    problem: Problem, extra: float, wishes: Sequence[str], deadline: float
) -> tuple[int, ...] | None:
    """The map with the least work, up to a little more, and then the least of each wish in turn."""
    built = _build_model(problem)
    stage_to_rank = None
    for wish in ("work", *wishes):
        built.model.minimize(built.wishes[wish])
        left = deadline - time.monotonic()
        if left <= 0:
            break
        solved = solve(built.model, SolveParams(time_limit_s=left, work_limit=WORK_LIMIT, workers=1, seed=0))
        if not solved.has_solution:
            break
        least = solved.solver.value(built.wishes[wish])
        built.model.add(built.wishes[wish] <= int(least * (1 + extra) if wish == "work" else least))
        stage_to_rank = tuple(
            next(rank for rank, chosen in enumerate(row) if solved.solver.value(chosen))
            for row in built.on_rank
        )
    return stage_to_rank


def _build_model(problem: Problem) -> _MapModel:
    """One choice of rank per stage, a stage for every rank, and what the busiest or fullest rank has."""
    model, ranks = cp_model.CpModel(), range(problem.num_ranks)
    on_rank = [[model.new_bool_var("") for _ in ranks] for _ in problem.stages]
    for row in on_rank:
        model.add_exactly_one(row)
    if problem.num_stages % problem.num_ranks == 0:
        _hint(model, on_rank, place(PlacementKind.WAVE, problem.num_ranks, problem.num_stages))
    for rank in ranks:
        model.add_bool_or([row[rank] for row in on_rank])
    _memory_limit(model, problem, on_rank)
    if _ranks_are_alike(problem):
        _number_in_order(model, on_rank)
    ticks = [costs.F.ticks + costs.least_backward_ticks for costs in problem.stages]
    work = _largest_sum(model, on_rank, _shares(ticks))
    memory = _largest_sum(model, on_rank, _shares(_held_ticks(problem)))
    transfers = _transfers(model, problem, on_rank)
    return _MapModel(model, on_rank, {"work": work, "memory": memory, "transfers": transfers})


def _hint(model: cp_model.CpModel, on_rank: list[list[cp_model.IntVar]], placement: Placement) -> None:
    """Begin with a named placement: where there is no time to beat it, it is found again."""
    for row, hinted in zip(on_rank, placement.stage_to_rank, strict=True):
        for rank, chosen in enumerate(row):
            model.add_hint(chosen, rank == hinted)


def _memory_limit(model: cp_model.CpModel, problem: Problem, on_rank: list[list[cp_model.IntVar]]) -> None:
    """Every rank can hold its stages and one microbatch of each, in shares rounded so as to forbid no map."""
    if problem.memory_limit_bytes is None:
        return
    kept = [max(0, costs.static_bytes + costs.F.alloc_bytes - costs.F.free_bytes) for costs in problem.stages]
    most = max(1, sum(kept))
    for rank, limit in enumerate(problem.memory_limit_bytes):
        shares = [held * SHARES // most for held in kept]
        model.add(_weighted(on_rank, rank, shares) <= min(limit, most) * SHARES // most)


def _ranks_are_alike(problem: Problem) -> bool:
    """Whether exchanging two ranks changes nothing but their numbers."""
    between = {ticks for a, row in enumerate(problem.transfer_ticks) for b, ticks in enumerate(row) if a != b}
    return len(between) <= 1 and len(set(problem.memory_limit_bytes or ())) <= 1


def _number_in_order(model: cp_model.CpModel, on_rank: list[list[cp_model.IntVar]]) -> None:
    """Ranks that are alike are numbered as they first appear along the stages."""
    for stage, row in enumerate(on_rank):
        for rank in range(1, len(row)):
            earlier = [before[rank - 1] for before in on_rank[:stage]]
            model.add(row[rank] <= sum(earlier))


def _held_ticks(problem: Problem) -> list[int]:
    """Bytes times ticks that one microbatch takes of every stage: from its forward until its backward."""
    held, lifespan = [], 0
    for costs in reversed(problem.stages):
        lifespan += costs.F.ticks + costs.least_backward_ticks
        held.append(costs.F.alloc_bytes * lifespan)
    return held[::-1]


def _transfers(
    model: cp_model.CpModel, problem: Problem, on_rank: list[list[cp_model.IntVar]]
) -> cp_model.IntVar:
    """The time that one microbatch spends between ranks, there and back, in shares."""
    ranks = range(problem.num_ranks)
    there_and_back = [
        [problem.transfer_ticks[a][b] + problem.transfer_ticks[b][a] if a != b else 0 for b in ranks]
        for a in ranks
    ]
    most = max(1, max(map(max, there_and_back)) * problem.num_stages)
    spent = []
    for (here, after), a, b in product(pairwise(on_rank), ranks, ranks):
        if there_and_back[a][b]:
            both = model.new_bool_var("")
            model.add_bool_or([here[a].negated(), after[b].negated(), both])
            spent.append(both * (there_and_back[a][b] * SHARES // most))
    total = model.new_int_var(0, SHARES, "transfers")
    model.add(sum(spent) <= total)
    return total


def _largest_sum(
    model: cp_model.CpModel, on_rank: list[list[cp_model.IntVar]], shares: Sequence[int]
) -> cp_model.IntVar:
    """At least the sum of the shares on each rank."""
    largest = model.new_int_var(0, SHARES, "")
    for rank in range(len(on_rank[0])):
        model.add(_weighted(on_rank, rank, shares) <= largest)
    return largest


def _weighted(on_rank: list[list[cp_model.IntVar]], rank: int, shares: Sequence[int]) -> cp_model.LinearExprT:
    return sum(row[rank] * share for row, share in zip(on_rank, shares, strict=True))


def _shares(values: Sequence[int]) -> list[int]:
    """The values as whole shares of their sum."""
    return [value * SHARES // max(1, sum(values)) for value in values]
