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
from dataclasses import replace
from itertools import pairwise
from math import ceil

from ortools.sat.python import cp_model

from synth.bounds.bound import Bound
from synth.bounds.relaxation import OneRank, relax, relaxable_ranks
from synth.cpsat import SolveParams, solve
from synth.problem import Problem

MOST_MICROBATCHES = 256
"""The model is not built for more microbatches: it would not be solved in minutes."""

LARGEST_EXACT = 2**52
"""Longer horizons are left out: CP-SAT states its bound as a float, exact only up to here."""


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
    relaxed = {rank: relax(problem, rank) for rank in relaxable_ranks(problem)}
    ranks = [rank for rank in relaxed if relaxed[rank].horizon_ticks < LARGEST_EXACT]
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
