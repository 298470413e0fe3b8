"""The plan of sends and receives, without any process: what it holds, and that it cannot stall."""

import pytest
from hypothesis import given, settings

from runtime.communication import global_order, plan_messages, plan_rank
from synth.baselines import baseline_orders
from synth.errors import DeadlockError, InvalidOrdersError
from synth.graph import build_graph, divided_in_orders
from synth.instances import load_instance
from synth.ops import Op, OpKind
from synth.problem import Links
from synth.timing import schedule_orders
from tests.builders import DIVIDED, orders_of, two_by_two
from tests.strategies import problems_with_orders


def plans(problem, orders):
    return [plan_rank(problem, orders, rank) for rank in range(problem.num_ranks)]


@given(problems_with_orders(links=(Links.FREE,)))
@settings(deadline=None)
def test_global_order_has_the_times_of_the_planner(drawn):
    problem, orders = drawn
    timed = {timed.op: timed for rank in schedule_orders(problem, orders).ranks for timed in rank}
    found = global_order(problem, orders)
    assert {item.op: item for item in found} == timed
    assert [item.start for item in found] == sorted(item.start for item in found)


@given(problems_with_orders())
@settings(deadline=None)
def test_messages_are_the_edges_between_ranks(drawn):
    problem, orders = drawn
    graph = build_graph(problem, divided_in_orders(problem, orders))
    edges = {
        (graph.op(producer), graph.op(consumer))
        for consumer in range(graph.num_ops)
        for producer, _ in graph.predecessors(consumer)
        if graph.rank[producer] != graph.rank[consumer]
    }
    messages = plan_messages(problem, [timed.op for timed in global_order(problem, orders)])
    assert {(message.producer, message.consumer) for message in messages} == edges
    assert len(messages) == len(edges)


@given(problems_with_orders())
@settings(deadline=None)
def test_both_sides_of_every_direction_have_the_same_sequence(drawn):
    problem, orders = drawn
    sent, posted = {}, {}
    for rank, plan in enumerate(plans(problem, orders)):
        assert tuple(step.op for step in plan) == orders[rank]
        for step in plan:
            for message in step.posts:
                posted.setdefault((message.sender, rank), []).append(message)
            if step.sends:
                sent.setdefault((rank, step.sends.receiver), []).append(step.sends)
    assert sent == posted


@given(problems_with_orders())
@settings(deadline=None)
def test_nothing_stalls_even_where_every_send_waits_for_its_receive(drawn):
    """The strictest network: a message leaves only when its receive is posted, one after the other."""
    problem, orders = drawn
    ranks = plans(problem, orders)
    position, posted, sent = [0] * len(ranks), set(), set()
    queues = {}  # by direction: sends handed over, in order
    moved = True
    while moved:
        moved = False
        for rank, plan in enumerate(ranks):
            if position[rank] == len(plan):
                continue
            step = plan[position[rank]]
            posted |= set(step.posts)
            for queue in queues.values():
                while queue and queue[0] in posted:
                    sent.add(queue.pop(0))
            if step.awaits is None or step.awaits in sent:
                if step.sends:
                    queues.setdefault((rank, step.sends.receiver), []).append(step.sends)
                position[rank] += 1
                moved = True
    assert position == [len(plan) for plan in ranks]
    assert not any(queues.values())


@given(problems_with_orders())
@settings(deadline=None)
def test_last_op_that_adds_to_a_stage_is_marked_once(drawn):
    problem, orders = drawn
    for plan in plans(problem, orders):
        ends = [stage for step in plan for stage in step.sums]
        assert sorted(ends) == sorted({step.op.stage for step in plan})
        for n, step in enumerate(plan):
            if step.sums:
                assert step.sums == (step.op.stage,)
                assert all(
                    later.op.stage != step.op.stage or later.op.kind is OpKind.F for later in plan[n + 1 :]
                )


def test_receives_are_posted_while_their_message_is_made():
    problem = load_instance("zb-1.5b-m24")
    orders = baseline_orders("1f1b", problem)
    times = {timed.op: timed for rank in schedule_orders(problem, orders).ranks for timed in rank}
    for plan in plans(problem, orders):
        for before, step in zip((None, *plan), plan, strict=False):
            for message in step.posts:
                assert times[step.op].end > times[message.producer].start
                assert before is None or times[before.op].end <= times[message.producer].start


WRONG = {
    "missing": ("0F0 0F1 0B0 0W0 0B1", "1F0 1B0 1F1 1B1 1W0 1W1", "of 0B1, 0W1 and 0BW1 0B1 is run"),
    "forward missing": ("0F0 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1", "no rank runs 0F1"),
    "twice": ("0F0 0F0", "1F0", "rank 0 runs 0F0 twice"),
    "elsewhere": ("0F0 1F0", "1F0", "rank 0 runs 1F0, which belongs on rank 1"),
    "absent": ("0F0 0F7", "1F0", "rank 0 runs 0F7, which the problem lacks"),
    "not offered": ("0F0 0BW0", "1F0", "rank 0 runs 0BW0, which its stage's costs do not offer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_orders_are_named(name):
    *ranks, says = WRONG[name]
    with pytest.raises(InvalidOrdersError, match=says):
        plan_rank(two_by_two(DIVIDED), orders_of(*ranks), 0)


def test_orders_that_wait_for_one_another_are_named():
    orders = orders_of("0F0 0B0 0W0 0F1 0B1 0W1", "1F1 1B1 1W1 1F0 1B0 1W0")
    with pytest.raises(DeadlockError) as caught:
        plan_rank(two_by_two(DIVIDED), orders, 0)
    assert [(w.rank, w.next_op, w.waits_for) for w in caught.value.waiting] == [
        (0, "0B0", ("1B0",)),
        (1, "1F1", ("0F1",)),
    ]


def test_a_message_is_an_activation_or_a_gradient():
    problem, orders = two_by_two(DIVIDED), orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")
    first = plan_rank(problem, orders, 1)[0]
    assert first.awaits.producer == Op(OpKind.F, 0, 0)
    assert plan_rank(problem, orders, 1)[1].sends.producer.kind is not OpKind.F
