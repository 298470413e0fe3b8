"""Small topologies in which a byte takes a tick, so that times can be checked by hand."""

from __future__ import annotations

from synth.topology import Duplex, Link, SharedBy, Topology, TransferBytes


def link(shared_by: SharedBy = SharedBy.PAIR, duplex: Duplex = Duplex.FULL, latency_ticks: int = 0) -> Link:
    """A link of 1 byte per tick of the default length, a microsecond."""
    return Link(latency_s=latency_ticks * 1e-6, bytes_per_s=1e6, duplex=duplex, shared_by=shared_by)


def one_node(num_ranks: int, inside: Link, size: int = 4) -> Topology:
    """All ranks in one node, and transfers of so many bytes."""
    sizes = TransferBytes(activation=size, gradient=size)
    return Topology(nodes=(tuple(range(num_ranks)),), inside=inside, transfer_bytes=sizes)


def two_nodes(between: Link, size: int = 4) -> Topology:
    """Ranks 0 and 1 in one node, 2 and 3 in another, nothing inside."""
    sizes = TransferBytes(activation=size, gradient=size)
    return Topology(nodes=((0, 1), (2, 3)), between=between, transfer_bytes=sizes)
