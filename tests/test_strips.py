"""Coloured strips: every column shows the op that runs there."""

from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from strategies import problems_with_orders

from synth.baselines import baseline_orders
from synth.colours import shade
from synth.ops import OpKind
from synth.problem import OpCost, PlacementKind, StageCosts, uniform_problem
from synth.strips import IDLE, coloured_strips, legend
from synth.timing import schedule_orders

TENS = StageCosts(F=OpCost(ticks=10), BW=OpCost(ticks=20))


def one_f_one_b():
    problem = uniform_problem(2, 2, TENS)
    return schedule_orders(problem, baseline_orders("1f1b", problem))


def fills(text):
    """The background of every character of a row, None without one."""
    row = [None] * len(text)
    for span in text.spans:
        colour = span.style.bgcolor
        row[span.start : span.end] = [colour and colour.name] * (span.end - span.start)
    return row


def test_rows_of_1f1b_where_a_column_is_ten_ticks():
    rows = coloured_strips(one_f_one_b(), columns=len("rank 0 ") + 18).split("\n")
    assert [row.plain for row in rows][:2] == [
        "rank 0 0 1 " + IDLE * 4 + "0   " + IDLE * 2 + "1   ",
        "rank 1 " + IDLE * 2 + "0 0   1 1   " + IDLE * 4,
    ]
    forward, backward = (shade(kind, 0, 1).fill for kind in (OpKind.F, OpKind.BW))
    assert fills(rows[0])[7:] == [forward] * 4 + [None] * 4 + [backward] * 4 + [None] * 2 + [backward] * 4


def test_schedules_share_an_axis():
    alone, half = (coloured_strips(one_f_one_b(), 61, ticks=ticks).plain for ticks in (None, 180))
    assert len(half.splitlines()[0]) == len(alone.splitlines()[0]) == 61
    assert half.splitlines()[0].endswith(IDLE * 27)


@given(problems_with_orders(), st.integers(1, 90))
def test_never_wider_than_the_window_or_than_one_column_after_the_rank(drawn, columns):
    schedule = schedule_orders(*drawn)
    lines = coloured_strips(schedule, columns).plain.splitlines()
    assert len(lines) == len(schedule.ranks)
    assert {len(line) for line in lines} == {max(columns, len("rank 0 ") + 1)}


def test_legend_names_what_the_problem_has():
    assert legend(one_f_one_b().problem).plain == " F   BW  · idle"
    chunked = uniform_problem(2, 2, TENS, chunks=2, kind=PlacementKind.V)
    text = legend(chunked)
    assert isinstance(text, Text)
    assert text.plain == " F chunk 0   F chunk 1   BW chunk 0   BW chunk 1  · idle"
