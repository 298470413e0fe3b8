"""Medians and quartiles by hand, and what is no measurement."""

import pytest

from costmodels.measured.spreads import spread_of
from synth.errors import InputError


def test_median_and_quartiles():
    spread = spread_of([5.0, 1.0, 2.0, 100.0, 3.0], "F of stage 0")
    assert (spread.median_s, spread.low_s, spread.high_s, spread.count) == (3.0, 2.0, 5.0, 5)
    assert spread.relative == 0.5


def test_one_measurement_does_not_spread():
    spread = spread_of([2.5], "F of stage 0")
    assert (spread.median_s, spread.relative, spread.count) == (2.5, 0.0, 1)
    assert spread_of([0.0, 0.0], "F of stage 0").relative == 0.0


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_what_is_no_time_is_named(wrong):
    with pytest.raises(InputError, match=rf"measurement 1 of W of stage 3 is {wrong} s, .*: measure again"):
        spread_of([1.0, wrong], "W of stage 3")
