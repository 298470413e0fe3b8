"""Traces: every op once at its time, lanes without overlaps, arrows that hold on to slices, the memory."""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.baselines import baseline_orders
from synth.certificate import Certificate
from synth.export import Shown, export
from synth.export.torch_names import torch_action
from synth.ops import Op, OpKind
from synth.problem import Links, Objective, uniform_problem
from synth.timeline import memory_steps, transfers
from synth.timing import schedule_orders
from tests.builders import DIVIDED, good_schedule, schedule_of, two_by_two
from tests.strategies import problems_with_orders

TICK_SECONDS = st.sampled_from([1e-6, 1e-3, 5e-7, 1e-9, 1.0, 3.7e-7])


def trace(*shown):
    """The events of a trace, by their phase."""
    document = json.loads(export("perfetto", shown))
    events = defaultdict(list)
    for event in document["traceEvents"]:
        events[event["ph"]].append(event)
    return events


def shown_of(schedule, title="a"):
    return Shown(title=title, schedule=schedule)


def nanoseconds(event):
    """From when to when."""
    start, length = round(event["ts"] * 1000), round(event.get("dur", 0) * 1000)
    return start, start + length


def lanes(events):
    """The slices of every lane, by start."""
    found = defaultdict(list)
    for event in events["X"]:
        found[event["pid"], event["tid"]].append(event)
    return {lane: sorted(slices, key=nanoseconds) for lane, slices in found.items()}


@st.composite
def schedules(draw):
    problem, orders = draw(problems_with_orders())
    return schedule_orders(replace(problem, tick_seconds=draw(TICK_SECONDS)), orders)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedules())
def test_every_op_stands_once_at_its_time(schedule):
    events = trace(shown_of(schedule))
    first = min(rank[0].start for rank in schedule.ranks)
    nanos = schedule.problem.tick_seconds * 1e9
    expected = {
        (rank, f"PP:{torch_action(op)}", round((start - first) * nanos), round((end - first) * nanos))
        for rank, row in enumerate(schedule.ranks)
        for op, start, end in row
    }
    ops = [event for event in events["X"] if event["name"].startswith("PP:")]
    assert len(ops) == sum(map(len, schedule.ranks))
    assert {(event["pid"] - 1, event["name"], *nanoseconds(event)) for event in ops} == expected


@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedules())
def test_slices_of_a_lane_do_not_overlap(schedule):
    for slices in lanes(trace(shown_of(schedule))).values():
        assert all(nanoseconds(a)[1] <= nanoseconds(b)[0] for a, b in pairwise(slices))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedules())
def test_every_transfer_is_an_arrow_from_its_producer_over_its_slice_to_its_consumer(schedule):
    events = trace(shown_of(schedule))
    by_lane = lanes(events)

    def slices_around(event):
        moment, _ = nanoseconds(event)
        around = []
        for found in by_lane[event["pid"], event["tid"]]:
            start, end = nanoseconds(found)
            if start <= moment < end:
                around.append(found["args"])
        return around

    moves = transfers(schedule)
    ends = {event["id"]: event for event in events["f"]}
    on_the_way = {event["id"]: event for event in events["t"]}
    assert len(events["s"]) == len(ends) == len(moves)
    for move, start in zip(moves, events["s"], strict=True):
        assert [args["op"] for args in slices_around(start)] == [str(move.producer)]
        end = ends[start["id"]]
        assert end["bp"] == "e"
        assert [args["op"] for args in slices_around(end)] == [str(move.consumer)]
        if move.end > move.start:
            (args,) = slices_around(on_the_way[start["id"]])
            assert args == {"from": str(move.producer), "to": str(move.consumer)}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedules())
def test_counters_are_the_memory_steps(schedule):
    events = trace(shown_of(schedule))
    nanos = schedule.problem.tick_seconds * 1e9
    first = min(rank[0].start for rank in schedule.ranks)
    for rank, steps in enumerate(memory_steps(schedule)):
        counted = [(nanoseconds(e)[0], e["args"]["bytes"]) for e in events["C"] if e["pid"] == rank + 1]
        assert counted == [(round((step.tick - first) * nanos), step.live_bytes) for step in steps]


