"""Ops print as stage, kind, microbatch, and are read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InputError
from synth.ops import Op, OpKind, TimedOp

OPS = st.builds(Op, st.sampled_from(list(OpKind)), st.integers(0, 10**6), st.integers(0, 10**6))


@given(OPS)
def test_round_trip(op):
    assert Op.parse(str(op)) == op


@pytest.mark.parametrize(
    ("text", "op"),
    [
        ("2F0", Op(OpKind.F, 2, 0)),
        ("3BW11", Op(OpKind.BW, 3, 11)),
        ("10B7", Op(OpKind.B, 10, 7)),
        ("0W3", Op(OpKind.W, 0, 3)),
    ],
)
def test_parse(text, op):
    assert Op.parse(text) == op


@pytest.mark.parametrize(
    "text", ["", "F0", "2F", "2f0", "2I0", "-1F0", "2F-1", " 2F0", "2F0 ", "2WB0", "2F0F1"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(InputError, match="is no op: write stage, kind and microbatch, as in 2F0 or 3BW11"):
        Op.parse(text)


def test_kinds_print_as_their_letters():
    assert [f"{kind}" for kind in OpKind] == ["F", "B", "W", "BW", "R"]


def test_timed_op_prints_its_start():
    assert str(TimedOp(Op(OpKind.BW, 1, 2), 30, 35)) == "1BW2@30"
