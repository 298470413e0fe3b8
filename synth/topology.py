"""The topology: nodes and the ranks in them, what links them, and what travels (``pipesynth.topology``).

A transfer takes latency + bytes / bandwidth (Hockney, Parallel Computing 20, 1994) and holds every channel on
its way throughout. Which channels those are is the link's ``shared_by`` and ``duplex``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from synth.errors import InvalidTopologyError


class Duplex(StrEnum):
    """Whether a channel carries one transfer each way, or one in all."""

    FULL = "full"
    HALF = "half"


class SharedBy(StrEnum):
    """Which transfers queue for one another."""

    NONE = "none"
    """None: every transfer has the link for itself."""
    PAIR = "pair"
    """Those of a pair of ranks: each pair has a wire of its own."""
    RANK = "rank"
    """Those of a rank: each rank has one port, into a switch that never blocks."""
    NODE = "node"
    """Those of a node: its ranks share one NIC; inside a node, one bus that carries one transfer in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a transfer takes, and what it shares the way with.

    Parameters
    ----------
    latency_s, bytes_per_s
        Of one transfer, one way; at least 0, and above 0.
    duplex, shared_by
        Which transfers exclude each other.
    """

    latency_s: float
    bytes_per_s: float
    duplex: Duplex = Duplex.FULL
    shared_by: SharedBy = SharedBy.PAIR

    def transfer_s(self, size_bytes: int) -> float:
        """Seconds that a transfer takes: latency + bytes / bandwidth."""
        return self.latency_s + size_bytes / self.bytes_per_s

    def all_reduce_s(self, size_bytes: int, replicas: int) -> float:
        """Seconds of a ring all-reduce: 2(R - 1) steps, each of which sends one R-th of the bytes.

        Patarasuk, Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, J. Parallel
        Distrib. Comput. 69, 2009; the time of the additions is left out.
        """
        return 2 * (replicas - 1) * (self.latency_s + size_bytes / replicas / self.bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLink:
    """A wire between two ranks that nothing else uses, instead of what would link them."""

    ranks: tuple[int, int]
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferBytes:
    """What crosses the boundary of two neighbouring stages of the model, per microbatch.

    Parameters
    ----------
    activation, gradient
        Forward and backward: one number for every boundary, or one each, number s between stages s and s + 1.
    """

    activation: int | tuple[int, ...]
    gradient: int | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllReduce:
    """The sum of every stage's weight gradients over the replicas of the pipeline.

    Parameters
    ----------
    replicas
        How many pipelines train the same model, at least 1.
    weight_gradient_bytes
        Of every stage of the model, or one number each.
    """

    replicas: int
    weight_gradient_bytes: int | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Nodes, their ranks and links.

    >>> nic = Link(latency_s=5e-6, bytes_per_s=50e9, shared_by=SharedBy.NODE)
    >>> Topology(nodes=((0, 1), (2, 3)), between=nic).channels(0, 2)
    ('node 0 NIC out', 'node 1 NIC in')

    Parameters
    ----------
    nodes
        The ranks of every node; a rank is in one node.
    inside, between
        What links two ranks of one node, and ranks of two; None where nothing does.
    pairs
        Wires of single pairs of ranks.
    transfer_bytes, all_reduce
        What travels, where the topology says it.
    name, source
        What it is called, and where its numbers come from.

    Raises
    ------
    InvalidTopologyError
        Naming the place, the value and what would be accepted.
    """

    nodes: tuple[tuple[int, ...], ...]
    inside: Link | None = None
    between: Link | None = None
    pairs: tuple[PairLink, ...] = ()
    transfer_bytes: TransferBytes | None = None
    all_reduce: AllReduce | None = None
    name: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        _check_nodes(self.nodes)
        for where, link in (("inside", self.inside), ("between", self.between)):
            if link is not None:
                _check_link(where, link)
        _check_pairs(self)

    def node_of(self, rank: int) -> int | None:
        """The number of the node a rank is in."""
        return next((number for number, ranks in enumerate(self.nodes) if rank in ranks), None)

    def link(self, sender: int, receiver: int) -> Link | None:
        """What links two ranks, None where nothing does."""
        return self._wire(sender, receiver) or self._usual_link(sender, receiver)

    def channels(self, sender: int, receiver: int) -> tuple[str, ...]:
        """The channels that a transfer between two linked ranks holds, by name."""
        wire = self._wire(sender, receiver)
        link = wire or self._usual_link(sender, receiver)
        assert link is not None, "the ranks are linked"
        if wire is not None or link.shared_by is SharedBy.PAIR:
            return _wire_channels(link, sender, receiver)
        if link.shared_by is SharedBy.NONE:
            return ()
        crosses = self.node_of(sender) != self.node_of(receiver)
        if not crosses and link.shared_by is SharedBy.NODE:
            return (self._bus(sender),)
        if link.duplex is Duplex.HALF:
            return self._port(link, sender, crosses), self._port(link, receiver, crosses)
        return f"{self._port(link, sender, crosses)} out", f"{self._port(link, receiver, crosses)} in"

    @property
    def all_reduce_link(self) -> Link | None:
        """What links a rank's replicas, which are on other nodes: what lies between nodes, else inside."""
        return self.between or self.inside

    def all_reduce_channels(self, rank: int) -> tuple[str, ...]:
        """The channels that a rank's all-reduces hold: its port or NIC, both ways, or a wire of their own."""
        link, crosses = self.all_reduce_link, self.between is not None
        assert link is not None, "the replicas are linked"
        if link.shared_by is SharedBy.NONE:
            return ()
        if link.shared_by is SharedBy.PAIR:
            return (f"rank {rank} all-reduce",)
        if not crosses and link.shared_by is SharedBy.NODE:
            return (self._bus(rank),)
        port = self._port(link, rank, crosses)
        return (port,) if link.duplex is Duplex.HALF else (f"{port} out", f"{port} in")

    def _wire(self, a: int, b: int) -> Link | None:
        return next((pair.link for pair in self.pairs if {a, b} == set(pair.ranks)), None)

    def _usual_link(self, a: int, b: int) -> Link | None:
        return self.inside if self.node_of(a) == self.node_of(b) else self.between

    def _bus(self, rank: int) -> str:
        return f"node {self.node_of(rank)} bus"

    def _port(self, link: Link, rank: int, crosses: bool) -> str:
        """Through what a rank's transfers enter a link that is shared by rank, or between nodes by node."""
        if link.shared_by is SharedBy.NODE:
            return f"node {self.node_of(rank)} NIC"
        return f"rank {rank} {'NIC' if crosses else 'port'}"


