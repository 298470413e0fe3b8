"""Solving PuLP models with HiGHS: one place for limits, interrupts and what the answers mean."""

from __future__ import annotations

from enum import StrEnum

import highspy
import pulp

from synth.cpsat import SolveParams
from synth.errors import BackendError
from synth.polling import call_and_watch

_FEASIBLE, _INFEASIBLE, _STOPPED, _NOWHERE = (
    {"kOptimal", "kObjectiveTarget", "kModelEmpty"},
    {"kInfeasible", "kUnboundedOrInfeasible"},
    {"kTimeLimit", "kInterrupt", "kHighsInterrupt", "kIterationLimit", "kSolutionLimit", "kUnknown"},
    {"kSolveError", "kUnknown"},
)


class Outcome(StrEnum):
    """What a solver says of a model without an objective."""

    FEASIBLE = "feasible"
    """The variables have values."""
    INFEASIBLE = "infeasible"
    OPEN = "open"
    """It was stopped before it knew."""


def solve_feasibility(model: pulp.LpProblem, params: SolveParams, *, relaxed: bool = False) -> Outcome:
    """Find values for a model's variables, or prove that there are none.

    HiGHS works in one thread and knows no measure of work: of the limits, the time and the seed count.

    Parameters
    ----------
    model
        Without an objective.
    params
        Limits of the solver.
    relaxed
        Let integer variables take fractions.

    Raises
    ------
    BackendError
        When the solver answers anything else.
    """
    if relaxed:
        # Interior points need a tenth of the simplex method's time here, but now and then they get nowhere.
        status = _status(model, _WatchedHighs(params, mip=False, solver="ipm", run_crossover="off"))
        if status in _NOWHERE:
            status = _status(model, _WatchedHighs(params, mip=False, solver="simplex"))
    else:
        status = _status(model, _WatchedHighs(params, mip=True))
    if status in _FEASIBLE:
        return Outcome.FEASIBLE
    if status in _INFEASIBLE:
        return Outcome.INFEASIBLE
    if status in _STOPPED:
        return Outcome.OPEN
    raise BackendError(f"HiGHS ends with {status}")


def _status(model: pulp.LpProblem, solver: _WatchedHighs) -> str:
    """Solve; PuLP calls a model optimal whose time ran out, so HiGHS itself is asked."""
    model.solve(solver)
    name: str = model.solverModel.getModelStatus().name
    return name


class _WatchedHighs(pulp.HiGHS):  # type: ignore[misc]  # PuLP ships no types
    """HiGHS in a thread of its own, so that an interrupt reaches the caller and ends the search."""

    def __init__(self, params: SolveParams, *, mip: bool, **options: str) -> None:
        limits = {"timeLimit": max(0.01, params.time_limit_s), "threads": 1, "random_seed": params.seed}
        super().__init__(mip=mip, msg=False, **limits, **options)
        self._watch = params.on_wait

    def callSolver(self, lp: pulp.LpProblem) -> None:
        """Run the solver on a model that PuLP has handed over."""
        highs: highspy.Highs = lp.solverModel
        highs.HandleUserInterrupt = True
        call_and_watch(highs.run, self._watch, highs.cancelSolve)

    def findSolutionValues(self, lp: pulp.LpProblem) -> tuple[int, int]:
        """Take over the values; PuLP lacks some of HiGHS's answers, which are read elsewhere."""
        try:
            found: tuple[int, int] = super().findSolutionValues(lp)
        except KeyError:
            return pulp.LpStatusNotSolved, pulp.LpSolutionNoSolutionFound
        return found
