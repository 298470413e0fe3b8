"""Linear programmes: the bound is exact, and holds whatever the solver did."""

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth import linear
from synth.linear import LinearProgram


def two_columns(constant=7):
    """Minimise x, where x + 2 y ≥ 7, y ≤ 2, x - y ≥ 0: 3 at y = 2."""
    program = LinearProgram(unit=1)
    (y,) = program.add_columns([2])
    rows = program.add_rows([constant, 0])
    program.add_terms(rows, 0, 1)
    program.add_terms(rows, y, [2, -1])
    return program


@pytest.mark.parametrize("scale", [1, 1000, 10**12])
def test_the_minimum_is_found_in_exact_integers(scale):
    program = LinearProgram(unit=scale)
    (y,) = program.add_columns([2])
    rows = program.add_rows([7 * scale, 0])
    program.add_terms(rows, 0, 1)
    program.add_terms(rows, y, [2 * scale, -scale])
    assert program.lower_bound(10.0) == 3 * scale


def test_terms_in_the_same_place_add_up():
    program = LinearProgram(unit=1)
    (y,) = program.add_columns([1])
    rows = program.add_rows([7])
    program.add_terms(rows, 0, 1)
    for _ in range(4):
        program.add_terms(rows, y, 1)
    assert program.lower_bound(10.0) == 3


@settings(max_examples=100)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=2))
def test_no_prices_prove_more_than_the_minimum(prices):
    """Weak duality: wrong prices only prove less."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_prices", lambda *_: np.array(prices))
        assert 0 <= two_columns().lower_bound(10.0) <= 3


def test_out_of_time_proves_nothing_wrong():
    assert 0 <= two_columns().lower_bound(0.0) <= 3


def test_fractions_are_rounded_up():
    program = LinearProgram(unit=1)
    (row,) = program.add_rows([7])
    program.add_terms(row, 0, 2)
    assert program.lower_bound(10.0) == 4


def test_a_programme_that_is_left_is_stopped(monkeypatch):
    """A solver that ran on would be torn down with the interpreter, in the middle of its work."""
    stopped = []
    stop = linear._Stoppable.stop
    monkeypatch.setattr(linear._Stoppable, "stop", lambda self: (stop(self), stopped.append(self)))
    monkeypatch.setattr(linear, "call_and_watch", leave)
    with pytest.raises(KeyboardInterrupt):
        two_columns().lower_bound(10.0)
    (stoppable,) = stopped
    assert not stoppable.run(highspy.Highs())


def leave(call, watch, stop):
    """What :func:`call_and_watch` does when it is left at once."""
    stop()
    raise KeyboardInterrupt
