"""Replays of flows: as timed in the ideal setting, and over networks by hand."""

from dataclasses import replace

import pytest
from builders import orders_of
from flow_cases import any_flows, flows_with_orders
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import link, one_node, two_nodes
from test_flows import STAGE, SUMMED, random_orders, two_directions, two_slices

from synth.errors import InputError, InvalidOrdersError
from synth.feed import Feed
from synth.memory import serial_orders
from synth.ops import Op
from synth.problem import Links, OpCost, StageCosts, uniform_problem
from synth.simulate import (
    network_over,
    planned_network,
    replay,
    replay_with_jitter,
    simulate_orders,
    simulate_over,
)
from synth.timing import schedule_orders
from synth.topology import AllReduce, SharedBy, Topology, TransferBytes
from synth.verify import verify_schedule

UNDIVIDED = StageCosts(F=OpCost(ticks=2), BW=OpCost(ticks=3))
AHEAD_AND_BACK = orders_of("0F0 3F1 3BW1 0BW0", "2F1 1F0 1BW0 2BW1")
"""Stages 0 and 1 are direction 0 on ranks 0 and 1, stages 2 and 3 direction 1 on ranks 1 and 0."""


@settings(max_examples=200)
@given(flows_with_orders())
def test_directions_and_slices_agree_with_timing(drawn):
    problem, orders = drawn
    timed = schedule_orders(problem, orders)
    simulated = simulate_orders(problem, orders)
    assert simulated == timed
    assert verify_schedule(simulated) == []
    assert replay(timed) == timed


@settings(max_examples=200)
@given(any_flows(), st.integers(0, 2**32))
def test_any_flow_agrees_with_timing(problem, seed):
    orders = random_orders(problem, seed)
    assert simulate_orders(problem, orders) == schedule_orders(problem, orders)
    overlapping = simulate_over(planned_network(problem), problem, orders)
    assert all(delivery.consumer.kind != "R" for delivery in overlapping.deliveries)


@settings(max_examples=50)
@given(flows_with_orders(), st.integers(0, 9))
def test_jitter_without_noise_is_the_replay(drawn, seed):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    assert set(replay_with_jitter(schedule, sigma=0, samples=3, seed=seed).values) == {schedule.value}


def serial(problem):
    return [[str(op) for op in order] for order in serial_orders(problem)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda order: [op for op in order if op != "0R0"], "no rank runs 0R0"),
        (lambda order: [*order, "0R0"], "rank 0 runs 0R0 twice"),
        (lambda order: [*order, "0R1"], "rank 0 runs 0R1, which the problem lacks"),
        (lambda order: [*order, "0F2"], "rank 0 runs 0F2, which the problem lacks"),
        (lambda order: [op for op in order if op != "0F1"], "no rank runs 0F1"),
    ],
)
def test_orders_that_do_not_hold_a_flows_ops_are_refused(change, says):
    problem = two_directions()
    orders = serial(problem)
    orders[0] = change(orders[0])
    with pytest.raises(InvalidOrdersError, match=says):
        simulate_orders(problem, tuple(tuple(map(Op.parse, order)) for order in orders))


# What travels.


def over(problem, topology, orders, **options):
    return simulate_over(network_over(topology, problem, **options), problem, orders)


def test_each_direction_sends_what_crosses_its_boundary():
    """Of three model stages the boundaries carry 5 and 7 bytes; direction 1 passes them from rank 2 on."""
    problem = two_directions(UNDIVIDED, num_ranks=3, per_direction=1)
    sizes = TransferBytes(activation=(5, 7), gradient=(11, 13))
    network = network_over(one_node(3, link()), problem, transfer_bytes=sizes)
    ticks = {hop: route.ticks for hop, route in network.routes.items()}
    up = {(0, 1): 5, (1, 2): 7, (3, 4): 5, (4, 5): 7}
    down = {(1, 0): 11, (2, 1): 13, (4, 3): 11, (5, 4): 13}
    assert ticks == up | down
    assert network.routes[1, 2].channels == ("rank 1 → rank 2",)
    assert network.routes[4, 5].channels == ("rank 1 → rank 0",)


