"""Slot tables: what is written comes back, and what is wrong is told by row and column."""

import csv
import io
from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, good_schedule, orders_of, schedule_of, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems, problems_with_orders

from synth.baselines import baseline_orders
from synth.errors import InputError, InvalidOrdersError
from synth.instances import load_instance
from synth.ops import OpKind, TimedOp
from synth.placement import PlacementKind, place
from synth.problem import Links, OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import Schedule, measure
from synth.slot_table import (
    MOST_SLOTS,
    from_slot_table,
    schedule_from_slot_table,
    to_slot_table,
    to_slot_table_that_fits,
    unit_problem,
)
from synth.timing import schedule_orders
from synth.verify import verify_schedule

GOOD = "0F0,0F0,0F1,0F1,,,,,0B0,0B0,0W0,,0B1,0B1,0W1\n,,,1F0,1F0,1B0,1B0,1F1,1F1,1B1,1B1,1W0,1W1,,\n"
"""``good_schedule()``: F and B last two slots, W one."""


# What is written.


def test_an_op_stands_in_each_of_its_slots():
    assert to_slot_table(good_schedule()) == GOOD


def test_slots_are_as_long_as_can_be():
    coarse = schedule_of(
        two_by_two(UNDIVIDED, num_microbatches=1), "0F0@100_140 0BW0@260_320", "1F0@160 1BW0@180_240"
    )
    assert to_slot_table(coarse).splitlines()[0].count(",") + 1 == 220 // 2


@given(drawn=problems_with_orders())
def test_tight_schedules_come_back_with_their_times(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    text = to_slot_table(schedule)
    assert from_slot_table(text, problem) == orders
    assert schedule_from_slot_table(text, problem).ranks == schedule.ranks
    widths = {len(row) for row in csv.reader(io.StringIO(text))}
    assert len(widths) == 1
    # The rows alone say where every stage is.
    if problem.num_stages % problem.num_ranks == 0:
        auto = problem.with_placement(place(PlacementKind.AUTO, problem.num_ranks, problem.num_stages))
        assert schedule_from_slot_table(text, auto).problem.stage_to_rank == problem.stage_to_rank


@given(drawn=problems_with_orders(), gap=st.integers(1, 5), begin=st.integers(-9, 9))
def test_orders_come_back_whatever_the_gaps(drawn, gap, begin):
    problem, orders = drawn
    tight = schedule_orders(problem, orders)
    spread = tuple(
        tuple(TimedOp(op, start * gap + begin, start * gap + begin + end - start) for op, start, end in row)
        for row in tight.ranks
    )
    assert from_slot_table(to_slot_table(Schedule(problem, spread)), problem) == orders


def test_a_table_of_too_many_slots_is_refused_or_idealised():
    problem = load_instance("zb-1.5b-m24")
    orders = baseline_orders("zb-h1", problem)
    schedule = schedule_orders(problem, orders)
    with pytest.raises(InputError, match=rf"lasts \d+ slots of 1 tick and a table has at most {MOST_SLOTS}"):
        to_slot_table(schedule)
    text = to_slot_table_that_fits(schedule)
    assert len(text.splitlines()[0].split(",")) == 3 * 24 + 7  # (p-1)(F+B-W) of idle slots
    assert schedule_from_slot_table(text, problem).ranks == schedule.ranks
    assert to_slot_table_that_fits(good_schedule()) == GOOD


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0F0@0_2 0B0@1_3 0W0@8", "1F0@3 1B0@5 1W0@7"), "rank 0 starts 0B0 at 1, before it ends .* at 2"),
        (("0F0@0_0 0B0@8 0W0@10", "1F0@3 1B0@5 1W0@7"), "rank 0 runs 0F0 in no time: give it an end"),
    ],
)
def test_what_no_table_shows_is_refused(rows, message):
    with pytest.raises(InvalidOrdersError, match=message):
        to_slot_table(schedule_of(two_by_two(num_microbatches=1), *rows))


# What is read.


def test_rows_may_be_ragged_and_padded():
    text = "0F0, 0F1 ,,0B0,0W0,0B1,0W1,,,\n,1F0,1B0,1F1,1B1,1W0,1W1\n"
    expected = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")
    assert from_slot_table(text, two_by_two()) == expected


