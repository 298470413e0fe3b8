"""Solving CP-SAT models: one place for limits, interrupts and what the answers mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ortools.sat.python import cp_model

from synth.errors import BackendError
from synth.polling import call_and_watch


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveParams:
    """How long and how a solver may search.

    Parameters
    ----------
    time_limit_s
        Wall-clock seconds.
    work_limit
        The solver's own deterministic measure of work; what stops it when time is generous.
    workers, seed
        Threads and random seed; one worker and one seed give one answer.
    on_wait
        Called about ten times a second while the solver works.
    """

    time_limit_s: float
    work_limit: float
    workers: int
    seed: int
    on_wait: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Solved:
    """What CP-SAT found.

    Parameters
    ----------
    solver
        Holds the values where there is a solution.
    has_solution
        Whether there is one.
    is_proved
        Whether the solution is optimal, or there is provably none.
    lower_bound
        What no solution of a minimisation can beat; 0 where the model has no objective.
    """

    solver: cp_model.CpSolver
    has_solution: bool
    is_proved: bool
    lower_bound: float


def solve(
    model: cp_model.CpModel,
    params: SolveParams,
    on_solution: cp_model.CpSolverSolutionCallback | None = None,
) -> Solved:
    """Solve a model in a thread of its own, so that an interrupt reaches the caller and ends the search.

    Parameters
    ----------
    model
        What to solve.
    params
        Limits of the solver.
    on_solution
        Called with every better solution, in the solver's thread.

    Raises
    ------
    BackendError
        When the solver calls the model invalid.
    """
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, params.time_limit_s)
    solver.parameters.max_deterministic_time = params.work_limit
    solver.parameters.num_workers = params.workers
    solver.parameters.random_seed = params.seed
    solver.parameters.catch_sigint_signal = False
    status = call_and_watch(lambda: solver.solve(model, on_solution), params.on_wait, solver.stop_search)
    if status == cp_model.MODEL_INVALID:
        raise BackendError(f"CP-SAT calls the model invalid: {model.validate()}")
    return Solved(
        solver=solver,
        has_solution=status in (cp_model.OPTIMAL, cp_model.FEASIBLE),
        is_proved=status in (cp_model.OPTIMAL, cp_model.INFEASIBLE),
        lower_bound=solver.best_objective_bound if model.has_objective() else 0,
    )
