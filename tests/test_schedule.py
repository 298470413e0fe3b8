"""What a schedule achieves: metrics to the tick, peaks by walking the order."""

import pytest
from builders import good_schedule, orders_of, schedule_of, two_by_two
from hypothesis import given, settings
from strategies import problems_with_orders

from synth.problem import Objective, OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import Metrics, fits, measure, peak_memory_bytes
from synth.timing import schedule_orders

STAGGERED = "0F0@5 0B0@14 0W0@16", "1F0@8 1B0@10 1W0@12"
"""Rank 0 spans 5 to 17, rank 1 spans 8 to 13."""


@pytest.mark.parametrize(("objective", "bubble"), [("makespan", 1 - 10 / 15), ("rank_span", 1 - 10 / 15)])
def test_metrics_by_hand(objective, bubble):
    schedule = good_schedule(two_by_two(objective=Objective(objective)))
    assert measure(schedule) == Metrics(15, 15, 10, bubble, (4, 3))
    assert schedule.value == 15


def test_time_counts_from_the_first_start():
    schedule = schedule_of(two_by_two(num_microbatches=1), *STAGGERED)
    assert measure(schedule) == Metrics(12, 12, 5, 1 - 5 / 12, (2, 2))


@pytest.mark.parametrize(("objective", "value"), [(Objective.MAKESPAN, 16), (Objective.RANK_SPAN, 12)])
def test_the_two_objectives_differ_by_staggered_ranks(objective, value):
    """Rank 0 spans 0 to 12, rank 1 spans 4 to 16: one more tick on rank 1's last op shows in both."""
    problem = two_by_two(num_microbatches=1, objective=objective)
    ranks = "0F0@0 0B0@9 0W0@11", "1F0@4 1B0@6 1W0@15"
    schedule = schedule_of(problem, *ranks)
    assert measure(schedule).value(objective) == schedule.value == value
    assert measure(schedule).bubble_ratio == 1 - 5 / value
    later = schedule_of(problem, ranks[0], ranks[1].replace("1W0@15", "1W0@16"))
    assert later.value == value + 1
    assert measure(later).bubble_ratio == 1 - 5 / (value + 1)
    sooner = schedule_of(problem, ranks[0], ranks[1].replace("1W0@15", "1W0@14"))
    assert sooner.value == (15 if objective is Objective.MAKESPAN else 12)


def test_work_is_what_is_run_not_the_least():
    slow = StageCosts(F=OpCost(ticks=2), B=OpCost(ticks=9), W=OpCost(ticks=9), BW=OpCost(ticks=3))
    problem = uniform_problem(1, 1, slow)
    divided = measure(schedule_orders(problem, orders_of("0F0 0B0 0W0")))
    whole = measure(schedule_orders(problem, orders_of("0F0 0BW0")))
    assert (divided.work, whole.work) == (20, 5)
    assert divided.bubble_ratio == whole.bubble_ratio == 0


def test_peak_counts_an_op_s_own_allocation_and_static_bytes():
    stage = StageCosts(
        F=OpCost(ticks=1, alloc_bytes=10),
        B=OpCost(ticks=1, alloc_bytes=3, free_bytes=4),
        W=OpCost(ticks=1, alloc_bytes=1, free_bytes=10),
        static_bytes=100,
    )
    problem = uniform_problem(1, 2, stage)
    assert peak_memory_bytes(problem, orders_of("0F0 0B0 0W0 0F1 0B1 0W1")) == (113,)
    assert peak_memory_bytes(problem, orders_of("0F0 0F1 0B0 0B1 0W0 0W1")) == (123,)
    assert peak_memory_bytes(problem, orders_of("0F0 0B0 0F1 0B1 0W0 0W1")) == (122,)
    assert peak_memory_bytes(problem, orders_of("")) == (100,)


def test_freeing_more_than_was_held_is_counted_as_it_is():
    stage = StageCosts(F=OpCost(ticks=1, alloc_bytes=2), BW=OpCost(ticks=1, free_bytes=5))
    problem = uniform_problem(1, 2, stage)
    assert peak_memory_bytes(problem, orders_of("0F0 0BW0 0F1 0BW1")) == (2,)
    assert peak_memory_bytes(problem, orders_of("0F0 0F1 0BW0 0BW1")) == (4,)


def test_limits_are_met_exactly():
    problem = two_by_two(memory_limit_bytes=(4, 3))
    assert fits(problem, (4, 3))
    assert not fits(problem, (5, 3))
    assert not fits(problem, (4, 4))
    assert fits(two_by_two(), (10**18, 10**18))


def moments_peak(problem: Problem, schedule, rank: int) -> int:
    """The peak from the times: at every start, what ops started by then allocated and ops ended freed."""
    ops = [(timed, problem.stages[timed.op.stage].cost(timed.op.kind)) for timed in schedule.ranks[rank]]
    static = problem.static_bytes_by_rank[rank]
    return max(
        static
        + sum(cost.alloc_bytes for timed, cost in ops if timed.start <= now)
        - sum(cost.free_bytes for timed, cost in ops if timed.end <= now)
        for now in [timed.start for timed, _ in ops]
    )


@settings(max_examples=100)
@given(problems_with_orders())
def test_metrics_from_the_definition(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    metrics = measure(schedule)
    everything = [timed for rank in schedule.ranks for timed in rank]
    assert metrics.makespan == max(t.end for t in everything) - min(t.start for t in everything)
    spans = [max(t.end for t in rank) - min(t.start for t in rank) for rank in schedule.ranks]
    assert metrics.rank_span == max(spans) <= metrics.makespan
    assert metrics.work == max(sum(t.end - t.start for t in rank) for rank in schedule.ranks)
    assert problem.work_ticks <= metrics.work <= metrics.rank_span
    assert metrics.bubble_ratio == 1 - metrics.work / schedule.value
    assert metrics.peak_memory_bytes == tuple(
        moments_peak(problem, schedule, rank) for rank in range(problem.num_ranks)
    )


def test_orders_are_kept():
    schedule = good_schedule()
    assert schedule.orders == orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")