def test_times_are_those_of_the_problem():
    """An idealised table of another problem's costs: its orders, at this problem's times."""
    text = to_slot_table(schedule_orders(unit_problem(two_by_two()), good_schedule().orders))
    assert len(text) < len(GOOD)
    assert schedule_from_slot_table(text, two_by_two()).ranks == good_schedule().ranks


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "0B0,0B0",
            "0B0,0b0",
            r"row 1, column 10 is '0b0': write stage, kind F, B, W, BW or R, and microbatch",
        ),
        ("0B0,0B0", "0I0,0I0", r"row 1, column 9 is '0I0': write stage"),
        ("1W0", "1W0 1W1", r"row 2, column 12 is '1W0 1W1': write stage"),
        ("1W0", "1" * 5000 + "W0", r"row 2, column 12 is '1{24}…': write stage"),
        ("0W0", "", r"no cell runs 0W0: add it to row 1"),
        ("0F0,0F0", "0F0,", None),
        ("0F1,0F1", "0F1,0F0", r"row 1, column 4 is 0F0: it is in row 1, column 1 already; keep one"),
        ("0F1,0F1,", "0F1,0F1,0F1,,0F1", r"row 1, column 7 is 0F1: it is in row 1, column 3 already"),
        ("1W1", "0W1", r"row 2, column 13 is 0W1: the problem places stage 0 on rank 0, which is row 1"),
        ("0W1", "0W2", r"row 1, column 15 is 0W2: the problem has 2 microbatches, numbered from 0"),
        ("0W1", "7W1", r"row 1, column 15 is 7W1: the problem has 2 stages, numbered from 0"),
        ("0W1", "0BW1", r"row 1, column 15 is 0BW1: the costs of stage 0 offer only F, B, W"),
        ("\n,", "\n\n,", r"the file has 3 rows and the problem 2 ranks: give one row per rank"),
    ],
)
def test_faults_are_told_by_row_and_column(old, new, message):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if message is None:
        assert from_slot_table(text, two_by_two()) == good_schedule().orders
        return
    with pytest.raises(InputError, match=message) as caught:
        from_slot_table(text, two_by_two(), "plan.csv")
    assert str(caught.value).startswith("plan.csv: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", ",,\n,,\n", "\ufeff" + GOOD, '"'])
def test_files_without_a_table_are_refused(text):
    with pytest.raises(InputError):
        from_slot_table(text, two_by_two())


@given(st.text(alphabet='0123FBWI,\n" .-', max_size=60))
@settings(max_examples=300)
def test_no_text_breaks_the_reader(text):
    num_ops, said = read_or_hear(text)
    assert num_ops >= 8 or said
    assert "\n" not in said


def read_or_hear(text):
    """How many ops are read, or what is said instead."""
    try:
        return sum(map(len, from_slot_table(text, two_by_two(EITHER)))), ""
    except InputError as error:
        return 0, str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0B0,0F0,0W0\n,,1F0,1B0,1W0\n", r"row 1, column 1 is 0B0: it waits for 0F0, .* row 1, column 2"),
        ("0F0,,,0B0,0W0\n1F0,1B0,1W0\n", r"row 2, column 1 is 1F0: it waits for 0F0, .* row 1, column 1"),
        ("0F0,0F0,,,0B0,0W0\n,1F0,1B0,1W0\n", r"row 2, column 2 is 1F0: it waits for 0F0, .* column 2"),
        ("0F0,,,0B0,0W0\n,1F0,1B0,1B0,1W0\n", r"row 1, column 4 is 0B0: it waits for 1B0, .* column 4"),
        ("0F0,,0W0,0B0\n,1F0,1B0,1W0\n", r"row 1, column 3 is 0W0: it waits for 0B0, .* column 4"),
    ],
)
def test_an_op_before_what_it_waits_for_is_impossible(text, message):
    with pytest.raises(InputError, match=message):
        from_slot_table(text, two_by_two(num_microbatches=1))


# The idealised problem.


@given(problem=problems())
def test_units_are_those_of_the_paper(problem):
    unit = unit_problem(problem)
    slots = {OpKind.F: 1, OpKind.B: 1, OpKind.W: 1, OpKind.BW: 2}
    for costs, before in zip(unit.stages, problem.stages, strict=True):
        assert [kind for kind, _ in costs.offered] == [kind for kind, _ in before.offered]
        assert all(cost.ticks == slots[kind] for kind, cost in costs.offered)
        assert all(cost.alloc_bytes == before.cost(kind).alloc_bytes for kind, cost in costs.offered)
    assert not any(map(any, unit.transfer_ticks))
    assert unit.links is Links.FREE
    assert (unit.placement, unit.memory_limit_bytes) == (problem.placement, problem.memory_limit_bytes)
    assert unit_problem(unit) == unit


def test_slots_of_a_length_round_to_the_nearest():
    problem = uniform_problem(2, 2, StageCosts(F=OpCost(ticks=14), B=OpCost(ticks=15), W=OpCost(ticks=2)))
    (stage, _) = unit_problem(replace(problem, tick_seconds=1e-6), slot_ticks=10).stages
    assert [cost.ticks for _, cost in stage.offered] == [1, 2, 1]
    with pytest.raises(InputError, match="a slot of 0 ticks is given"):
        unit_problem(problem, slot_ticks=0)


@given(drawn=problems_with_orders())
def test_idealising_keeps_orders_and_memory(drawn):
    problem, orders = drawn
    schedule = schedule_orders(unit_problem(problem), orders)
    assert not [v for v in verify_schedule(schedule) if v.rule != "memory_limit"]
    before = measure(schedule_orders(problem, orders))
    assert measure(schedule).peak_memory_bytes == before.peak_memory_bytes


def test_1f1b_in_unit_times_has_the_published_bubble():
    """Eight ranks, 24 microbatches: (p-1) / (m+p-1)."""
    problem: Problem = unit_problem(uniform_problem(8, 24, DIVIDED))
    metrics = measure(schedule_orders(problem, baseline_orders("zb-h1", problem)))
    assert metrics.rank_span == 3 * 24 + 7
    whole = unit_problem(uniform_problem(8, 24, UNDIVIDED))
    metrics = measure(schedule_orders(whole, baseline_orders("1f1b", whole)))
    assert round(metrics.bubble_ratio, 4) == 0.2258
