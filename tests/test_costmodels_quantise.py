"""Seconds to ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodels.quantise import Quantiser
from synth.errors import InputError


def test_rounds_to_the_nearest_and_never_to_none():
    quantiser = Quantiser(tick_seconds=1e-3)
    assert [quantiser.ticks(t) for t in (0.0, 0.0001, 0.0014, 0.0016, 2.0)] == [1, 1, 1, 2, 2000]
    assert quantiser.ticks(0.0001, least=0) == 0


def test_largest_error_by_hand():
    """1.4 ms in ticks of 1 ms is off by 0.4 of 1.4; 10.1 ms by 0.1 of 10.1; nothing at all does not count."""
    assert Quantiser(tick_seconds=1e-3).largest_error([0.0014, 0.0101, 0.0]) == pytest.approx(0.4 / 1.4)
    assert Quantiser(tick_seconds=1e-3).largest_error([]) == 0


def test_a_time_that_rounds_to_nothing_is_lost():
    """A transfer of 0.4 ms in ticks of 1 ms becomes none, 100 % off; an op takes a tick, 150 % off."""
    assert Quantiser(tick_seconds=1e-3).largest_error([0.0004], least=0) == 1
    assert Quantiser(tick_seconds=1e-3).largest_error([0.0004]) == pytest.approx(1.5)


@given(st.floats(1e-6, 1e3), st.floats(1e-9, 1e-6))
def test_error_is_at_most_half_a_tick(seconds, tick_seconds):
    error = Quantiser(tick_seconds=tick_seconds).largest_error([seconds])
    assert error <= 0.5001 * tick_seconds / seconds


@pytest.mark.parametrize("tick_seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_ticks_without_a_length_are_refused(tick_seconds):
    with pytest.raises(InputError, match="give a finite length above 0"):
        Quantiser(tick_seconds=tick_seconds)


def test_times_beyond_64_bits_are_refused():
    with pytest.raises(InputError, match=r"more than 2\*\*62 ticks .* give a longer tick"):
        Quantiser(tick_seconds=1e-300).ticks(1.0)