def _wire_channels(link: Link, sender: int, receiver: int) -> tuple[str, ...]:
    if link.duplex is Duplex.FULL:
        return (f"rank {sender} → rank {receiver}",)
    return (f"rank {min(sender, receiver)} ↔ rank {max(sender, receiver)}",)


def _check_nodes(nodes: tuple[tuple[int, ...], ...]) -> None:
    seen: set[int] = set()
    for number, ranks in enumerate(nodes):
        for place, rank in enumerate(ranks):
            if rank in seen:
                raise InvalidTopologyError(
                    f"nodes[{number}].ranks[{place}]", rank, "give every rank one node"
                )
            seen.add(rank)


def _check_link(where: str, link: Link) -> None:
    if not 0 <= link.latency_s < math.inf:
        raise InvalidTopologyError(f"{where}.latency_seconds", link.latency_s, "give a finite number ≥ 0")
    if not 0 < link.bytes_per_s < math.inf:
        raise InvalidTopologyError(f"{where}.bytes_per_second", link.bytes_per_s, "give a finite number > 0")


def _check_pairs(topology: Topology) -> None:
    seen: set[frozenset[int]] = set()
    for number, pair in enumerate(topology.pairs):
        where = f"pairs[{number}]"
        _check_link(where, pair.link)
        for place, rank in enumerate(pair.ranks):
            if topology.node_of(rank) is None:
                raise InvalidTopologyError(f"{where}.ranks[{place}]", rank, "give a rank that is in a node")
        if len(set(pair.ranks)) == 1 or frozenset(pair.ranks) in seen:
            raise InvalidTopologyError(
                f"{where}.ranks", list(pair.ranks), "give two different ranks, every pair once"
            )
        seen.add(frozenset(pair.ranks))