def test_slices_share_the_bytes_of_their_microbatch():
    problem = two_slices()
    sizes = TransferBytes(activation=9, gradient=4)
    network = network_over(one_node(2, link()), problem, transfer_bytes=sizes)
    ticks = {hop: route and route.ticks for hop, route in network.routes.items()}
    assert ticks[0, 2] + ticks[1, 3] == 9
    assert (ticks[0, 2], ticks[1, 3], ticks[2, 0], ticks[3, 1]) == (4, 5, 2, 2)
    assert ticks[0, 1] is ticks[1, 0] is None, "slices of one stage are on one rank"


def test_sizes_are_given_for_the_boundaries_of_the_model():
    with pytest.raises(InputError, match="activation_bytes is 3 long: give one number, or 1, one per bound"):
        network_over(
            one_node(2, link()), two_slices(), transfer_bytes=TransferBytes(activation=(1, 2, 3), gradient=0)
        )
    reduce = AllReduce(replicas=2, weight_gradient_bytes=(1, 2, 3, 4))
    with pytest.raises(InputError, match="weight_gradient_bytes is 4 long: give one number, or 2, one per"):
        network_over(one_node(2, link()), two_directions(STAGE), all_reduce=reduce)


def test_stages_that_are_no_neighbours_have_no_size():
    feeds = (
        Feed(inputs=(), microbatches=(0,), model_stage=0),
        Feed(inputs=(0,), microbatches=(0,), model_stage=2),
    )
    problem = replace(uniform_problem(2, 1, UNDIVIDED), feeds=feeds)
    with pytest.raises(InputError, match="stages 0 and 1 are on two ranks and run no neighbouring stages"):
        network_over(one_node(2, link()), problem)


def test_opposite_directions_pass_each_other_on_full_duplex():
    problem = two_directions(UNDIVIDED, per_direction=1)
    simulation = over(problem, one_node(2, link(), 4), AHEAD_AND_BACK)
    starts = [" ".join(map(str, rank)) for rank in simulation.schedule.ranks]
    assert starts == ["0F0@0 3F1@6 3BW1@8 0BW0@15", "2F1@0 1F0@6 1BW0@8 2BW1@15"]


# All-reduces.


def reductions(simulation):
    return {
        str(each.producer): (each.ready, each.start, each.end)
        for each in simulation.deliveries
        if each.consumer is None
    }


LOPSIDED = orders_of("0F0 3F1 3BW1 0BW0", "2F1 1F0 1BW0 2BW1")


def test_ranks_that_hold_a_model_stage_sum_it_behind_the_last_of_them():
    """Two copies of 8 bytes over a ring: 2(2 - 1) steps of 4 bytes. Stage 0 is done at 18 on both ranks."""
    problem = two_directions(UNDIVIDED, per_direction=1)
    topology = one_node(2, link(), 4)
    reduce = AllReduce(replicas=1, weight_gradient_bytes=8)
    simulation = over(problem, topology, LOPSIDED, all_reduce=reduce)
    assert reductions(simulation) == {
        "0BW0": (18, 19, 27),
        "1BW0": (11, 11, 19),
        "2BW1": (18, 19, 27),
        "3BW1": (11, 11, 19),
    }
    assert simulation.metrics.makespan == 27
    assert simulation.all_reduce_ticks == 9


