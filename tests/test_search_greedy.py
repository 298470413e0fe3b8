"""The list schedule: complete, free of deadlocks and within whatever limit some schedule fits."""

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.memory import serial_orders, smallest_limits_bytes
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import fits, peak_memory_bytes
from synth.search.greedy import greedy_orders
from synth.timing import schedule_orders
from synth.verify import verify_schedule


@settings(max_examples=250)
@given(problems(max_microbatches=8), st.data())
def test_fits_any_limit_that_something_fits(problem, data):
    if data.draw(st.booleans()):
        more = data.draw(st.tuples(*[st.integers(0, 30)] * problem.num_ranks))
        smallest = smallest_limits_bytes(problem)
        problem = problem.with_memory_limit([a + b for a, b in zip(smallest, more, strict=True)])
    orders = greedy_orders(problem)
    assert fits(problem, peak_memory_bytes(problem, orders))
    assert verify_schedule(schedule_orders(problem, orders)) == []
    assert greedy_orders(problem) == orders


@pytest.mark.parametrize("stage", [DIVIDED, UNDIVIDED, EITHER])
def test_at_the_smallest_limit_one_microbatch_at_a_time(stage):
    problem = two_by_two(stage, num_microbatches=3, memory_limit_bytes=(2, 2))
    assert greedy_orders(problem) == serial_orders(problem)


def test_keeps_a_busy_rank_busy():
    """With time and memory to spare, rank 0 never idles between its forwards."""
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1)
    (first, *_) = schedule_orders(problem, greedy_orders(problem)).ranks
    assert [timed.start for timed in first[:6]] == [0, 2, 4, 6, 8, 10]


def test_what_every_microbatch_leaves_behind():
    """B and W free less than F allocates: each microbatch leaves a byte."""
    stage = StageCosts(F=OpCost(ticks=1, alloc_bytes=3), BW=OpCost(ticks=1, free_bytes=2))
    problem = uniform_problem(2, 5, stage)
    assert smallest_limits_bytes(problem) == (7, 7)
    for limit in (7, 8, 11, 99):
        tight = problem.with_memory_limit(limit)
        assert verify_schedule(schedule_orders(tight, greedy_orders(tight))) == []
