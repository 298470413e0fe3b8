"""The topology: Hockney's time, the channels of a transfer, and what cannot be a topology."""

import math
from dataclasses import replace

import pytest
from networks import link, one_node, two_nodes

from synth.errors import InvalidTopologyError
from synth.topology import Duplex, Link, PairLink, SharedBy, Topology

FAST = Link(latency_s=2e-6, bytes_per_s=1e9)


def test_transfer_takes_latency_and_bytes_over_bandwidth():
    assert FAST.transfer_s(0) == 2e-6
    assert FAST.transfer_s(3_000_000) == pytest.approx(2e-6 + 3e-3)


def test_ring_all_reduce_sends_a_share_in_each_of_its_steps():
    """Four replicas: six steps of a quarter of the bytes, each with the latency."""
    assert FAST.all_reduce_s(4_000_000, 4) == pytest.approx(6 * (2e-6 + 1e-3))
    assert FAST.all_reduce_s(4_000_000, 1) == 0


@pytest.mark.parametrize(
    ("shared_by", "duplex", "there", "back"),
    [
        (SharedBy.NONE, Duplex.FULL, (), ()),
        (SharedBy.NONE, Duplex.HALF, (), ()),
        (SharedBy.PAIR, Duplex.FULL, ("rank 0 → rank 2",), ("rank 2 → rank 0",)),
        (SharedBy.PAIR, Duplex.HALF, ("rank 0 ↔ rank 2",), ("rank 0 ↔ rank 2",)),
        (
            SharedBy.RANK,
            Duplex.FULL,
            ("rank 0 NIC out", "rank 2 NIC in"),
            ("rank 2 NIC out", "rank 0 NIC in"),
        ),
        (SharedBy.RANK, Duplex.HALF, ("rank 0 NIC", "rank 2 NIC"), ("rank 2 NIC", "rank 0 NIC")),
        (
            SharedBy.NODE,
            Duplex.FULL,
            ("node 0 NIC out", "node 1 NIC in"),
            ("node 1 NIC out", "node 0 NIC in"),
        ),
        (SharedBy.NODE, Duplex.HALF, ("node 0 NIC", "node 1 NIC"), ("node 1 NIC", "node 0 NIC")),
    ],
)
def test_channels_between_nodes(shared_by, duplex, there, back):
    topology = two_nodes(link(shared_by, duplex))
    assert (topology.channels(0, 2), topology.channels(2, 0)) == (there, back)


@pytest.mark.parametrize(
    ("shared_by", "duplex", "there"),
    [
        (SharedBy.RANK, Duplex.FULL, ("rank 0 port out", "rank 1 port in")),
        (SharedBy.RANK, Duplex.HALF, ("rank 0 port", "rank 1 port")),
        (SharedBy.NODE, Duplex.FULL, ("node 0 bus",)),
        (SharedBy.NODE, Duplex.HALF, ("node 0 bus",)),
    ],
)
def test_channels_inside_a_node(shared_by, duplex, there):
    inside = link(shared_by, duplex)
    # What is inside stays there, even where the same link lies between nodes.
    topology = replace(one_node(2, inside), nodes=((0, 1), (2,)), between=inside)
    assert topology.channels(0, 1) == there


@pytest.mark.parametrize(
    ("inside", "between", "channels"),
    [
        (None, link(SharedBy.NONE), ()),
        (None, link(SharedBy.PAIR), ("rank 1 all-reduce",)),
        (None, link(SharedBy.RANK), ("rank 1 NIC out", "rank 1 NIC in")),
        (link(SharedBy.RANK), link(SharedBy.NODE), ("node 0 NIC out", "node 0 NIC in")),
        (link(SharedBy.RANK), link(SharedBy.NODE, Duplex.HALF), ("node 0 NIC",)),
        (link(SharedBy.RANK), None, ("rank 1 port out", "rank 1 port in")),
        (link(SharedBy.NODE), None, ("node 0 bus",)),
    ],
)
def test_channels_of_an_all_reduce(inside, between, channels):
    assert Topology(nodes=((0, 1),), inside=inside, between=between).all_reduce_channels(1) == channels


def test_wire_of_a_pair_goes_before_the_usual_link():
    wire = replace(FAST, duplex=Duplex.HALF)
    topology = replace(two_nodes(link(SharedBy.NODE)), pairs=(PairLink(ranks=(2, 1), link=wire),))
    assert topology.link(1, 2) == topology.link(2, 1) == wire
    assert topology.channels(2, 1) == ("rank 1 ↔ rank 2",)
    assert topology.link(0, 2) == link(SharedBy.NODE)
    assert topology.link(0, 1) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": ((0, 1), (1,))}, r"nodes\[1\]\.ranks\[0\] is 1: give every rank one node"),
        ({"nodes": ((0, 0),)}, r"nodes\[0\]\.ranks\[1\] is 0"),
        (
            {"inside": replace(FAST, latency_s=-1.0)},
            "inside.latency_seconds is -1.0: give a finite number ≥ 0",
        ),
        ({"inside": replace(FAST, bytes_per_s=0)}, "inside.bytes_per_second is 0: give a finite number > 0"),
        ({"between": replace(FAST, bytes_per_s=math.inf)}, "between.bytes_per_second is inf"),
        ({"between": replace(FAST, latency_s=math.nan)}, "between.latency_seconds is nan"),
        ({"pairs": (PairLink(ranks=(0, 9), link=FAST),)}, r"pairs\[0\]\.ranks\[1\] is 9: give a rank that"),
        (
            {"pairs": (PairLink(ranks=(0, 0), link=FAST),)},
            r"pairs\[0\]\.ranks is \[0, 0\]: give two different",
        ),
        ({"pairs": (PairLink(ranks=(0, 1), link=FAST), PairLink(ranks=(1, 0), link=FAST))}, r"pairs\[1\]"),
        (
            {"pairs": (PairLink(ranks=(0, 1), link=replace(FAST, latency_s=-1)),)},
            r"pairs\[0\]\.latency_seconds",
        ),
    ],
)
def test_no_topology(change, message):
    with pytest.raises(InvalidTopologyError, match=message):
        replace(one_node(2, FAST), **change)
