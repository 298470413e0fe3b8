"""Exports of flows: shown where they can be, refused by name where a target runs plain chains only."""

import json
import re
from dataclasses import replace

import pytest
from flow_cases import flows_with_orders
from hypothesis import given, settings
from test_flows import STAGE, SUMMED, two_directions, two_slices
from test_stage_names import directions_of_slices

from synth.baselines import baseline_schedule
from synth.errors import InputError
from synth.explain.critical_path import critical_path
from synth.export import TARGETS, Shown, export, export_files
from synth.export.figure.block_panel import Block
from synth.export.html.embed import schedule_data
from synth.export.steady_state import find_steady_state
from synth.export.torch_csv import from_torch_csv
from synth.grid import render_grid
from synth.memory import serial_orders
from synth.ops import OpKind
from synth.problem import uniform_problem
from synth.report import Row, comparison_table, first_steps
from synth.schedule import measure
from synth.slot_table import (
    from_slot_table,
    schedule_from_slot_table,
    to_slot_table,
    unit_problem,
)
from synth.strips import coloured_strips, legend
from synth.timeline import transfers
from synth.timing import schedule_orders

FLOWS = {
    "directions": two_directions(),
    "slices": two_slices(),
    "both": directions_of_slices(),
    "sum": uniform_problem(2, 2, SUMMED),
}
REFUSED = ("torch-csv", "torchtitan", "automodel")


def shown_of(problem):
    schedule = schedule_orders(problem, serial_orders(problem))
    return Shown(title="a flow", schedule=schedule, marked=critical_path(schedule).ops)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FLOWS)
def test_a_target_shows_a_flow_or_refuses_it_by_name(name, target):
    problem = FLOWS[name]
    if target not in REFUSED:
        assert export(target, [shown_of(problem)])
        return
    what = "directions or slices" if problem.feeds else "a planned sum of gradients"
    with pytest.raises(InputError, match=f"{target} cannot express {what}"):
        export(target, [shown_of(problem)])
    with pytest.raises(InputError, match=f"{target} cannot express {what}"):
        export_files(target, shown_of(problem).schedule, "flow.csv")


def test_a_torch_csv_is_not_read_as_a_flow():
    with pytest.raises(InputError, match="torch-csv cannot express directions or slices"):
        from_torch_csv("0F0\n", two_directions())


# Perfetto.


@pytest.mark.parametrize("name", FLOWS)
def test_a_trace_holds_every_op_and_says_what_its_stage_is(name):
    problem = FLOWS[name]
    trace = json.loads(export("perfetto", [shown_of(problem)]))
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    ops = [event for event in slices if event["cat"] in set(OpKind)]
    schedule = shown_of(problem).schedule
    assert len(ops) == sum(map(len, schedule.ranks))
    sums = sorted(event["name"] for event in ops if event["cat"] == "R")
    assert sums == [f"PP:{s}REDUCE_GRAD" for s, costs in enumerate(problem.stages) if costs.R]
    assert len(slices) - len(ops) == len([each for each in transfers(schedule) if each.end > each.start])
    assert ("model stage" in ops[0]["args"]) == bool(problem.feeds)
    assert ("stages" in trace["otherData"]["schedules"][0]) == bool(problem.feeds)


# Pages and figures.


def test_a_page_says_what_a_flow_is():
    data = schedule_data(shown_of(directions_of_slices()))
    assert data["shape"] == "8 stages in 2 directions and 2 slices"
    assert data["reading"] == "stage 7 = stage 1 of direction 1, slice 1"
    assert data["stage_names"][4] == "stage 0 of direction 1, slice 0"
    assert data["kinds"][-1] == "R"
    assert set(data["costs"][0]) == {"F", "B", "W", "BW", "R"}
    assert set(data["costs"][1]) == {"F", "B", "W", "BW"}


def test_a_page_of_a_chain_has_no_names_for_its_stages():
    data = schedule_data(shown_of(uniform_problem(2, 2, STAGE)))
    assert (data["shape"], data["reading"], data["stage_names"]) == ("2 stages", "", [])


def test_a_figure_draws_sums_in_their_own_colour():
    text = export("svg", [shown_of(two_directions())]).decode()
    drawn = set(re.findall(r'id="ops-(\w+)-chunk-(\d)"', text))
    assert drawn == {(kind, chunk) for kind in ("F", "BW", "R") for chunk in "01"}


