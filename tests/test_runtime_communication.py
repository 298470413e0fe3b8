"""The plan of sends and receives, without any process: what it holds, and that it cannot stall."""

from collections import defaultdict
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.communication import global_order, plan_messages, plan_rank
from runtime.posting import plan_rank_within_memory
from runtime.routes import Routes
from synth.baselines import baseline_orders
from synth.errors import DeadlockError, InvalidOrdersError
from synth.graph import build_graph, divided_in_orders
from synth.instances import load_instance
from synth.ops import Op, OpKind
from synth.problem import Links
from synth.timing import schedule_orders
from tests.builders import DIVIDED, orders_of, two_by_two
from tests.flow_builders import (
    SUMMED,
    evictions_with_orders,
    flows_with_orders,
    random_orders,
    two_directions,
)
from tests.strategies import problems_with_orders

DRAWN = st.one_of(problems_with_orders(), flows_with_orders(), evictions_with_orders())


def plans(problem, orders):
    return [plan_rank_within_memory(problem, orders, rank) for rank in range(problem.num_ranks)]


@given(st.one_of(problems_with_orders(links=(Links.FREE,)), flows_with_orders()))
@settings(deadline=None)
def test_global_order_has_the_times_of_the_planner(drawn):
    problem, orders = drawn
    timed = {timed.op: timed for rank in schedule_orders(problem, orders).ranks for timed in rank}
    found = global_order(problem, orders)
    assert {item.op: item for item in found} == timed
    assert [item.start for item in found] == sorted(item.start for item in found)


@given(DRAWN)
@settings(deadline=None)
def test_messages_are_the_edges_between_ranks(drawn):
    problem, orders = drawn
    graph = build_graph(problem, divided_in_orders(problem, orders))
    edges = {
        (graph.op(producer), graph.op(consumer))
        for consumer in range(graph.num_ops)
        for producer, _ in graph.predecessors(consumer)
        if graph.rank[producer] != graph.rank[consumer] and graph.op(consumer).kind is not OpKind.R
    }
    messages = plan_messages(problem, [timed.op for timed in global_order(problem, orders)])
    assert {(message.producer, message.consumer) for message in messages} == edges
    assert len(messages) == len(edges)


@given(DRAWN)
@settings(deadline=None)
def test_both_sides_of_every_direction_have_the_same_sequence(drawn):
    problem, orders = drawn
    sent, posted = {}, {}
    for rank, plan in enumerate(plans(problem, orders)):
        assert tuple(step.op for step in plan) == orders[rank]
        for step in plan:
            for message in (*step.posts, *step.stored.posts):
                posted.setdefault((message.sender, rank), []).append(message)
            for message in sends(step):
                sent.setdefault((rank, message.receiver), []).append(message)
    assert sent == posted


def sends(step):
    return [message for message in (step.sends, step.stored.sends) if message is not None]


def leave(queues, posted, sent):
    """Let go what its receiver is ready for."""
    for queue in queues.values():
        while queue and queue[0] in posted:
            sent.add(queue.pop(0))


@given(DRAWN)
@settings(deadline=None)
def test_nothing_stalls_even_where_every_send_waits_for_its_receive(drawn):
    """The strictest network: a message leaves only when its receive is posted, one after the other."""
    problem, orders = drawn
    ranks = plans(problem, orders)
    position, posted, sent = [0] * len(ranks), set(), set()
    queues = {}  # by direction: sends handed over, in order
    handed, so_far = defaultdict(list), {}  # a rank waits for a departure and all those before
    moved = True
    while moved:
        moved = False
        for rank, plan in enumerate(ranks):
            if position[rank] == len(plan):
                continue
            step = plan[position[rank]]
            posted |= set(step.posts)
            leave(queues, posted, sent)
            if not all(before in sent for message in step.stored.left for before in so_far[rank, message]):
                continue
            posted |= set(step.stored.posts)
            leave(queues, posted, sent)
            if {step.awaits, step.stored.awaits} - {None} <= sent:
                for message in sends(step):
                    handed[rank].append(message)
                    so_far[rank, message] = tuple(handed[rank])
                    queues.setdefault((rank, message.receiver), []).append(message)
                position[rank] += 1
                moved = True
    assert position == [len(plan) for plan in ranks]
    assert not any(queues.values())


@given(DRAWN)
@settings(deadline=None)
def test_a_sum_starts_once_on_every_holder_behind_all_that_adds_to_it(drawn):
    problem, orders = drawn
    routes = Routes(problem)
    for rank, plan in enumerate(plans(problem, orders)):
        assert sorted(stage for step in plan for stage in step.sums) == list(routes.held_by(rank))
        for n, step in enumerate(plan):
            for later in plan[n + 1 :]:
                adds = later.op.kind in (OpKind.W, OpKind.BW, OpKind.R)
                assert not (adds and routes.model_stage(later.op.stage) in step.sums)


@given(DRAWN)
@settings(deadline=None)
def test_sums_start_at_once_on_the_rank_that_is_last_and_in_one_order_on_all(drawn):
    """No two ranks have two sums in different orders, and none waits for a sum that is not ready itself."""
    problem, orders = drawn
    routes = Routes(problem)
    started = [[stage for step in plan for stage in step.sums] for plan in plans(problem, orders)]
    for one, other in combinations(started, 2):
        common = set(one) & set(other)
        assert [stage for stage in one if stage in common] == [stage for stage in other if stage in common]
    place = {timed.op: n for n, timed in enumerate(global_order(problem, orders))}
    parts = {}
    for op, n in place.items():
        if op.kind in (OpKind.W, OpKind.BW, OpKind.R):
            parts.setdefault(routes.model_stage(op.stage), []).append(n)
    for plan in plans(problem, orders):
        for step in plan:
            for stage in step.sums:
                assert place[step.op] <= max(parts[stage])


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


def test_ops_that_a_flow_lacks_or_misses_are_named():
    problem = two_directions(2, 1, SUMMED)
    orders = list(map(list, random_orders(problem, 1)))
    foreign, doubled = Op(OpKind.F, 0, 1), Op(OpKind.R, 0, 1)
    for op in (foreign, doubled):
        with pytest.raises(InvalidOrdersError, match=f"rank 0 runs {op}, which the problem lacks"):
            plan_rank(problem, ((*orders[0], op), tuple(orders[1])), 0)
    orders[0].remove(Op(OpKind.R, 0, 0))
    with pytest.raises(InvalidOrdersError, match="no rank runs 0R0"):
        plan_rank(problem, tuple(map(tuple, orders)), 0)


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
