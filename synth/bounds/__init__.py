"""Lower bounds: what no schedule of a problem can beat, each with its argument."""

from __future__ import annotations

from synth.bounds.analytic import analytic_bounds
from synth.bounds.bound import Bound
from synth.bounds.one_rank import one_rank_bounds
from synth.cpsat import SolveParams
from synth.problem import Problem

__all__ = ["Bound", "analytic_bounds", "best_bound", "lower_bounds", "one_rank_bounds"]


def lower_bounds(problem: Problem, params: SolveParams | None = None) -> tuple[Bound, ...]:
    """All bounds that apply, the strongest first.

    Parameters
    ----------
    problem
        The problem.
    params
        Limits for the bounds that a solver proves; without them only those in closed form are given.
    """
    bounds = list(analytic_bounds(problem))
    if params is not None:
        bounds += one_rank_bounds(problem, params)
    return tuple(sorted(bounds, key=lambda bound: -bound.ticks))


def best_bound(problem: Problem) -> Bound:
    """The strongest bound in closed form."""
    return analytic_bounds(problem)[0]
