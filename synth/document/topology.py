"""The topology's wire types to the domain."""

from __future__ import annotations

from synth.document.refusal import Refusal
from synth.document.wire import AllReduceWire, LinkWire, PairLinkWire, TopologyWire, TransferBytesWire
from synth.errors import InvalidTopologyError
from synth.topology import AllReduce, Link, PairLink, Topology, TransferBytes


def topology_from_wire(wire: TopologyWire, refuse: Refusal) -> Topology:
    """The topology of a document."""
    try:
        return Topology(
            nodes=tuple(node.ranks for node in wire.nodes),
            inside=None if wire.inside is None else _link(wire.inside),
            between=None if wire.between is None else _link(wire.between),
            pairs=tuple(map(_pair_link, wire.pairs)),
            transfer_bytes=None if wire.transfer_bytes is None else _transfer_bytes(wire.transfer_bytes),
            all_reduce=None if wire.all_reduce is None else _all_reduce(wire.all_reduce),
            name=wire.name,
            source=wire.source,
        )
    except InvalidTopologyError as error:
        refuse(f"$.{error.where}", str(error.given), error.rule)


def _link(wire: LinkWire) -> Link:
    return Link(
        latency_s=wire.latency_seconds,
        bytes_per_s=wire.bytes_per_second,
        duplex=wire.duplex,
        shared_by=wire.shared_by,
    )


def _pair_link(wire: PairLinkWire) -> PairLink:
    a, b = wire.ranks
    link = Link(latency_s=wire.latency_seconds, bytes_per_s=wire.bytes_per_second, duplex=wire.duplex)
    return PairLink(ranks=(a, b), link=link)


def _transfer_bytes(wire: TransferBytesWire) -> TransferBytes:
    return TransferBytes(activation=wire.activation_bytes, gradient=wire.gradient_bytes)


def _all_reduce(wire: AllReduceWire) -> AllReduce:
    return AllReduce(replicas=wire.replicas, weight_gradient_bytes=wire.weight_gradient_bytes)
