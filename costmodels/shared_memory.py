"""The cut where the stages of a rank share its memory: not to be decided stage by stage, so CP-SAT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from ortools.sat.python import cp_model

from synth.cpsat import SolveParams, solve

EFFORT = SolveParams(time_limit_s=120.0, work_limit=20.0, workers=1, seed=0)
"""Chains of a hundred layers take a second; a cut found by the end of this is taken unproved."""


def cut_with_shared_memory(
    costs: Sequence[int],
    held_bytes: Sequence[int],
    stage_to_rank: Sequence[int],
    limit_bytes: int,
    allowed_starts: Sequence[Sequence[int]],
) -> tuple[int, ...] | None:
    """Minimise the slowest stage with every rank's layers, over all its stages, within the limit.

    Parameters
    ----------
    costs, held_bytes
        Of each layer.
    stage_to_rank
        The rank of every stage.
    limit_bytes
        Of each rank.
    allowed_starts
        Where each stage may begin.

    Returns
    -------
    The first layer of every stage and the number of layers, or None when no cut that fits was found.
    """
    model, num_layers = cp_model.CpModel(), len(costs)
    starts = [
        model.new_int_var_from_domain(cp_model.Domain.from_values(list(allowed)), "")
        for allowed in allowed_starts
    ]
    starts.append(model.new_constant(num_layers))
    times = [_sum_before(model, start, costs) for start in starts]
    needs = [_sum_before(model, start, held_bytes) for start in starts]
    slowest = model.new_int_var(0, sum(costs), "")
    for (first, last), (begun, ended) in zip(pairwise(starts), pairwise(times), strict=True):
        model.add(last >= first + 1)
        model.add(ended - begun <= slowest)
    for rank in set(stage_to_rank):
        held = [needs[s + 1] - needs[s] for s, r in enumerate(stage_to_rank) if r == rank]
        model.add(sum(held) <= limit_bytes)
    model.minimize(slowest)
    solved = solve(model, EFFORT)
    return tuple(solved.solver.value(start) for start in starts) if solved.has_solution else None


def _sum_before(model: cp_model.CpModel, start: cp_model.IntVar, values: Sequence[int]) -> cp_model.IntVar:
    """The sum of the values before a cut, as a variable."""
    sums = list(accumulate(values, initial=0))
    total = model.new_int_var(0, sums[-1], "")
    model.add_element(start, sums, total)
    return total
