"""What a problem's transfers take and hold on their way: every boundary of stages has its routes.

A channel carries one transfer at a time, first come, first served. A transfer is handed over in the moment in
which its op ends; it then queues for all of its channels at once, begins when it is first in each of these
queues, and holds all of them until it arrives. While it waits for one it keeps its place in the others.

Of one moment, ranks are released first, then ops end, then transfers arrive; ops that end together hand over
in the order of their ranks. So nothing is left to chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from synth.errors import InputError
from synth.ops import Op, OpKind
from synth.problem import LARGEST_SUM, Links, Problem
from synth.topology import AllReduce, Link, Topology, TransferBytes


@dataclass(frozen=True, slots=True)
class Route:
    """How a transfer goes: it takes so many ticks and holds all its channels from start to arrival."""

    ticks: int
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The routes of a problem's transfers.

    Parameters
    ----------
    forward, backward
        For every boundary, number s between the stages s and s + 1: the way of activations and of gradients,
        None on one rank.
    all_reduce
        For every stage: the all-reduce behind its last weight gradient, None where there is none.
    overlaps
        Whether a rank computes while it sends or receives. If not, both ranks are channels of a transfer, and
        of their ops: an op queues for its rank once it is the rank's next and its inputs are there. So a
        transfer begins when sender and receiver are both idle, and a sender may wait for its receiver.
    """

    forward: tuple[Route | None, ...]
    backward: tuple[Route | None, ...]
    all_reduce: tuple[Route | None, ...]
    overlaps: bool = True

    def route(self, producer: Op, consumer: Op) -> Route | None:
        """The way from an op to one that needs its result, None on one rank."""
        if producer.stage == consumer.stage:
            return None
        if producer.kind is OpKind.F:
            return self.forward[producer.stage]
        return self.backward[consumer.stage]


def planned_network(problem: Problem, *, links: Links | None = None, overlaps: bool = True) -> Network:
    """The network as the problem states it: ticks by rank pair, and links of ordered rank pairs.

    Parameters
    ----------
    problem
        Its transfer ticks and its placement.
    links
        Used instead of the problem's.
    overlaps
        As in :class:`Network`.
    """
    is_exclusive = (problem.links if links is None else links) is Links.EXCLUSIVE

    def route(sender: int, receiver: int) -> Route:
        channels = (f"rank {sender} → rank {receiver}",) if is_exclusive else ()
        return Route(problem.transfer_ticks[sender][receiver], channels)

    ranks = problem.stage_to_rank
    hops = list(pairwise(ranks))
    return Network(
        forward=tuple(None if a == b else route(a, b) for a, b in hops),
        backward=tuple(None if a == b else route(b, a) for a, b in hops),
        all_reduce=(None,) * problem.num_stages,
        overlaps=overlaps,
    )


def network_over(
    topology: Topology,
    problem: Problem,
    *,
    transfer_bytes: TransferBytes | None = None,
    all_reduce: AllReduce | None = None,
    overlaps: bool = True,
) -> Network:
    """The network that a topology makes of a problem; seconds are rounded to the nearest tick.

    Parameters
    ----------
    topology
        Every rank of the problem is in one of its nodes.
    problem
        Its placement and the length of its tick; its own transfer ticks and links are not used.
    transfer_bytes, all_reduce
        Used instead of the topology's.
    overlaps
        As in :class:`Network`.

    Raises
    ------
    InputError
        When a rank is in no node, nothing links two ranks that exchange results, or sizes are missing.
    """
    return _Planner(topology, problem).network(
        transfer_bytes or topology.transfer_bytes, all_reduce or topology.all_reduce, overlaps
    )


@dataclass(frozen=True, slots=True)
class _Planner:
    topology: Topology
    problem: Problem

    def network(self, sizes: TransferBytes | None, all_reduce: AllReduce | None, overlaps: bool) -> Network:
        self._check_ranks()
        if sizes is None:
            raise InputError("the topology has no transfer_bytes: give them there, or --transfer-bytes")
        ranks, boundaries = self.problem.stage_to_rank, self.problem.num_stages - 1
        activations = _one_each(sizes.activation, boundaries, "activation_bytes", "boundary of two stages")
        gradients = _one_each(sizes.gradient, boundaries, "gradient_bytes", "boundary of two stages")
        hops = list(pairwise(ranks))
        found = Network(
            forward=tuple(self._route(a, b, size) for (a, b), size in zip(hops, activations, strict=True)),
            backward=tuple(self._route(b, a, size) for (a, b), size in zip(hops, gradients, strict=True)),
            all_reduce=self._all_reduces(all_reduce),
            overlaps=overlaps,
        )
        self._check_sum(found)
        return found

    def _check_ranks(self) -> None:
        for rank in range(self.problem.num_ranks):
            if self.topology.node_of(rank) is None:
                raise InputError(f"rank {rank} is in no node of the topology: put it into one")

    def _route(self, sender: int, receiver: int, size_bytes: int) -> Route | None:
        if sender == receiver:
            return None
        link = self.topology.link(sender, receiver)
        if link is None:
            raise InputError(self._unconnected(sender, receiver))
        return Route(self._ticks(link.transfer_s(size_bytes)), self.topology.channels(sender, receiver))

    def _unconnected(self, a: int, b: int) -> str:
        nodes = [self.topology.node_of(rank) for rank in (a, b)]
        where = f"both in node {nodes[0]}" if nodes[0] == nodes[1] else f"in nodes {nodes[0]} and {nodes[1]}"
        missing = "inside" if nodes[0] == nodes[1] else "between"
        return (
            f"ranks {a} and {b}, {where}, exchange results and nothing links them: "
            f"give the topology {missing!r}, or a link of this pair"
        )

    def _all_reduces(self, wanted: AllReduce | None) -> tuple[Route | None, ...]:
        if wanted is None or wanted.replicas == 1:
            return (None,) * self.problem.num_stages
        sizes = _one_each(
            wanted.weight_gradient_bytes, self.problem.num_stages, "weight_gradient_bytes", "stage"
        )
        link = self.topology.all_reduce_link
        if link is None:
            raise InputError("nothing links the replicas: give the topology 'between', or 'inside'")
        return tuple(
            self._all_reduce(link, rank, size, wanted.replicas)
            for rank, size in zip(self.problem.stage_to_rank, sizes, strict=True)
        )

    def _all_reduce(self, link: Link, rank: int, size_bytes: int, replicas: int) -> Route:
        ticks = self._ticks(link.all_reduce_s(size_bytes, replicas))
        return Route(ticks, self.topology.all_reduce_channels(rank))

    def _ticks(self, seconds: float) -> int:
        ticks = seconds / self.problem.tick_seconds
        if ticks >= LARGEST_SUM:
            raise InputError(
                f"a transfer takes {ticks:.3g} ticks: give a faster link, or a longer tick_seconds"
            )
        return round(ticks)

    def _check_sum(self, network: Network) -> None:
        """All transfers together must stay within 64-bit integers, as a problem's do."""
        routes = [*network.forward, *network.backward]
        total = self.problem.num_microbatches * sum(route.ticks for route in routes if route)
        total += sum(route.ticks for route in network.all_reduce if route)
        if total >= LARGEST_SUM:
            raise InputError(f"transfers sum to {total} ticks: sums must stay below 2**62; use a longer tick")


def _one_each(given: int | tuple[int, ...], wanted: int, name: str, what: str) -> tuple[int, ...]:
    if isinstance(given, int):
        return (given,) * wanted
    if len(given) != wanted:
        raise InputError(f"{name} is {len(given)} long: give one number, or {wanted}, one per {what}")
    return given
