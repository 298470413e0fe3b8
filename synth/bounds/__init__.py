"""Lower bounds: what no schedule of a problem can beat, each with its argument."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from synth.bounds.analytic import analytic_bounds
from synth.bounds.bound import Bound
from synth.bounds.counters import counter_bounds
from synth.bounds.flows import flow_bounds
from synth.bounds.one_rank import one_rank_bounds
from synth.bounds.relaxation import relaxable_ranks
from synth.cpsat import SolveParams
from synth.free_maps import open_placements, placement_name
from synth.placement import PlacementKind
from synth.problem import Problem

__all__ = ["Bound", "analytic_bounds", "best_bound", "counter_bounds", "lower_bounds", "one_rank_bounds"]


def lower_bounds(problem: Problem, params: SolveParams | None = None) -> tuple[Bound, ...]:
    """All bounds that apply, the strongest first.

    Parameters
    ----------
    problem
        The problem.
    params
        Limits for the bounds that a solver proves; without them only those in closed form are given.

    Returns
    -------
    Bounds of the problem; where it leaves the placement open, one: the least over all of them.
    """
    if problem.placement.kind is PlacementKind.AUTO:
        return (_least(open_placements(problem), params),)
    if not problem.is_chain:
        return flow_bounds(problem)
    bounds = list(analytic_bounds(problem))
    if params is not None:
        half = replace(params, time_limit_s=params.time_limit_s / 2)
        bounds += _sharpest(counter_bounds(problem, half))
        bounds += _one_rank(problem, half, max(bound.ticks for bound in bounds))
    return tuple(sorted(bounds, key=lambda bound: -bound.ticks))


def _one_rank(problem: Problem, params: SolveParams, known_ticks: int) -> list[Bound]:
    """What single ranks prove above what is known, looked for in half of the time; else what they prove."""
    ends = time.monotonic() + params.time_limit_s
    above = []
    if not relaxable_ranks(problem):
        half = replace(params, time_limit_s=params.time_limit_s / 2)
        above = _sharpest(one_rank_bounds(problem, half, known_ticks))
    left = replace(params, time_limit_s=max(0.0, ends - time.monotonic()))
    return above or _sharpest(one_rank_bounds(problem, left))


def _sharpest(bounds: Iterable[Bound]) -> list[Bound]:
    """The best of some bounds, where there are any."""
    return sorted(bounds, key=lambda bound: -bound.ticks)[:1]


def _least(placed: tuple[Problem, ...], params: SolveParams | None) -> Bound:
    """The least of the best bounds under several placements; they share the time."""
    if params is not None:
        params = replace(params, time_limit_s=params.time_limit_s / len(placed))
    best = [lower_bounds(problem, params)[0] for problem in placed]
    least = min(best, key=lambda bound: bound.ticks)
    names = ", ".join(map(placement_name, placed))
    return replace(least, argument=f"least over the placements searched ({names}); {least.argument}")


def best_bound(problem: Problem) -> Bound:
    """The strongest bound that needs no solver."""
    return (analytic_bounds(problem) if problem.is_chain else flow_bounds(problem))[0]
