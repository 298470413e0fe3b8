"""When what others store passes: no rank holds more than the document plans, and room is used where it is."""

from itertools import chain

import pytest
from hypothesis import given, settings

from runtime.communication import Message, plan_rank
from runtime.posting import plan_rank_within_memory
from synth.baselines import baseline_schedule
from synth.ops import Op
from synth.problem import OpCost, StageCosts, uniform_problem
from tests.flow_builders import evictions_with_orders
from tests.strategies import problems_with_orders


def stored_bytes(problem, message: Message) -> int:
    return problem.stages[max(message.producer.stage, message.consumer.stage)].F.alloc_bytes


def most_held(problem, order, plan) -> int:
    """What a rank holds at most where receives take their room at once and nothing leaves before it must."""
    level = most = problem.static_bytes_by_rank[0]
    leaving, coming = set(), set()

    def look(more=0):
        nonlocal most
        beside = sum(stored_bytes(problem, message) for message in leaving | coming)
        most = max(most, level + beside + more)

    for op, step in zip(order, plan, strict=True):
        coming |= {message for message in step.posts if message.is_stored}
        look()
        leaving -= set(step.stored.left)
        coming |= set(step.stored.posts)
        look()
        coming.discard(step.stored.awaits)
        cost = problem.stages[op.stage].cost(op.kind)
        look(cost.alloc_bytes)
        level += cost.alloc_bytes - cost.free_bytes
        if step.stored.sends is not None:
            leaving.add(step.stored.sends)
        look()
    return most


def document_peak(problem, order) -> int:
    level = most = 0
    for op in order:
        cost = problem.stages[op.stage].cost(op.kind)
        most = max(most, level + cost.alloc_bytes)
        level += cost.alloc_bytes - cost.free_bytes
    return most


def bpipe(num_ranks, num_microbatches, more_bytes=None):
    stage = StageCosts(F=OpCost(ticks=4, alloc_bytes=2), BW=OpCost(ticks=8, free_bytes=2))
    schedule = baseline_schedule(
        "bpipe", uniform_problem(num_ranks, num_microbatches, stage, transfer_ticks=1)
    )
    problem, orders = schedule.problem, schedule.orders
    if more_bytes is not None:
        peaks = [document_peak(problem, order) + more_bytes for order in orders]
        problem = problem.with_memory_limit(peaks)
    return problem, orders


@pytest.mark.parametrize("num_ranks", range(4, 9))
def test_no_rank_holds_more_than_planned(num_ranks):
    problem, orders = bpipe(num_ranks, 2 * num_ranks)
    for rank, order in enumerate(orders):
        plan = plan_rank_within_memory(problem, orders, rank)
        assert most_held(problem, order, plan) == document_peak(problem, order)


def test_room_is_used_to_overlap():
    """With room for all everything passes as it does where nothing is stored."""
    problem, orders = bpipe(4, 8, more_bytes=100)
    for rank in range(4):
        plan = plan_rank_within_memory(problem, orders, rank)
        assert not any(step.stored.left or step.stored.posts for step in plan)
        assert [step.posts for step in plan] == [step.posts for step in plan_rank(problem, orders, rank)]


def test_room_for_one_microbatch_more_overlaps_what_comes_back():
    problem, orders = bpipe(4, 8, more_bytes=2)
    at = {str(step.op): step for step in plan_rank_within_memory(problem, orders, 0)}
    assert "2BW3" in [str(message.producer) for message in at["1F6"].stored.posts]


def test_what_comes_takes_the_place_of_what_has_left():
    """By hand: rank 0 may hold one microbatch beside the two it keeps."""
    problem, orders = bpipe(4, 8)
    steps = {str(step.op): step for step in plan_rank_within_memory(problem, orders, 0)}
    assert [str(message.producer) for message in steps["1F3"].stored.left] == ["1F2"]
    assert [str(message.producer) for message in steps["1BW3"].stored.left] == ["1F6"]
    assert [str(message.producer) for message in steps["1BW3"].stored.posts] == ["2BW3"]
    assert steps["1BW3"].stored.awaits == steps["1BW3"].stored.posts[0]
    assert steps["1F6"].stored.sends.consumer == Op.parse("2F6")


@given(problems_with_orders())
@settings(deadline=None)
def test_without_storage_nothing_changes(drawn):
    problem, orders = drawn
    for rank in range(problem.num_ranks):
        assert plan_rank_within_memory(problem, orders, rank) == plan_rank(problem, orders, rank)


@given(evictions_with_orders())
@settings(deadline=None)
def test_every_message_is_posted_once_and_before_it_is_needed(drawn):
    problem, orders = drawn
    for rank in range(problem.num_ranks):
        plan = plan_rank_within_memory(problem, orders, rank)
        posted = set()
        for step in plan:
            now = [*step.posts, *step.stored.posts]
            assert not posted & set(now)
            posted |= set(now)
            assert {step.awaits, step.stored.awaits} - {None} <= posted
        base = plan_rank(problem, orders, rank)
        assert posted == set(chain.from_iterable(step.posts for step in base))
        for step in plan:
            for message in step.stored.left:
                assert message.is_stored
                assert message.sender == rank
