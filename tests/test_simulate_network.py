"""Replays over a network: by hand, against the longest path in the ideal setting, and what always holds."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, good_schedule, orders_of, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import link, one_node, two_nodes
from strategies import problems_with_orders

from synth.baselines import BASELINES, baseline_orders, baseline_problem
from synth.errors import BaselineUndefinedError, DeadlockError, InputError
from synth.flows import laid_out_of
from synth.ops import Op, OpKind
from synth.placement import PlacementKind
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem
from synth.schedule import Schedule, measure
from synth.simulate import (
    Simulation,
    channel_uses,
    network_over,
    planned_network,
    replay_over,
    replay_with_jitter,
    simulate_orders,
    simulate_over,
)
from synth.timing import schedule_orders
from synth.topology import AllReduce, Duplex, Link, PairLink, SharedBy, Topology, TransferBytes

_TICKS = {OpKind.F: 12, OpKind.B: 8, OpKind.W: 4, OpKind.BW: 12}
"""They can be cut into four slices."""

TWO_RANKS = orders_of("0F0 0F1 0BW0 0BW1", "1F0 1BW0 1F1 1BW1")


def starts(simulation: Simulation) -> list[str]:
    return [" ".join(map(str, rank)) for rank in simulation.schedule.ranks]


def times(simulation: Simulation) -> list[tuple[str, str | None, int, int, int]]:
    return [
        (str(d.producer), d.consumer and str(d.consumer), d.ready, d.start, d.end)
        for d in simulation.deliveries
    ]


# By hand. F takes 2 ticks, BW 3.


def two_ranks_over(inside: Link, size: int) -> Simulation:
    problem = two_by_two(UNDIVIDED)
    return simulate_over(network_over(one_node(2, inside, size), problem), problem, TWO_RANKS)


def test_full_duplex_lets_a_gradient_pass_an_activation():
    simulation = two_ranks_over(link(SharedBy.PAIR, Duplex.FULL), 8)
    assert starts(simulation) == ["0F0@0 0F1@2 0BW0@23 0BW1@31", "1F0@10 1BW0@12 1F1@18 1BW1@20"]
    assert times(simulation) == [
        ("0F0", "1F0", 2, 2, 10),
        ("0F1", "1F1", 4, 10, 18),
        ("1BW0", "0BW0", 15, 15, 23),
        ("1BW1", "0BW1", 23, 23, 31),
    ]


@pytest.mark.parametrize("shared_by", [SharedBy.PAIR, SharedBy.RANK])
def test_half_duplex_holds_a_gradient_back(shared_by):
    """The wire carries the second activation until 18, and the first gradient is ready at 15."""
    simulation = two_ranks_over(link(shared_by, Duplex.HALF), 8)
    assert starts(simulation) == ["0F0@0 0F1@2 0BW0@26 0BW1@34", "1F0@10 1BW0@12 1F1@18 1BW1@20"]
    assert times(simulation)[2:] == [("1BW0", "0BW0", 15, 18, 26), ("1BW1", "0BW1", 23, 26, 34)]


def test_bus_of_a_node_is_half_duplex():
    assert starts(two_ranks_over(link(SharedBy.NODE), 8)) == starts(
        two_ranks_over(link(SharedBy.PAIR, Duplex.HALF), 8)
    )


def test_links_that_nobody_shares_carry_everything_at_once():
    simulation = two_ranks_over(link(SharedBy.NONE), 8)
    assert [d.start - d.ready for d in simulation.deliveries] == [0] * 4
    assert starts(simulation)[1] == "1F0@10 1BW0@12 1F1@15 1BW1@17"


def test_latency_is_added_and_rounded_to_the_nearest_tick():
    slow = Link(latency_s=1.4e-6, bytes_per_s=1e6, shared_by=SharedBy.NONE)
    assert two_ranks_over(slow, 8).deliveries[0].end == 2 + 9


def test_ranks_of_a_node_share_its_nic():
    """Stages on ranks 0, 2, 1, 3; node 0 sends from ranks 0 and 1 through one NIC, 5 ticks each.

    The first result of rank 1 is ready at 16, when the NIC still carries the third of rank 0, until 17.
    """
    problem = two_by_two(UNDIVIDED, stage_to_rank=(0, 2, 1, 3), num_microbatches=3)
    orders = [f"{s}F0 {s}F1 {s}F2 {s}BW0 {s}BW1 {s}BW2" for s in (0, 2, 1, 3)]
    simulation = simulate_over(
        network_over(two_nodes(link(SharedBy.NODE), 5), problem), problem, orders_of(*orders)
    )
    forwards = {
        str(d.producer): (d.ready, d.start, d.end) for d in simulation.deliveries if d.producer.kind == "F"
    }
    assert forwards == {
        "0F0": (2, 2, 7),
        "0F1": (4, 7, 12),
        "0F2": (6, 12, 17),
        "1F0": (9, 9, 14),
        "1F1": (14, 14, 19),
        "1F2": (19, 19, 24),
        "2F0": (16, 17, 22),
        "2F1": (21, 22, 27),
        "2F2": (26, 27, 32),
    }
    by_name = {use.channel: use for use in channel_uses(simulation)}
    nic = by_name["node 0 NIC out"]
    assert nic.transfers == 6 + 3  # the gradients of rank 1 go out there too
    assert nic.busy_ticks == 45
    assert nic.busy_share == 45 / simulation.metrics.makespan


def test_without_overlap_a_transfer_takes_both_ranks():
    """At 8 two ops end; that of the lower number hands over first, so rank 1 receives before it goes on."""
    problem = two_by_two(UNDIVIDED, transfer_ticks=4)
    simulation = simulate_over(planned_network(problem, overlaps=False), problem, TWO_RANKS)
    assert starts(simulation) == ["0F0@0 0F1@6 0BW0@19 0BW1@28", "1F0@6 1BW0@12 1F1@19 1BW1@21"]
    assert times(simulation) == [
        ("0F0", "1F0", 2, 2, 6),
        ("0F1", "1F1", 8, 8, 12),
        ("1BW0", "0BW0", 15, 15, 19),
        ("1BW1", "0BW1", 24, 24, 28),
    ]


def test_without_overlap_a_sender_waits_for_its_receiver():
    """Rank 1 computes from 4 to 14; what rank 0 has for it from 6 on keeps both waiting until then."""
    stages = (
        StageCosts(F=OpCost(ticks=2), BW=OpCost(ticks=2)),
        StageCosts(F=OpCost(ticks=10), BW=OpCost(ticks=1)),
    )
    problem = replace(two_by_two(UNDIVIDED, transfer_ticks=2), stages=stages)
    simulation = simulate_over(planned_network(problem, overlaps=False), problem, TWO_RANKS)
    assert times(simulation)[1] == ("0F1", "1F1", 6, 14, 16)
    # The gradient of microbatch 0: its op was ready at 14, but the receipt stood in line first.
    assert starts(simulation)[1].startswith("1F0@4 1BW0@16 ")


def test_all_reduce_follows_the_last_gradient_of_its_stage():
    """Four replicas, 40 bytes: 6 steps of 1 + 10 ticks, in a link that nobody shares."""
    problem = two_by_two(UNDIVIDED, transfer_ticks=0)
    topology = one_node(2, link(SharedBy.NONE, latency_ticks=1), size=3)
    reduce = AllReduce(replicas=4, weight_gradient_bytes=(40, 0))
    simulation = simulate_over(network_over(topology, problem, all_reduce=reduce), problem, TWO_RANKS)
    last = [rank[-1].end for rank in simulation.schedule.ranks]
    assert times(simulation)[2] == ("0BW1", None, last[0], last[0], last[0] + 66)
    assert times(simulation)[-1] == ("1BW1", None, last[1], last[1], last[1] + 6)
    assert simulation.metrics.makespan == last[0] + 66
    assert simulation.all_reduce_ticks == 66
    assert simulation.metrics.bubble_ratio == 1 - 10 / (last[0] + 66)


def test_all_reduce_shares_the_nic_behind_the_last_gradient():
    problem = two_by_two(UNDIVIDED, objective=Objective.RANK_SPAN)
    topology = replace(
        one_node(2, link(SharedBy.RANK), 4), all_reduce=AllReduce(replicas=2, weight_gradient_bytes=9)
    )
    simulation = simulate_over(network_over(topology, problem), problem, TWO_RANKS)
    last_gradient, reduced = simulation.deliveries[-2:]
    assert str(last_gradient.consumer) == "0BW1"
    assert reduced.start == last_gradient.end == last_gradient.ready + 4
    spans = [rank[-1].end - rank[0].start for rank in simulation.schedule.ranks]
    assert simulation.value == spans[0] + 9 > spans[1]


def test_all_reduce_comes_after_the_w_where_backwards_are_divided():
    simulation = replay_over(
        network_over(
            one_node(2, link(SharedBy.NONE), 1),
            two_by_two(),
            all_reduce=AllReduce(replicas=2, weight_gradient_bytes=1),
        ),
        good_schedule(),
    )
    assert {str(d.producer) for d in simulation.deliveries if d.consumer is None} == {"0W1", "1W1"}


def test_one_replica_reduces_nothing():
    problem = two_by_two(UNDIVIDED)
    network = network_over(
        one_node(2, link()), problem, all_reduce=AllReduce(replicas=1, weight_gradient_bytes=10**9)
    )
    assert network.all_reduce == (None, None)


# The ideal setting: what the problem states, over a network that takes just that.


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_agree_with_timing_to_the_tick(name):
    compared = 0
    for chunks, kind in ((1, PlacementKind.LOOP), (2, PlacementKind.LOOP), (2, PlacementKind.V)):
        for ranks, microbatches in ((2, 4), (4, 8), (4, 16)):
            stage = EITHER.map_costs(lambda kind, cost: replace(cost, ticks=_TICKS[kind]))
            chain = uniform_problem(ranks, microbatches, stage, transfer_ticks=2, chunks=chunks, kind=kind)
            try:
                problem = baseline_problem(name, chain)
                orders = baseline_orders(name, problem)
            except BaselineUndefinedError:
                continue
            for links, shared_by in ((Links.FREE, SharedBy.NONE), (Links.EXCLUSIVE, SharedBy.PAIR)):
                planned = schedule_orders(replace(problem, links=links), orders)
                assert simulate_orders(problem, orders, links=links) == planned
                if laid_out := laid_out_of(problem):  # what BPipe moves has no size
                    _, slices = laid_out
                    network = network_over(one_node(ranks, link(shared_by), 2 * slices), problem)
                    assert simulate_over(network, problem, orders).schedule.ranks == planned.ranks
            compared += 1
    assert compared >= 2


@settings(max_examples=60)
@given(problems_with_orders(), st.data())
def test_topology_of_single_wires_is_the_matrix_of_the_problem(drawn, data):
    problem, orders = drawn
    ranks = range(problem.num_ranks)
    sizes = {pair: data.draw(st.integers(0, 5)) for pair in ((a, b) for a in ranks for b in ranks)}
    problem = replace(
        problem, transfer_ticks=tuple(tuple(sizes[min(a, b), max(a, b)] for b in ranks) for a in ranks)
    )
    pairs = tuple(
        PairLink(ranks=(a, b), link=link(latency_ticks=sizes[a, b])) for a in ranks for b in ranks if a < b
    )
    topology = Topology(
        nodes=(tuple(ranks),), pairs=pairs, transfer_bytes=TransferBytes(activation=0, gradient=0)
    )
    planned = schedule_orders(replace(problem, links=Links.EXCLUSIVE), orders)
    assert simulate_over(network_over(topology, problem), problem, orders).schedule.ranks == planned.ranks


# What holds over every network.

SHARINGS = st.builds(link, st.sampled_from(SharedBy), st.sampled_from(Duplex), st.integers(0, 3))


@st.composite
def networks(draw, problem):
    ranks = tuple(range(problem.num_ranks))
    cut = draw(st.integers(0, len(ranks) - 1))
    size = st.integers(0, 6)
    topology = Topology(
        nodes=tuple(filter(None, (ranks[:cut], ranks[cut:]))),
        inside=draw(SHARINGS),
        between=draw(SHARINGS),
        transfer_bytes=TransferBytes(activation=draw(size), gradient=draw(size)),
        all_reduce=draw(st.none() | st.just(AllReduce(replicas=2, weight_gradient_bytes=4))),
    )
    return topology, network_over(topology, problem, overlaps=draw(st.booleans()))


@settings(max_examples=150)
@given(problems_with_orders(), st.data())
def test_channels_are_exclusive_and_first_come_first_served(drawn, data):
    problem, orders = drawn
    _, network = data.draw(networks(problem))
    simulation = simulate_over(network, problem, orders)
    held = {}
    for delivery in simulation.deliveries:
        assert delivery.ready <= delivery.start == delivery.end - delivery.route.ticks
        for channel in delivery.route.channels:
            held.setdefault(channel, []).append(delivery)
    for deliveries in held.values():
        in_line = sorted(deliveries, key=lambda d: (d.start, d.end))
        assert all(a.end <= b.start and a.ready <= b.ready for a, b in pairwise(in_line))
    if not network.overlaps:
        for rank, ops in enumerate(simulation.schedule.ranks):
            taken = [(timed.start, timed.end) for timed in ops]
            for d in simulation.deliveries:
                ends = [d.producer, d.consumer or d.producer]
                if rank in {problem.stage_to_rank[op.stage] for op in ends}:
                    taken.append((d.start, d.end))
            assert all(a[1] <= b[0] for a, b in pairwise(sorted(taken)))


@settings(max_examples=100)
@given(problems_with_orders(), st.data())
def test_sharing_never_starts_anything_earlier(drawn, data):
    problem, orders = drawn
    topology, network = data.draw(networks(problem))
    alone = replace(
        topology,
        inside=replace(topology.inside, shared_by=SharedBy.NONE),
        between=replace(topology.between, shared_by=SharedBy.NONE),
    )
    free = simulate_over(network_over(alone, problem), problem, orders)
    shared = simulate_over(network, problem, orders)
    for early, late in zip(free.schedule.ranks, shared.schedule.ranks, strict=True):
        assert all(a.start <= b.start for a, b in zip(early, late, strict=True))
    assert free.value <= shared.value


@settings(max_examples=60)
@given(problems_with_orders(max_ticks=200), st.data(), st.sampled_from([0.1, 1.0]))
def test_samples_are_what_replays_one_by_one_are(drawn, data, sigma):
    """The same noise op by op, whichever way the samples are replayed."""
    problem, orders = drawn
    _, network = data.draw(networks(problem))
    schedule = schedule_orders(problem, orders)
    still = replay_with_jitter(schedule, sigma=0, samples=2, seed=0, network=network)
    assert still.values == (replay_over(network, schedule).value,) * 2
    ops = [op for order in orders for op in order]
    ticks = np.array([problem.stages[op.stage].cost(op.kind).ticks for op in ops])
    noise = np.maximum(-1, sigma * np.random.default_rng(3).standard_normal((3, len(ops))))
    release = [rank[0].start for rank in schedule.ranks]
    values = []
    for row in np.maximum(1, ticks + np.rint(ticks * noise)).astype(int).tolist():
        again = simulate_over(
            network, problem, orders, release_ticks=release, ticks=dict(zip(ops, row, strict=True))
        )
        values.append(again.value)
    noisy = replay_with_jitter(schedule, sigma=sigma, samples=3, seed=3, network=network)
    assert noisy.values == tuple(values)


def test_times_beyond_64_bits_are_replayed_exactly():
    """Event by event in whole numbers of any size: on a half-duplex wire the order depends on the noise."""
    stage = StageCosts(F=OpCost(ticks=2**58), BW=OpCost(ticks=2**58))
    problem = two_by_two(stage, num_microbatches=1)
    schedule = schedule_orders(problem, orders_of("0F0 0BW0", "1F0 1BW0"))
    network = network_over(one_node(2, link(SharedBy.PAIR, Duplex.HALF), 1), problem)
    noisy = replay_with_jitter(schedule, sigma=10, samples=100, seed=1, network=network)
    assert noisy.max > 20 * 2**58
    far = simulate_over(network, problem, schedule.orders, release_ticks=(2**62, 0))
    assert far.schedule.ranks[0][0].start == 2**62
    assert far.schedule.ranks[1][-1].end == 2**62 + 3 * 2**58 + 1


# Usage.


def test_most_contended_channel_comes_first():
    simulation = two_ranks_over(link(SharedBy.PAIR, Duplex.FULL), 8)
    first, second = channel_uses(simulation)
    assert (first.channel, first.waited_ticks, first.transfers) == ("rank 0 → rank 1", 6, 2)
    assert (second.channel, second.waited_ticks) == ("rank 1 → rank 0", 0)
    assert first.busy_share == 16 / 34
    assert simulation.waited_ticks == 6


def test_plain_replay_measures_as_its_schedule_does():
    schedule = good_schedule()
    simulation = replay_over(planned_network(schedule.problem), schedule)
    assert simulation.schedule == schedule
    assert simulation.metrics == measure(schedule)
    assert channel_uses(simulation) == ()


# Bad input.


def refused(topology: Topology, **options) -> str:
    with pytest.raises(InputError) as caught:
        network_over(topology, two_by_two(DIVIDED, stage_to_rank=(0, 2, 1, 3)), **options)
    return str(caught.value)


def test_unconnected_ranks_are_named():
    topology = replace(two_nodes(link()), between=None, inside=link())
    assert refused(topology) == (
        "ranks 0 and 2, in nodes 0 and 1, exchange results and nothing links them: "
        "give the topology 'between', or a link of this pair"
    )
    alone = replace(two_nodes(link()), nodes=((0, 2), (1, 3)))
    assert refused(alone).startswith("ranks 0 and 2, both in node 0, exchange results and nothing links them")


def test_ranks_that_exchange_nothing_need_no_link():
    problem = two_by_two(DIVIDED, stage_to_rank=(0, 2, 1, 3))
    assert network_over(two_nodes(link()), problem).routes[0, 1] is not None


def test_other_topologies_are_refused():
    assert refused(replace(two_nodes(link()), nodes=((0, 1), (2,)))) == (
        "rank 3 is in no node of the topology: put it into one"
    )
    assert "has no transfer_bytes" in refused(replace(two_nodes(link()), transfer_bytes=None))
    short = TransferBytes(activation=(1, 2), gradient=0)
    assert refused(two_nodes(link()), transfer_bytes=short) == (
        "activation_bytes is 2 long: give one number, or 3, one per boundary of two stages"
    )
    reduce = AllReduce(replicas=2, weight_gradient_bytes=(1, 2, 3))
    assert "weight_gradient_bytes is 3 long: give one number, or 4, one per stage" in refused(
        two_nodes(link()), all_reduce=reduce
    )


def test_replicas_need_a_link():
    topology = Topology(
        nodes=((0, 1),),
        pairs=(PairLink(ranks=(0, 1), link=link()),),
        transfer_bytes=TransferBytes(activation=0, gradient=0),
    )
    with pytest.raises(InputError, match="nothing links the replicas"):
        network_over(topology, two_by_two(), all_reduce=AllReduce(replicas=2, weight_gradient_bytes=1))


def test_transfers_too_long_to_add_up_are_refused():
    slow = Link(latency_s=1e13, bytes_per_s=1e6)
    assert "a transfer takes 1e+19 ticks: give a faster link" in refused(two_nodes(slow))
    assert "sums must stay below 2**62" in refused(two_nodes(replace(slow, latency_s=2e12)))


def test_op_orders_are_checked_as_without_a_network():
    with pytest.raises(InputError, match="rank 0 runs 0F0 twice"):
        simulate_over(planned_network(two_by_two()), two_by_two(), ((Op.parse("0F0"), Op.parse("0F0")), ()))


@pytest.mark.parametrize("duplex", Duplex)
def test_noise_says_where_orders_deadlock(duplex):
    problem = two_by_two()
    backwards = good_schedule().ranks[1][::-1]
    schedule = Schedule(problem, (good_schedule().ranks[0], backwards))
    network = network_over(one_node(2, link(SharedBy.PAIR, duplex)), problem)
    with pytest.raises(DeadlockError, match="rank 1 is at 1W1"):
        replay_with_jitter(schedule, sigma=0.1, samples=2, seed=0, network=network)