@settings(max_examples=30)
@given(flows_with_orders())
def test_sums_are_in_no_building_block(drawn):
    schedule = schedule_orders(*drawn)
    block = Block.of(schedule)
    assert all(timed.op.kind is not OpKind.R for rank in block.ranks for timed in rank)


def test_slices_repeat_and_directions_do_not():
    problem = two_slices(num_microbatches=8)
    steady = find_steady_state(schedule_orders(problem, serial_orders(problem)))
    assert steady is not None
    assert steady.num_together == 1
    opposed = two_directions(per_direction=8)
    assert find_steady_state(schedule_orders(opposed, serial_orders(opposed))) is None
    summed = uniform_problem(2, 8, SUMMED)
    assert find_steady_state(schedule_orders(summed, serial_orders(summed))) is not None


# Text.


def test_a_grid_shows_stages_and_sums_and_says_how_they_read():
    problem = two_directions(transfer_ticks=0, per_direction=1)
    schedule = schedule_orders(problem, serial_orders(problem))
    assert "0R0" in render_grid(schedule).splitlines()[0]
    steps = first_steps(schedule, 300)
    assert steps.splitlines()[-1] == "stage 3 = stage 1 of direction 1"
    plain = uniform_problem(2, 2, STAGE)
    assert "=" not in first_steps(schedule_orders(plain, serial_orders(plain)), 300)


def test_strips_write_a_sum_as_r_and_the_legend_says_how_stages_read():
    problem = two_directions(per_direction=1)
    schedule = schedule_orders(problem, serial_orders(problem))
    length = measure(schedule).makespan
    rows = coloured_strips(schedule, len("rank 0 ") + length).plain.splitlines()
    assert rows[0].endswith("R   R   ")
    words = legend(problem).plain
    assert " R chunk 1 " in words
    assert (
        words.splitlines()[1].strip() == "stage 3 = stage 1 of direction 1; a chunk is one of a rank's stages"
    )
    assert legend(uniform_problem(2, 2, STAGE)).plain.count("\n") == 0


def test_a_comparison_is_headed_by_the_shape():
    problem = two_slices()
    schedule = schedule_orders(problem, serial_orders(problem))
    table = comparison_table(problem, [Row("serial", measure(schedule))])
    assert "2 ranks, 4 stages in 2 slices (map), 2 microbatches" in str(table.title)


# Slot tables.


@settings(max_examples=60)
@given(flows_with_orders())
def test_slot_tables_give_a_flow_back(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    text = to_slot_table(schedule)
    assert from_slot_table(text, problem) == orders
    assert schedule_from_slot_table(text, problem) == schedule
    unit = schedule_orders(unit_problem(problem), orders)
    assert from_slot_table(to_slot_table(unit), problem) == orders


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"0F0": "0F2"}, "row 1, column 1 is 0F2: stage 0 does not carry microbatch 2"),
        ({"0R0": "0R1"}, "is 0R1: a sum of gradients runs once, as microbatch 0"),
        ({"0R0": ""}, "no cell runs 0R0: add it to row 1"),
        ({"3BW3": ""}, "no cell runs 3BW3: add it to row 1"),
    ],
)
def test_cells_that_a_flow_lacks_are_named(change, says):
    problem = two_directions()
    text = to_slot_table(schedule_orders(problem, serial_orders(problem)))
    for op, instead in change.items():
        assert op in text
        text = text.replace(op, instead)
    with pytest.raises(InputError, match=re.escape(says)):
        from_slot_table(text, problem)


def test_a_unit_slot_of_a_flow_keeps_its_feeds():
    problem = unit_problem(directions_of_slices())
    assert problem.feeds == directions_of_slices().feeds
    assert {costs.R.ticks for costs in problem.stages if costs.R} == {1}


def test_a_slot_table_of_weight_versions_is_that_of_its_orders():
    plain, versions = (two_directions(replace(STAGE, weight_versions=n, weight_bytes=4)) for n in (1, 3))
    tables = [
        to_slot_table(schedule_orders(problem, serial_orders(problem))) for problem in (plain, versions)
    ]
    assert tables[0] == tables[1]


def test_stages_that_store_are_refused_by_name():
    schedule = baseline_schedule("bpipe", uniform_problem(4, 4, STAGE))
    with pytest.raises(InputError, match="torch-csv cannot express stages that are no plain chain"):
        export("torch-csv", [Shown(title="evicting", schedule=schedule)])
