"""A rank with one stage in CP-SAT, where its backwards are divided wherever they can be.

Smaller and quicker than the model of any rank (:mod:`synth.bounds.alone`): before the forward of microbatch i
enough of the first backwards and of the first weight ops must have ended, and each pair of counts that frees
enough is two precedences.
"""

from __future__ import annotations

from itertools import pairwise

from ortools.sat.python import cp_model

from synth.bounds.relaxation import OneRank


def one_stage_model(rank: OneRank) -> cp_model.CpModel:
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
