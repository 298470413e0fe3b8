"""Certificates: the gap and the status follow from value and bound."""

import pytest

from synth.certificate import Certificate, Status
from synth.problem import Objective


@pytest.mark.parametrize(
    ("value", "bound", "gap", "status"),
    [
        (100, 100, 0.0, Status.OPTIMAL),
        (100, 99, 0.01, Status.FEASIBLE),
        (100, 0, 1.0, Status.FEASIBLE),
        (3 * 10**18, 3 * 10**18 - 1, 1 / 3 * 1e-18, Status.FEASIBLE),
    ],
)
def test_gap_and_status(value, bound, gap, status):
    certificate = Certificate(objective=Objective.MAKESPAN, value=value, lower_bound=bound, bound_from="hand")
    assert certificate.gap == pytest.approx(gap)
    assert certificate.status is status


def test_statuses_print_as_in_the_documents():
    assert [f"{status}" for status in Status] == ["optimal", "feasible", "infeasible", "unknown"]
