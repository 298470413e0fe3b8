"""Tables hold every number in full, on a narrow terminal too."""

import io
import re
from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, good_schedule, two_by_two
from rich.console import Console

from synth.bounds import Bound
from synth.certificate import Certificate
from synth.problem import Objective, uniform_problem
from synth.report import (
    LARGEST_GRID,
    Row,
    bound_table,
    comparison_table,
    first_steps,
    memory_table,
    other_objective,
    print_table,
    remarks,
)
from synth.schedule import Metrics, measure
from synth.search.greedy import greedy_orders
from synth.timing import schedule_orders

LARGE = Metrics(
    makespan=123_456_789_012,
    rank_span=123_456_789_000,
    work=100_000_000_000,
    bubble_ratio=0.18999,
    peak_memory_bytes=(68_719_476_736, 68_719_476_735),
)
CLAIM = Certificate(
    objective=Objective.MAKESPAN, value=LARGE.makespan, lower_bound=110_000_000_000, bound_from="period"
)
NUMBERS = ("123456789012", "0.1900", "68719476736", "110000000000", "10.90%", "1.235e+05")


def shown(table, width, **options):
    """What a console of this width prints, cell by cell."""
    stream = io.StringIO()
    print_table(Console(file=stream, width=width, highlight=False, **options), table)
    return stream.getvalue()


def rows_of(text):
    return [re.split(r"  +", line.strip()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_number_is_cut_off(width):
    problem = two_by_two(memory_limit_bytes=(68_719_476_736,) * 2)
    text = shown(comparison_table(problem, [Row("interleaved-1f1b", LARGE, CLAIM)]), width)
    assert "…" not in text
    assert "interleaved-1f1b" in text
    assert all(number in text for number in NUMBERS)
    text = shown(memory_table(problem, [Row("interleaved-1f1b", LARGE), Row("synthesized", LARGE)]), width)
    assert "…" not in text
    assert text.count("68719476735") == 2


def test_usual_numbers_fit_80_columns():
    metrics = replace(LARGE, makespan=3_831_880)
    claim = replace(CLAIM, value=3_831_880, lower_bound=3_623_744)
    text = shown(comparison_table(two_by_two(), [Row("interleaved-1f1b", metrics, claim)]), 80)
    assert max(map(len, text.splitlines())) <= 80


def test_comparison_by_hand():
    """The schedule by hand takes 15 ticks of which 10 are work and holds 4 bytes: too many for rank 0."""
    problem = replace(two_by_two(memory_limit_bytes=(3, 3)), tick_seconds=0.5)
    claim = Certificate(objective=Objective.MAKESPAN, value=15, lower_bound=12, bound_from="")
    rows = [Row("by hand", measure(good_schedule()), claim), Row("v-min", None, reason="one stage per rank")]
    lines = rows_of(shown(comparison_table(problem, rows), 100))
    assert lines[0] == ["problem: 2 ranks, 2 stages (map), 2 microbatches, makespan"]
    assert lines[1] == ["schedule", "ticks", "seconds", "bubble", "peak bytes", "fits", "bound", "gap"]
    assert lines[3] == ["by hand", "15", "7.5", "0.3333", "4", "no", "12", "20.00%"]
    assert lines[4] == ["v-min", "undefined"]
    assert remarks(rows) == ["v-min: one stage per rank"]


def test_value_is_that_of_the_objective():
    problem = two_by_two(objective=Objective.RANK_SPAN)
    metrics = replace(measure(good_schedule()), rank_span=14)
    assert rows_of(shown(comparison_table(problem, [Row("by hand", metrics)]), 100))[3][1] == "14"


def test_memory_by_hand():
    rows = [Row("by hand", measure(good_schedule())), Row("v-min", None, reason="none")]
    limited = rows_of(shown(memory_table(two_by_two(memory_limit_bytes=(3, 5)), rows), 80))
    assert limited[1] == ["rank", "limit", "by hand"]
    assert limited[3:] == [["0", "3", "4"], ["1", "5", "3"]]
    assert rows_of(shown(memory_table(two_by_two(), rows), 80))[3] == ["0", "none", "4"]


@pytest.mark.parametrize("width", [30, 80])
def test_bounds_by_hand(width):
    """10 ticks are work: a bound of 15 leaves a third idle, one of 8 says nothing."""
    bounds = [Bound("head and tail", 15, "rank 0 [waits]"), Bound("chain", 8, "one microbatch passes")]
    text = shown(bound_table(two_by_two(), bounds), width)
    assert "…" not in text
    assert ["head and tail", "15", "0.3333"] in [row[:3] for row in rows_of(text)]
    assert ["chain", "8", "0.0000"] in [row[:3] for row in rows_of(text)]
    assert "rank 0 [waits]" in text


def test_names_are_not_markup():
    problem = replace(two_by_two(), name="[/red][b]x")
    for table in (comparison_table(problem, []), bound_table(problem, [])):
        assert "[/red][b]x: 2 ranks" in shown(table, 120)


def test_no_colour_where_none_is_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    table = comparison_table(two_by_two(), [Row("by hand", measure(good_schedule()))])
    text = shown(table, 80, force_terminal=True, color_system="truecolor")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|38|4[0-7]|9[0-7])[0-9;]*m", text)
    assert "\x1b" not in shown(table, 80)


def test_first_steps_take_the_shortest_op_as_a_slot():
    problem = two_by_two(EITHER)
    schedule = schedule_orders(problem, greedy_orders(problem))
    assert first_steps(schedule, 80).startswith(" rank 0  F0")
    assert max(map(len, first_steps(schedule, 30).splitlines())) <= 30


def test_many_ranks_are_not_drawn():
    problem = uniform_problem(num_ranks=LARGEST_GRID + 1, num_microbatches=2, stage=DIVIDED)
    assert first_steps(schedule_orders(problem, greedy_orders(problem)), 80) is None


def test_other_objective_in_words():
    metrics = replace(measure(good_schedule()), rank_span=12)
    assert other_objective(metrics, Objective.MAKESPAN) == "rank_span 12 ticks, bubble 0.1667"
    assert other_objective(metrics, Objective.RANK_SPAN) == "makespan 15 ticks, bubble 0.3333"
