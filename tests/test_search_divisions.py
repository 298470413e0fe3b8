"""Backwards in halves: there and back, and only where neither form is better in everything."""

import random
from dataclasses import replace

from builders import DIVIDED, EITHER, UNDIVIDED, two_by_two
from hypothesis import given
from hypothesis import strategies as st
from strategies import problems, random_orders

from synth.ops import OpKind
from synth.search.divisions import open_stages, with_halves, without_halves


@given(problems(max_microbatches=6), st.integers(0, 2**32))
def test_there_and_back(problem, seed):
    orders = random_orders(problem, random.Random(seed))
    stages = open_stages(problem)
    in_halves, whole = with_halves(orders, stages)
    assert not any(op.kind is OpKind.BW and op.stage in stages for order in in_halves for op in order)
    assert {op._replace(kind=OpKind.BW) for op in whole} == {
        op for order in orders for op in order if op.kind is OpKind.BW and op.stage in stages
    }
    assert without_halves(in_halves, whole) == orders


def test_open_where_neither_form_is_better_in_everything():
    shorter = replace(EITHER, BW=replace(EITHER.BW, ticks=2))
    leaner = replace(EITHER, B=replace(EITHER.B, alloc_bytes=1, free_bytes=2))
    for stage, is_open in (
        (DIVIDED, False),
        (UNDIVIDED, False),
        (EITHER, False),
        (shorter, True),
        (leaner, True),
    ):
        assert open_stages(two_by_two(stage)) == (frozenset({0, 1}) if is_open else frozenset())
