"""Why flows take as long as they do: paths through sums of gradients, idle time, and what would help."""

from dataclasses import replace

import numpy as np
import pytest
from builders import orders_of, schedule_of
from flow_cases import flows_with_orders
from hypothesis import given, settings
from test_flows import STAGE, SUMMED, two_directions, two_slices

from synth.explain.critical_path import Cause, critical_path, in_words
from synth.explain.idle import Wait, idle_times
from synth.explain.what_if import balanced_stages, retimed_answers, search_questions
from synth.graph import build_graph, divided_in_orders
from synth.memory import serial_orders
from synth.ops import OpKind
from synth.problem import Links, Objective, OpCost
from synth.schedule import measure
from synth.timeline import transfers
from synth.timing import earliest_starts, schedule_orders


@settings(max_examples=60)
@given(flows_with_orders())
def test_a_path_adds_up_to_the_value(drawn):
    schedule = schedule_orders(*drawn)
    path = critical_path(schedule)
    assert path.end - path.start == measure(schedule).makespan
    lengths = sum(step.timed.end - step.timed.start + step.wait_ticks for step in path.steps)
    assert lengths == path.end - path.steps[0].timed.start
    assert path.ticks(Cause.SLACK) == path.ticks(Cause.SUM) == 0
    assert all(step.timed.op.kind is OpKind.R for step in path.steps if step.cause is Cause.SUM)
    assert in_words(path)


@settings(max_examples=60)
@given(flows_with_orders())
def test_other_ops_could_be_short_and_the_makespan_stayed(drawn):
    problem, orders = drawn
    problem = replace(problem, links=Links.FREE)
    schedule = schedule_orders(problem, orders)
    path = critical_path(schedule)
    graph = build_graph(problem, divided_in_orders(problem, orders))
    on_path = np.array([graph.op(number) in path.ops for number in range(graph.num_ops)])
    ticks = np.where(on_path, graph.ticks, 1)
    starts = earliest_starts(graph, graph.orders_to_ids(orders), ticks=ticks)
    assert (starts + ticks).max() - starts.min() == measure(schedule).makespan


def lopsided():
    """Direction 1 comes late on rank 0: its last backward ends at 18, and rank 1 waits for it to sum."""
    problem = two_directions(per_direction=1)
    long = replace(SUMMED, BW=OpCost(ticks=10, free_bytes=3))
    problem = replace(problem, stages=(SUMMED, SUMMED, SUMMED, long))
    return schedule_of(
        problem,
        "0F0@0 3F1@3 3BW1@5 0BW0@15 0R0@20 3R0@24",
        "2F1@0 1F0@3 1BW0@5 1R0@15 2BW1@19 2R0@22",
    )


def test_a_path_leads_through_the_last_of_a_sum():
    schedule = lopsided()
    ranks = tuple(
        tuple(t._replace(start=t.start + late, end=t.end + late) for t, late in zip(rank, lates, strict=True))
        for rank, lates in zip(schedule.ranks, ((0,) * 4 + (2, 2), (0,) * 6), strict=True)
    )
    path = critical_path(replace(schedule, ranks=ranks))
    assert [(str(step.timed.op), step.cause) for step in path.steps][-2:] == [
        ("0R0", Cause.SUM),
        ("3R0", Cause.RANK),
    ]
    assert str(path.steps[-3].timed.op) == "2BW1", "on the other rank"
    assert any("behind the other weight gradients of its sum" in line for line in in_words(path))


@settings(max_examples=60)
@given(flows_with_orders())
def test_work_and_waits_fill_the_window(drawn):
    schedule = schedule_orders(*drawn)
    for rank in idle_times(schedule):
        assert rank.work_ticks + rank.idle_ticks == measure(schedule).makespan
        assert min(rank.waits_ticks.values()) >= 0
        assert rank.waits_ticks[Wait.MEMORY] == 0, "there is no limit"


@pytest.mark.parametrize(
    ("first", "wait"),
    [("3R0 0R0", Wait.COOL_DOWN), ("0R0 3R0", Wait.ORDER)],
    ids=["the other sum is ahead", "the other sum could run"],
)
def test_waiting_for_a_sum(first, wait):
    """Rank 0 is done with its backwards at 10, rank 1 at 16; the sum of stages 1 and 3 is ready by then."""
    problem = two_directions(per_direction=1, transfer_ticks=0)
    slower = replace(problem, stages=(SUMMED, SUMMED, replace(SUMMED, BW=OpCost(ticks=9)), SUMMED))
    orders = orders_of(f"0F0 3F1 3BW1 0BW0 {first}", "2F1 1F0 1BW0 2BW1 2R0 1R0")
    schedule = schedule_orders(slower, orders)
    assert measure(schedule).makespan == 24
    waits = idle_times(schedule)[0].waits_ticks
    assert waits[wait] == sum(waits.values()) == 6


@settings(max_examples=60)
@given(flows_with_orders())
def test_sums_are_no_transfers(drawn):
    schedule = schedule_orders(*drawn)
    problem = schedule.problem
    found = transfers(schedule)
    assert all(OpKind.R not in (each.producer.kind, each.consumer.kind) for each in found)
    hops = sum(
        problem.stage_to_rank[before] != problem.stage_to_rank[stage]
        for stage, inputs in enumerate(problem.inputs_by_stage)
        for before in inputs
        for _ in set(problem.microbatches_of(before)) & set(problem.microbatches_of(stage))
    )
    assert len(found) == 2 * hops
    starts = {timed.op: timed.start for rank in schedule.ranks for timed in rank}
    assert all(starts[each.consumer] >= each.end for each in found)


# What-if.


@pytest.mark.parametrize("objective", Objective)
def test_a_model_stage_is_faster_in_every_direction_and_slice(objective):
    faster = SUMMED.map_costs(lambda _, cost: replace(cost, ticks=9 * cost.ticks))
    tens = SUMMED.map_costs(lambda _, cost: replace(cost, ticks=10 * cost.ticks))
    problem = replace(two_directions(tens, transfer_ticks=3), objective=objective)
    orders = serial_orders(problem)
    answers = {answer.change: answer for answer in retimed_answers(schedule_orders(problem, orders))}
    changed = replace(problem, stages=(faster, tens, faster, tens))
    value = schedule_orders(changed, orders).value
    assert answers["model stage 0 a tenth faster"].value == value
    assert "stage 0 a tenth faster" not in answers


def test_slices_are_balanced_among_those_of_their_number():
    """The second slice is longer by its nature: balance makes stages alike, not slices."""
    problem = two_slices()
    assert balanced_stages(problem) == problem.stages
    first, second = problem.stages[:2]
    slow = [costs.map_costs(lambda _, cost: replace(cost, ticks=3 * cost.ticks)) for costs in (first, second)]
    uneven = replace(problem, stages=(first, second, *slow))
    means = [
        costs.map_costs(lambda _, cost: replace(cost, ticks=2 * cost.ticks)) for costs in (first, second)
    ]
    assert balanced_stages(uneven) == (*means, *means)
    orders = serial_orders(uneven)
    answers = {answer.change: answer for answer in retimed_answers(schedule_orders(uneven, orders))}
    even = schedule_orders(replace(uneven, stages=(*means, *means)), orders)
    assert answers["every stage as long as their mean"].value == even.value


def test_questions_of_a_flow_keep_its_flow():
    problem = two_directions(STAGE).with_memory_limit(60)
    questions = search_questions(problem)
    assert [question.change for question in questions] == [
        "memory for one more forward on every rank",
        "no memory limit",
        "every link twice as fast",
    ]
    assert all(question.problem.feeds == problem.feeds for question in questions)
