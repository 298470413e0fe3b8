"""Measured steps as schedules: nanoseconds to ticks."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from synth.measured import MeasuredOp, Timeline
from synth.schedule import measure
from synth.timing import schedule_orders
from tests.builders import good_schedule


def as_measured(schedule, *, tick_ns=1000, begin_ns=0, late_ns=0):
    """The timeline of a step that ran as planned, every op ending later by so much."""
    ranks = tuple(
        tuple(
            MeasuredOp(op, begin_ns + tick_ns * start, begin_ns + tick_ns * end + late_ns)
            for op, start, end in rank
        )
        for rank in schedule.ranks
    )
    return Timeline(problem=schedule.problem, ranks=ranks)


def late_starts(timeline, late_ns):
    """The same step, every op starting later by so much in the time that it takes."""
    ranks = tuple(
        tuple(ran._replace(start_ns=ran.start_ns + late_ns) for ran in rank) for rank in timeline.ranks
    )
    return replace(timeline, ranks=ranks)


def replace_ticks(schedule, times):
    """The same orders on a problem in which everything takes so many times its ticks."""
    problem = schedule.problem
    longer = replace(
        problem,
        stages=tuple(
            costs.map_costs(lambda _, cost: replace(cost, ticks=times * cost.ticks))
            for costs in problem.stages
        ),
        transfer_ticks=tuple(tuple(times * ticks for ticks in row) for row in problem.transfer_ticks),
    )
    return schedule_orders(longer, schedule.orders)


@given(st.integers(0, 10**15), st.integers(-499, 499))
def test_step_that_ran_as_planned_is_the_schedule(begin_ns, late_ns):
    """Whenever it began, and less than half a tick off."""
    plan = good_schedule()
    timeline = as_measured(plan, begin_ns=begin_ns, late_ns=late_ns)
    assert timeline.schedule == plan
    assert timeline.orders == plan.orders


def test_ticks_have_the_length_that_the_problem_gives_them():
    plan = good_schedule()
    slow = replace(plan.problem, tick_seconds=1e-3)
    timeline = replace(as_measured(plan, tick_ns=1_000_000), problem=slow)
    assert measure(timeline.schedule) == measure(plan)
