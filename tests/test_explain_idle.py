"""Idle time by cause: it adds up, and small schedules have the causes a reader sees."""

from dataclasses import replace

from builders import DIVIDED, UNDIVIDED, schedule_of, two_by_two
from hypothesis import given
from strategies import problems_with_orders

from synth.baselines import baseline_orders
from synth.explain.idle import Wait, idle_times
from synth.ops import OpKind
from synth.problem import Links, Objective, uniform_problem
from synth.schedule import measure
from synth.timing import schedule_orders


def waits(schedule, rank):
    return {wait: ticks for wait, ticks in idle_times(schedule)[rank].waits_ticks.items() if ticks}


@given(problems_with_orders())
def test_work_and_waits_add_up(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    for ran, idle in zip(schedule.ranks, idle_times(schedule), strict=True):
        span = ran[-1].end - ran[0].start
        whole = measure(schedule).makespan if problem.objective is Objective.MAKESPAN else span
        assert idle.work_ticks + idle.idle_ticks == whole
        assert min(idle.waits_ticks.values()) >= 0


def test_gpipe_waits_in_its_warm_up_alone():
    """Its first rank waits (p-1)(F+BW) between its forwards and its backwards."""
    problem = uniform_problem(4, 6, UNDIVIDED, objective=Objective.RANK_SPAN)
    schedule = schedule_orders(problem, baseline_orders("gpipe", problem))
    assert waits(schedule, 0) == {Wait.WARM_UP: 3 * (2 + 3)}
    assert waits(schedule, 3) == {}


def test_what_keeps_1f1b_from_running_ahead_is_memory_or_the_order():
    problem = uniform_problem(4, 8, UNDIVIDED, objective=Objective.RANK_SPAN)
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    limited = replace(schedule, problem=problem.with_memory_limit(measure(schedule).peak_memory_bytes))
    without, within = waits(schedule, 0), waits(limited, 0)
    assert Wait.MEMORY not in without
    assert Wait.ORDER not in within
    assert without[Wait.ORDER] == within[Wait.MEMORY] > 0


def test_transfers_are_waited_for_while_they_are_on_their_way():
    problem = two_by_two(UNDIVIDED, transfer_ticks=4, num_microbatches=1)
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    assert waits(schedule, 0) == {Wait.WARM_UP: 9, Wait.TRANSFER: 4}
    assert waits(schedule, 1) == {Wait.WARM_UP: 2, Wait.TRANSFER: 4, Wait.COOL_DOWN: 7}


def test_the_queue_for_an_exclusive_link_is_a_transfer_too():
    problem = replace(two_by_two(DIVIDED, transfer_ticks=9, num_microbatches=2), links=Links.EXCLUSIVE)
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    *_, second_forward = (timed.start for timed in schedule.ranks[1] if timed.op.kind is OpKind.F)
    assert second_forward == 2 + 9 + 9
    assert waits(schedule, 1)[Wait.TRANSFER] == 9 + 4


def test_an_op_left_waiting_for_no_reason_is_the_order():
    problem = two_by_two(UNDIVIDED, transfer_ticks=0, num_microbatches=1)
    schedule = schedule_of(problem, "0F0@0 0BW0@10", "1F0@2 1BW0@7")
    assert waits(schedule, 1) == {Wait.WARM_UP: 2, Wait.ORDER: 3, Wait.COOL_DOWN: 3}


def test_an_uneven_stage_keeps_the_others_waiting():
    slow = replace(UNDIVIDED, F=replace(UNDIVIDED.F, ticks=20))
    problem = replace(two_by_two(num_microbatches=6, transfer_ticks=0), stages=(slow, UNDIVIDED))
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    assert waits(schedule, 1)[Wait.IMBALANCE] > 0
