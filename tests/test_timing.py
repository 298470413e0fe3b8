"""Earliest times: examples by hand, deadlocks told, any size of tick."""

import numpy as np
import pytest
from builders import DIVIDED, EITHER, good_schedule, orders_of, schedule_of, two_by_two
from exhaustive import timed_orders
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems, problems_with_orders

from synth.errors import DeadlockError, InvalidOrdersError, WaitingRank
from synth.graph import build_graph, divided_in_orders
from synth.problem import Links, OpCost, StageCosts, uniform_problem
from synth.schedule import measure
from synth.timing import earliest_starts, schedule_orders
from synth.verify import verify_schedule

GOOD_ORDERS = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")


def test_hand_sized():
    assert schedule_orders(two_by_two(), GOOD_ORDERS) == good_schedule()


def test_one_rank_never_waits():
    problem = uniform_problem(1, 3, DIVIDED, transfer_ticks=9)
    schedule = schedule_orders(problem, orders_of("0F0 0F1 0B0 0F2 0B1 0W0 0W1 0B2 0W2"))
    starts = [timed.start for timed in schedule.ranks[0]]
    assert starts == [0, 2, 4, 6, 8, 10, 11, 12, 14]
    assert measure(schedule).makespan == problem.work_ticks == 15


def test_one_microbatch_runs_down_and_up():
    problem = uniform_problem(3, 1, DIVIDED, transfer_ticks=10)
    schedule = schedule_orders(problem, orders_of("0F0 0B0 0W0", "1F0 1B0 1W0", "2F0 2B0 2W0"))
    assert schedule == schedule_of(
        problem, "0F0@0 0B0@50 0W0@52", "1F0@12 1B0@38 1W0@40", "2F0@24 2B0@26 2W0@28"
    )


@pytest.mark.parametrize("scale", [1, 10**9])
@pytest.mark.parametrize("num_microbatches", [1, 5])
def test_gpipe_closed_form(scale, num_microbatches):
    """On one rank per stage with whole backwards: (m + p - 1)(F + BW) + 2 (p - 1) c."""
    p, m, c = 4, num_microbatches, 3
    stage = StageCosts(F=OpCost(ticks=5 * scale), BW=OpCost(ticks=9 * scale))
    problem = uniform_problem(p, m, stage, transfer_ticks=c * scale)
    ranks = [[f"{s}F{i}" for i in range(m)] + [f"{s}BW{i}" for i in range(m)] for s in range(p)]
    makespan = measure(schedule_orders(problem, orders_of(*map(" ".join, ranks)))).makespan
    assert makespan == ((m + p - 1) * 14 + 2 * (p - 1) * c) * scale


def test_huge_ticks_do_not_overflow():
    tera = 10**12
    stage = StageCosts(F=OpCost(ticks=2 * tera), B=OpCost(ticks=2 * tera), W=OpCost(ticks=tera))
    huge = schedule_orders(two_by_two(stage, transfer_ticks=tera), GOOD_ORDERS)
    for rank, small in zip(huge.ranks, good_schedule().ranks, strict=True):
        assert [(t.start, t.end) for t in rank] == [(s.start * tera, s.end * tera) for s in small]


def test_releases():
    problem = two_by_two()
    assert schedule_orders(problem, GOOD_ORDERS, release_ticks=(0, 3)) == good_schedule()
    late = schedule_orders(problem, GOOD_ORDERS, release_ticks=(4, 20))
    assert [timed.start for timed in late.ranks[0]] == [4, 6, 25, 27, 29, 31]
    assert [timed.start for timed in late.ranks[1]] == [20, 22, 24, 26, 28, 29]


@pytest.mark.parametrize(
    ("links", "starts"), [(Links.FREE, [6, 8, 10, 12, 14, 15]), (Links.EXCLUSIVE, [6, 10, 12, 14, 16, 17])]
)
def test_links(links, starts):
    """Two transfers of 4 ticks, the second ready at 4: alone on its link only from 6."""
    orders = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1F1 1B0 1B1 1W0 1W1")
    schedule = schedule_orders(two_by_two(transfer_ticks=4, links=links), orders)
    assert [timed.start for timed in schedule.ranks[1]] == starts


def test_exclusive_links_are_one_way_and_per_pair():
    """Forwards to rank 1 and gradients back do not hinder each other."""
    free = two_by_two(transfer_ticks=2, num_microbatches=3)
    exclusive = two_by_two(transfer_ticks=2, num_microbatches=3, links=Links.EXCLUSIVE)
    orders = orders_of("0F0 0F1 0B0 0F2 0B1 0W0 0B2 0W1 0W2", "1F0 1B0 1F1 1B1 1F2 1B2 1W0 1W1 1W2")
    assert schedule_orders(free, orders).ranks == schedule_orders(exclusive, orders).ranks


