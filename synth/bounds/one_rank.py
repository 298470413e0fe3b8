"""The one-rank relaxation: keep one rank's ops and let every other rank be a pure delay.

What the others do only makes a microbatch come later, so the least that one rank needs, with its memory limit
and with every round trip through the others as short as it can be, bounds the whole problem. Microbatches are
identical and keep their order within each kind of op; so before the forward of microbatch i enough of the
first backwards and of the first weight ops must have ended, and each pair of counts that frees enough is two
precedences.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from ortools.sat.python import cp_model

from synth.bounds.bound import Bound
from synth.bounds.chains import backward_tails, forward_heads, gradient_ticks, round_trip_ticks
from synth.cpsat import SolveParams, solve
from synth.problem import Objective, Problem, StageCosts

MOST_MICROBATCHES = 256
"""The model is not built for more microbatches: it would not be solved in minutes."""

LARGEST_EXACT = 2**52
"""Longer horizons are left out: CP-SAT states its bound as a float, exact only up to here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRank:
    """One rank with one stage, and what the others cost it.

    Parameters
    ----------
    num_microbatches
        Count.
    forward_ticks, backward_ticks, weight_ticks
        Durations; no weight op where ``weight_ticks`` is 0.
    head_ticks, delay_ticks, tail_ticks
        Before the first forward, from a forward's end to its backward's start, and after the last backward.
    room_bytes
        What the rank may hold, None for no limit.
    alloc_bytes, held_bytes
        What a forward takes while it runs, and what it leaves.
    backward_frees_bytes, weight_frees_bytes
        What the backward and the weight op free of that, at the most.
    """

    num_microbatches: int
    forward_ticks: int
    backward_ticks: int
    weight_ticks: int
    head_ticks: int
    delay_ticks: int
    tail_ticks: int
    room_bytes: int | None
    alloc_bytes: int
    held_bytes: int
    backward_frees_bytes: int
    weight_frees_bytes: int

    @property
    def work_ticks(self) -> int:
        """All ops of the rank."""
        return self.num_microbatches * (self.forward_ticks + self.backward_ticks + self.weight_ticks)

    @property
    def floor_ticks(self) -> int:
        """The order of promise: work, what comes before and the round trip."""
        return self.head_ticks + self.work_ticks + self.delay_ticks

    @property
    def horizon_ticks(self) -> int:
        """Enough for one microbatch after another."""
        return self.head_ticks + self.work_ticks + self.num_microbatches * self.delay_ticks + self.tail_ticks

    def releases_before(self, microbatch: int) -> list[tuple[int, int]]:
        """The least (backwards, weight ops) that must have ended before a forward fits, each pair enough."""
        if self.room_bytes is None:
            return []
        need = microbatch * self.held_bytes + self.alloc_bytes - self.room_bytes
        pairs = []
        for backwards in range(microbatch + 1):
            missing = max(0, need - backwards * self.backward_frees_bytes)
            weights = -(-missing // self.weight_frees_bytes) if self.weight_frees_bytes else missing
            if not missing:
                pairs.append((backwards, 0))
                break
            if self.weight_frees_bytes and weights <= backwards:
                pairs.append((backwards, weights))
        return pairs


def one_rank_bounds(problem: Problem, params: SolveParams) -> Iterator[Bound]:
    """The bound of every rank that holds one stage, in the order of promise, until time is up.

    Every rank gets half of the time that is left. Ranks with several stages are left out, and those where an
    undivided backward may be better than a divided one.

    Parameters
    ----------
    problem
        The problem; its objective decides whether the wait for the first microbatch and the way of the last
        gradient count.
    params
        Limits for all ranks together.
    """
    if problem.num_microbatches > MOST_MICROBATCHES:
        return
    deadline = time.monotonic() + params.time_limit_s
    ranks = [rank for rank, held in enumerate(problem.stages_by_rank) if len(held) == 1]
    ranks = [rank for rank in ranks if _divides_best(problem.stages[problem.stages_by_rank[rank][0]])]
    relaxed = {rank: relax(problem, rank) for rank in ranks}
    ranks = [rank for rank in ranks if relaxed[rank].horizon_ticks < LARGEST_EXACT]
    for rank in sorted(ranks, key=lambda rank: -relaxed[rank].floor_ticks):
        left = deadline - time.monotonic()
        if left > 0:
            yield one_rank_bound(problem, rank, replace(params, time_limit_s=left / 2))


def one_rank_bound(problem: Problem, rank: int, params: SolveParams) -> Bound:
    """The bound of one rank: its optimum where CP-SAT proves it in time, else what it has proved."""
    relaxation = relax(problem, rank)
    solved = solve(build_one_rank_model(relaxation), params)
    ticks = relaxation.work_ticks
    if solved.has_solution or not solved.is_proved:
        ticks = max(ticks, ceil(solved.lower_bound - 1e-6))
    takes = "takes" if solved.is_proved else "takes at least"
    return Bound("one rank", ticks, f"rank {rank} {takes} {ticks} ticks even if every other is a pure delay")


def relax(problem: Problem, rank: int) -> OneRank:
    """Keep one rank's ops; the rank holds one stage whose backward is divided wherever it can be.

    What a backward allocates beyond what it frees is left out, which only makes more fit.
    """
    (stage,) = problem.stages_by_rank[rank]
    costs = problem.stages[stage]
    backward, weight = (costs.B, costs.W) if costs.B and costs.W else (costs.BW, None)
    assert backward is not None
    makespan = problem.objective is Objective.MAKESPAN
    released = backward.free_bytes - backward.alloc_bytes
    released_by_both = released + (weight.free_bytes - weight.alloc_bytes if weight else 0)
    limits = problem.memory_limit_bytes
    tail = backward_tails(problem)[stage] - gradient_ticks(problem, stage)
    return OneRank(
        num_microbatches=problem.num_microbatches,
        forward_ticks=costs.F.ticks,
        backward_ticks=backward.ticks,
        weight_ticks=weight.ticks if weight else 0,
        head_ticks=forward_heads(problem)[stage] if makespan else 0,
        delay_ticks=round_trip_ticks(problem, stage, stage),
        tail_ticks=tail if makespan else 0,
        room_bytes=None if limits is None else limits[rank] - problem.static_bytes_by_rank[rank],
        alloc_bytes=costs.F.alloc_bytes,
        held_bytes=costs.F.alloc_bytes - costs.F.free_bytes,
        backward_frees_bytes=max(0, released),
        weight_frees_bytes=max(0, released_by_both - max(0, released)),
    )


def build_one_rank_model(rank: OneRank) -> cp_model.CpModel:
    """The model of one rank: three streams in microbatch order on one machine; see the module's docstring."""
    model = cp_model.CpModel()
    forward = _stream(model, rank, rank.forward_ticks, "F")
    backward = _stream(model, rank, rank.backward_ticks, "B")
    weight = _stream(model, rank, rank.weight_ticks, "W") if rank.weight_ticks else []
    model.add_no_overlap(
        model.new_fixed_size_interval_var(start, ticks, "")
        for stream, ticks in (
            (forward, rank.forward_ticks),
            (backward, rank.backward_ticks),
            (weight, rank.weight_ticks),
        )
        for start in stream
    )
    model.add(forward[0] == rank.head_ticks)
    for i, start in enumerate(backward):
        model.add(start >= forward[i] + rank.forward_ticks + rank.delay_ticks)
        if weight:
            model.add(weight[i] >= start + rank.backward_ticks)
        _memory_limit(model, rank, i, forward, backward, weight)
    end = model.new_int_var(0, rank.horizon_ticks, "end")
    model.add(end >= backward[-1] + rank.backward_ticks + rank.tail_ticks)
    if weight:
        model.add(end >= weight[-1] + rank.weight_ticks)
    model.minimize(end)
    return model


def _stream(model: cp_model.CpModel, rank: OneRank, ticks: int, kind: str) -> list[cp_model.IntVar]:
    starts = [model.new_int_var(0, rank.horizon_ticks, f"{kind}{i}") for i in range(rank.num_microbatches)]
    for earlier, later in pairwise(starts):
        model.add(later >= earlier + ticks)
    return starts


def _memory_limit(
    model: cp_model.CpModel,
    rank: OneRank,
    microbatch: int,
    forward: list[cp_model.IntVar],
    backward: list[cp_model.IntVar],
    weight: list[cp_model.IntVar],
) -> None:
    """Before a forward, one of the pairs of counts that free enough must have been reached."""
    pairs = rank.releases_before(microbatch)
    if not pairs or pairs[0] == (0, 0):
        return
    fewest = pairs[0][0]
    model.add(forward[microbatch] >= backward[fewest - 1] + rank.backward_ticks)
    chosen = []
    for backwards, weights in pairs:
        choice = model.new_bool_var("")
        chosen.append(choice)
        model.add(forward[microbatch] >= backward[backwards - 1] + rank.backward_ticks).only_enforce_if(
            choice
        )
        if weights:
            last = weight[weights - 1] + rank.weight_ticks
            model.add(forward[microbatch] >= last).only_enforce_if(choice)
    model.add_bool_or(chosen)


def _divides_best(costs: StageCosts) -> bool:
    """Whether the backward is divided without loss: a divided one fits wherever an undivided one does."""
    if costs.B is None or costs.W is None or costs.BW is None:
        return True
    return (
        costs.B.ticks + costs.W.ticks <= costs.BW.ticks
        and costs.B.alloc_bytes <= costs.BW.alloc_bytes
        and costs.B.alloc_bytes - costs.B.free_bytes + costs.W.alloc_bytes <= costs.BW.alloc_bytes
        and costs.B.free_bytes + costs.W.free_bytes - costs.B.alloc_bytes - costs.W.alloc_bytes
        >= costs.BW.free_bytes - costs.BW.alloc_bytes
    )