def test_a_sum_waits_for_the_other_ranks_gradient():
    """Rank 0 has its gradients at 5 and 23, rank 1 at 16 and 11: each sum waits for the later one."""
    problem = two_directions(UNDIVIDED, per_direction=1)
    slow = replace(problem, stages=(UNDIVIDED, UNDIVIDED, UNDIVIDED, replace(UNDIVIDED, BW=OpCost(ticks=10))))
    reduce = AllReduce(replicas=1, weight_gradient_bytes=8)
    simulation = over(slow, one_node(2, link(SharedBy.NONE), 4), LOPSIDED, all_reduce=reduce)
    ends = {str(timed.op): timed.end for rank in simulation.schedule.ranks for timed in rank}
    assert ends == {"0F0": 2, "3F1": 8, "3BW1": 18, "0BW0": 21, "2F1": 2, "1F0": 8, "1BW0": 11, "2BW1": 25}
    assert reductions(simulation) == {
        "3BW1": (18, 18, 26),
        "1BW0": (18, 18, 26),
        "0BW0": (25, 25, 33),
        "2BW1": (25, 25, 33),
    }
    schedule = replace(simulation.schedule)
    noisy = replay_with_jitter(
        schedule,
        sigma=0,
        samples=2,
        seed=0,
        network=network_over(one_node(2, link(), 4), slow, all_reduce=reduce),
    )
    assert len(set(noisy.values)) == 1


def test_replicas_of_the_pipeline_multiply_the_copies():
    """Three pipelines of two directions hold six copies: 2(6 - 1) steps of 12/6 bytes."""
    problem = two_directions(UNDIVIDED, per_direction=1)
    reduce = AllReduce(replicas=3, weight_gradient_bytes=12)
    network = network_over(one_node(2, link(), 4), problem, all_reduce=reduce)
    assert [route.ticks for route in network.all_reduce] == [20] * 4


def test_slices_sum_their_weights_once_behind_the_last_of_them():
    problem = two_slices(num_microbatches=1)
    reduce = AllReduce(replicas=2, weight_gradient_bytes=8)
    topology = replace(two_nodes(link()), nodes=((0,), (1,)))
    simulation = over(problem, topology, serial_orders(problem), all_reduce=reduce)
    assert list(reductions(simulation)) == ["0BW0", "2BW0"]


def test_a_planned_sum_is_not_added_again():
    problem = two_directions(SUMMED)
    reduce = AllReduce(replicas=4, weight_gradient_bytes=8)
    network = network_over(one_node(2, link()), problem, all_reduce=reduce)
    assert network.all_reduce == (None,) * 4
    some = replace(problem, stages=(SUMMED, STAGE, SUMMED, STAGE))
    network = network_over(one_node(2, link()), some, all_reduce=reduce)
    assert [route is None for route in network.all_reduce] == [True, False, True, False]


def test_a_sum_on_one_rank_needs_no_all_reduce():
    problem = two_directions(STAGE, num_ranks=1)
    reduce = AllReduce(replicas=1, weight_gradient_bytes=8)
    network = network_over(
        Topology(nodes=((0,),)),
        problem,
        transfer_bytes=TransferBytes(activation=1, gradient=1),
        all_reduce=reduce,
    )
    assert network.all_reduce == (None, None)


def test_without_overlap_a_sum_of_gradients_holds_no_rank_but_its_own():
    problem = two_directions(transfer_ticks=2)
    orders = serial_orders(problem)
    network = planned_network(problem, overlaps=False)
    simulation = simulate_over(network, problem, orders)
    assert all(delivery.consumer.kind != "R" for delivery in simulation.deliveries)
    ends = {timed.op: timed.end for rank in simulation.schedule.ranks for timed in rank}
    for rank in simulation.schedule.ranks:
        for timed in rank:
            if timed.op.kind == "R":
                replicas = problem.replicas_by_stage[timed.op.stage]
                last = max(end for op, end in ends.items() if op.stage in replicas and op.kind != "R")
                assert timed.start >= last


def test_links_may_be_overridden():
    problem = two_directions(transfer_ticks=3)
    orders = random_orders(problem, 5)
    exclusive = simulate_orders(problem, orders, links=Links.EXCLUSIVE)
    assert exclusive == schedule_orders(replace(problem, links=Links.EXCLUSIVE), orders)