@settings(max_examples=60)
@given(problems_with_orders())
def test_nothing_can_start_earlier(drawn):
    """Every op starts at 0, when its rank's last op ends, or when an input arrives."""
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    assert schedule.orders == orders
    assert verify_schedule(schedule) == []
    if problem.links is Links.FREE:
        graph = build_graph(problem, divided_in_orders(problem, orders))
        ids = graph.orders_to_ids(orders)
        starts = {timed.op: timed.start for rank in schedule.ranks for timed in rank}
        for rank in ids:
            rank_free = 0
            for n in rank:
                ready = [starts[graph.op(a)] + graph.ticks[a] + lag for a, lag in graph.predecessors(n)]
                assert starts[graph.op(n)] == max([rank_free, *ready])
                rank_free = starts[graph.op(n)] + graph.ticks[n]


@settings(max_examples=12)
@given(problems(max_ranks=2, max_chunks=1, max_microbatches=2))
def test_equals_plain_python_over_all_orders(problem):
    for number, (orders, starts) in enumerate(timed_orders(problem)):
        schedule = schedule_orders(problem, orders)
        assert {timed.op: timed.start for rank in schedule.ranks for timed in rank} == starts
        if number == 100:
            break


@settings(max_examples=30)
@given(problems_with_orders(max_microbatches=3), st.integers(1, 10**9))
def test_other_ticks_in_place_of_the_graph_s(drawn, scale):
    problem, orders = drawn
    graph = build_graph(problem, divided_in_orders(problem, orders))
    ids = graph.orders_to_ids(orders)
    plain = earliest_starts(graph, ids)
    assert (earliest_starts(graph, ids, ticks=graph.ticks) == plain).all()
    longer = earliest_starts(graph, ids, ticks=graph.ticks * scale)
    assert (longer >= plain).all()
    assert (longer <= plain * scale).all()
    assert plain.dtype == np.int64


def test_deadlock_names_each_rank_s_next_op_and_what_it_waits_for():
    orders = orders_of("0F0 0B1 0F1 0W1 0B0 0W0", "1F0 1F1 1B0 1W0 1B1 1W1")
    with pytest.raises(DeadlockError, match="the orders deadlock: rank 0 is at 0B1") as caught:
        schedule_orders(two_by_two(), orders)
    assert caught.value.waiting == (
        WaitingRank(0, "0B1", ("0F1", "1B1")),
        WaitingRank(1, "1F1", ("0F1",)),
    )
    assert "rank 1 is at 1F1, which waits for 0F1. Move one of the awaited ops ahead" in str(caught.value)


def test_a_rank_that_is_done_waits_for_nothing():
    stage = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=1))
    orders = orders_of("2F0 2BW0", "0F0 1BW0 1F0 0BW0")
    problem = two_by_two(stage, num_microbatches=1, stage_to_rank=(1, 1, 0))
    with pytest.raises(DeadlockError) as caught:
        schedule_orders(problem, orders)
    assert caught.value.waiting == (WaitingRank(0, "2F0", ("1F0",)), WaitingRank(1, "1BW0", ("1F0", "2BW0")))
    with pytest.raises(DeadlockError) as caught:
        schedule_orders(
            two_by_two(stage, num_microbatches=2), orders_of("0F0 0F1 0BW1 0BW0", "1F0 1BW0 1BW1 1F1")
        )
    assert [str(waiting) for waiting in caught.value.waiting] == [
        "rank 0 is at 0BW1, which waits for 1BW1",
        "rank 1 is at 1BW1, which waits for 1F1",
    ]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (("0F0 0F1 0B0 0W0 0B1", "1F0 1B0 1F1 1B1 1W0 1W1"), "0W1"),
        (("0F0 0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1"), "rank 0 runs 0F0 twice"),
        (("0F0 0F1 0B0 0W0 0B1 0W1 1F0", "1B0 1F1 1B1 1W0 1W1"), "rank 0 runs 1F0, which belongs on rank 1"),
        (("0F0 0F1 0B0 0W0 0B1 0W1 9F0", "1F0 1B0 1F1 1B1 1W0 1W1"), "rank 0 runs 9F0, which the problem"),
        (("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1 1F2"), "rank 1 runs 1F2, which the problem"),
    ],
)
def test_orders_that_do_not_hold_the_problem_s_ops(ranks, message):
    for stage in (DIVIDED, EITHER):
        with pytest.raises(InvalidOrdersError, match=message):
            schedule_orders(two_by_two(stage), orders_of(*ranks))
