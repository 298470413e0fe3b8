"""What CP-SAT answers is read as what it means."""

import pytest
from ortools.sat.python import cp_model

from synth.cpsat import SolveParams, solve
from synth.errors import BackendError

PARAMS = SolveParams(time_limit_s=10.0, work_limit=10.0, workers=1, seed=0)


def test_optimum_is_proved():
    model = cp_model.CpModel()
    x = model.new_int_var(3, 9, "x")
    model.minimize(2 * x)
    solved = solve(model, PARAMS)
    assert (solved.has_solution, solved.is_proved, solved.lower_bound) == (True, True, 6)
    assert solved.solver.value(x) == 3


def test_no_solution_is_proved():
    model = cp_model.CpModel()
    model.add_bool_or([])
    solved = solve(model, PARAMS)
    assert (solved.has_solution, solved.is_proved) == (False, True)


def test_model_without_objective_has_no_bound():
    model = cp_model.CpModel()
    model.new_bool_var("x")
    assert solve(model, PARAMS).lower_bound == 0


def test_invalid_model_is_our_bug():
    model = cp_model.CpModel()
    x = model.new_int_var(0, 2**62, "x")
    model.add(sum([2 * x, 2 * x, 2 * x]) <= 5)
    with pytest.raises(BackendError, match="CP-SAT calls the model invalid"):
        solve(model, PARAMS)