def test_names_of_processes_and_lanes():
    events = trace(shown_of(good_schedule()))
    names = [(e["name"], e["args"]["name"]) for e in events["M"] if "name" in e["args"]]
    assert [name for what, name in names if what == "process_name"] == ["rank 0", "rank 1"]
    assert [name for what, name in names if what == "thread_name"] == ["ops", "ops", "to rank 1", "to rank 0"]


def test_ranks_sort_by_name_too():
    problem = uniform_problem(11, 2, DIVIDED)
    events = trace(shown_of(schedule_orders(problem, baseline_orders("1f1b", problem))))
    names = [e["args"]["name"] for e in events["M"] if e["name"] == "process_name"]
    assert names == sorted(names)
    assert names[-1] == "rank 10"


def test_transfers_that_overlap_under_free_links_get_lanes_of_their_own():
    crowded = two_by_two(transfer_ticks=5)
    ranks = ("0F0@0 0F1@2 0B0@22 0W0@24 0B1@25 0W1@27", "1F0@7 1F1@9 1B0@11 1W0@13 1B1@14 1W1@16")
    free = trace(shown_of(schedule_of(crowded, *ranks)))
    exclusive = replace(crowded, links=Links.EXCLUSIVE)
    one_by_one = trace(shown_of(schedule_of(exclusive, *ranks)))
    for events, count in ((free, 2), (one_by_one, 1)):
        sent = {e["tid"] for e in events["X"] if e["pid"] == 1 and not e["name"].startswith("PP:")}
        assert len(sent) == count


def test_several_schedules_are_grouped_by_their_titles():
    events = trace(shown_of(good_schedule(), "plan"), shown_of(good_schedule(), "run"))
    names = {e["pid"]: e["args"]["name"] for e in events["M"] if e["name"] == "process_name"}
    order = {e["pid"]: e["args"]["sort_index"] for e in events["M"] if e["name"] == "process_sort_index"}
    assert [names[pid] for pid in sorted(names, key=order.__getitem__)] == [
        "plan: rank 0",
        "plan: rank 1",
        "run: rank 0",
        "run: rank 1",
    ]
    numbers = [event["id"] for event in events["s"]]
    assert len(numbers) == len(set(numbers)) == 2 * len(transfers(good_schedule()))


def test_a_measured_timeline_has_no_arrows_back_in_time():
    # 1F0 runs before what it waits for has ended; 1B0's gradient overtakes the planned transfer time.
    measured = schedule_of(
        two_by_two(num_microbatches=1, transfer_ticks=4),
        "0F0@-3_5 0B0@8_9 0W0@9_12",
        "1F0@4_6 1B0@6_7 1W0@7_7",
    )
    events = trace(shown_of(measured))
    assert [len(events[phase]) for phase in "stf"] == [1, 1, 1]
    assert min(event["ts"] for event in events["X"]) == 0
    (slice_,) = [e for e in events["X"] if e["name"] == "PP:1W0"]
    assert slice_["dur"] == 0


def test_marked_ops_and_what_is_known_are_in_the_file():
    claim = Certificate(objective=Objective.MAKESPAN, value=15, lower_bound=12, bound_from="")
    marked = Op(OpKind.B, 1, 0)
    shown = replace(shown_of(good_schedule()), certificate=claim, marked=(marked,), notes=("note",))
    assert [e["args"]["op"] for e in trace(shown)["X"] if "marked" in e["args"]] == [str(marked)]
    (about,) = json.loads(export("perfetto", [shown]))["otherData"]["schedules"]
    assert about["lower_bound_ticks"] == 12
    assert about["gap"] == pytest.approx(0.2)
    assert about["notes"] == ["note"]


def test_a_trace_is_the_same_every_time():
    assert export("perfetto", [shown_of(good_schedule())]) == export("perfetto", [shown_of(good_schedule())])
