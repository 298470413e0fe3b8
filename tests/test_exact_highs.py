"""What HiGHS answers is read as what it means."""

import pulp
import pytest

from synth.cpsat import SolveParams
from synth.errors import BackendError
from synth.exact import highs
from synth.exact.highs import Outcome, solve_feasibility

PARAMS = SolveParams(time_limit_s=10.0, work_limit=10.0, workers=1, seed=0)


def half() -> pulp.LpProblem:
    """Twice an integer is one: only a fraction will do."""
    model = pulp.LpProblem("half")
    x = model.add_variable("x", 0, 1, cat=pulp.LpInteger)
    model.addConstraint(pulp.LpAffineExpression([(x, 2)]) == 1)
    return model


def test_integers_and_fractions():
    assert solve_feasibility(half(), PARAMS) is Outcome.INFEASIBLE
    assert solve_feasibility(half(), PARAMS, relaxed=True) is Outcome.FEASIBLE


def test_values_are_set():
    model = pulp.LpProblem("whole")
    x = model.add_variable("x", 0, 9, cat=pulp.LpInteger)
    model.addConstraint(pulp.LpAffineExpression([(x, 3)]) >= 25)
    assert solve_feasibility(model, PARAMS) is Outcome.FEASIBLE
    assert x.value() == 9


@pytest.mark.parametrize(
    ("status", "outcome"), [("kTimeLimit", Outcome.OPEN), ("kHighsInterrupt", Outcome.OPEN)]
)
def test_a_stopped_solver_knows_nothing(monkeypatch, status, outcome):
    monkeypatch.setattr(highs, "_status", lambda model, solver: status)
    assert solve_feasibility(half(), PARAMS) is outcome


def test_interior_points_that_get_nowhere_give_way_to_the_simplex_method(monkeypatch):
    answers = iter(["kSolveError", "kInfeasible"])
    monkeypatch.setattr(highs, "_status", lambda model, solver: next(answers))
    assert solve_feasibility(half(), PARAMS, relaxed=True) is Outcome.INFEASIBLE


def test_any_other_answer_is_the_backend_s():
    model = half()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(highs, "_status", lambda model, solver: "kLoadError")
        with pytest.raises(BackendError, match="HiGHS ends with kLoadError"):
            solve_feasibility(model, PARAMS)
