"""The critical path: a chain that really makes the value."""

from dataclasses import replace

import numpy as np
import pytest
from builders import UNDIVIDED, orders_of, schedule_of, two_by_two
from hypothesis import given
from strategies import problems_with_orders

from synth.baselines import baseline_orders
from synth.errors import InvalidOrdersError
from synth.explain.critical_path import Cause, critical_path, in_words, stretches
from synth.graph import build_graph, divided_in_orders
from synth.instances import load_instance
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Links, Objective
from synth.schedule import Schedule, measure
from synth.timing import earliest_starts, schedule_orders


@given(problems_with_orders())
def test_path_adds_up_to_the_value(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    path = critical_path(schedule)
    assert path.end - path.start == measure(schedule).value(problem.objective)
    first, last = path.steps[0], path.steps[-1]
    assert last.timed.end == path.end
    lengths = sum(step.timed.end - step.timed.start + step.wait_ticks for step in path.steps)
    assert lengths == path.end - first.timed.start
    assert first.timed.start <= path.start
    assert first.cause is Cause.FIRST
    assert path.ticks(Cause.SLACK) == 0


@given(problems_with_orders())
def test_other_ops_could_be_short_and_the_makespan_stayed(drawn):
    problem, orders = drawn
    problem = replace(problem, objective=Objective.MAKESPAN, links=Links.FREE)
    schedule = schedule_orders(problem, orders)
    path = critical_path(schedule)
    graph = build_graph(problem, divided_in_orders(problem, orders))
    on_path = np.array([graph.op(number) in path.ops for number in range(graph.num_ops)])
    ticks = np.where(on_path, graph.ticks, 1)
    starts = earliest_starts(graph, graph.orders_to_ids(orders), ticks=ticks)
    assert (starts + ticks).max() - starts.min() == measure(schedule).makespan


def test_path_of_1f1b_on_two_ranks():
    problem = two_by_two(UNDIVIDED)
    path = critical_path(schedule_orders(problem, baseline_orders("1f1b", problem)))
    assert [str(op) for op in path.ops] == ["0F0", "1F0", "1BW0", "1F1", "1BW1", "0BW1"]
    assert [step.wait_ticks for step in path.steps] == [0, 1, 0, 0, 0, 1]
    assert in_words(path) == [
        "makespan 17 ticks = 15 computing (3 BW, 3 F) + 2 in transfers",
        "0 to 2: rank 0 runs 0F0",
        "3 to 13: rank 1 runs 1F0 to 1BW1 (4 ops), 1 ticks behind what it was sent",
        "14 to 17: rank 0 runs 0BW1, 1 ticks behind what it was sent",
    ]


def test_a_late_op_is_slack():
    problem = two_by_two(UNDIVIDED, num_microbatches=1)
    schedule = schedule_of(problem, "0F0@0 0BW0@13", "1F0@3 1BW0@9")
    path = critical_path(schedule)
    assert [(step.cause, step.wait_ticks) for step in path.steps] == [
        (Cause.FIRST, 0),
        (Cause.TRANSFER, 1),
        (Cause.SLACK, 4),
        (Cause.TRANSFER, 1),
    ]
    assert "+ 4 in ops that start later than they could" in in_words(path)[0]


def test_a_measured_op_may_beat_its_planned_transfer():
    problem = two_by_two(UNDIVIDED, num_microbatches=1)
    ranks = schedule_of(problem, "0F0@0 0BW0@10", "1F0@2_5 1BW0@5_9").ranks
    path = critical_path(Schedule(problem, ranks))
    assert [str(op) for op in path.ops] == ["0F0", "1F0", "1BW0", "0BW0"]
    assert path.end - path.start == 13


def test_rank_span_path_ends_on_the_rank_that_takes_longest():
    problem = load_instance("zb-1.5b-m24")
    schedule = schedule_orders(problem, baseline_orders("zb-h1", problem))
    path = critical_path(schedule)
    assert (path.start, path.end) == (0, 1310405)
    assert path.steps[-1].timed == schedule.ranks[0][-1]


def test_long_paths_are_told_from_both_ends():
    problem = load_instance("zb-1.5b-m24")
    path = critical_path(schedule_orders(problem, baseline_orders("1f1b", problem)))
    told = in_words(path, most_lines=4)
    assert len(told) == 6
    assert len(in_words(path, most_lines=len(stretches(path)) - 1)) == len(stretches(path)) + 1
    assert told[3] == f"… {len(stretches(path)) - 4} stretches more …"


def test_timed_op_alone():
    problem = two_by_two(UNDIVIDED, num_microbatches=1, stage_to_rank=(0,))
    path = critical_path(schedule_orders(problem, orders_of("0F0 0BW0")))
    assert [step.timed for step in path.steps] == [
        TimedOp(Op(OpKind.F, 0, 0), 0, 2),
        TimedOp(Op(OpKind.BW, 0, 0), 2, 5),
    ]


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h1", "zb-h2", "interleaved-1f1b"])
def test_every_published_schedule_has_a_path_without_slack(name):
    problem = load_instance("zb-1.5b-m24")
    path = critical_path(schedule_orders(problem, baseline_orders(name, problem)))
    assert path.ticks(Cause.SLACK) == 0


def test_a_rank_without_ops_is_no_schedule():
    schedule = schedule_of(two_by_two(UNDIVIDED, num_microbatches=1), "0F0@0 0BW0@13", "")
    with pytest.raises(InvalidOrdersError, match="no rank runs 1F0"):
        critical_path(schedule)
