"""What a problem's transfers take and hold on their way: every two stages that feed each other have routes.

A channel carries one transfer at a time, first come, first served. A transfer is handed over in the moment in
which its op ends; it then queues for all of its channels at once, begins when it is first in each of these
queues, and holds all of them until it arrives. While it waits for one it keeps its place in the others.

Of one moment, ranks are released first, then ops end, then transfers arrive; ops that end together hand over
in the order of their ranks. So nothing is left to chance.

A topology says what crosses the boundary of two stages of the model for one microbatch. Directions each send
as much over it; of sequence slices each sends its share. Weight gradients are summed over all ranks that hold
a stage of the model, in this pipeline and in its replicas, behind the last of them; but where the problem
plans that sum as R, R is all that it takes, and the network adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synth.errors import InputError
from synth.ops import Op
from synth.problem import LARGEST_SUM, Links, Problem
from synth.topology import AllReduce, Topology, TransferBytes


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
    routes
        For every two stages of which one feeds the other's forward, by (from, to): the way of activations up
        and of gradients down, None on one rank.
    all_reduce
        For every stage: the all-reduce behind the last weight gradient of its model stage, on the first of
        the model stage's stages on each rank; None where there is none.
    overlaps
        Whether a rank computes while it sends or receives. If not, both ranks are channels of a transfer, and
        of their ops: an op queues for its rank once it is the rank's next and its inputs are there. So a
        transfer begins when sender and receiver are both idle, and a sender may wait for its receiver.
    """

    routes: Mapping[tuple[int, int], Route | None]
    all_reduce: tuple[Route | None, ...]
    overlaps: bool = True

    def route(self, producer: Op, consumer: Op) -> Route | None:
        """The way from an op to one that needs its result, None on one rank."""
        if producer.stage == consumer.stage:
            return None
        return self.routes[producer.stage, consumer.stage]


def _hops(problem: Problem) -> list[tuple[int, int]]:
    """Which stage sends to which: activations first, then gradients."""
    feeding = [(a, b) for b, inputs in enumerate(problem.inputs_by_stage) for a in inputs]
    return feeding + [(b, a) for a, b in feeding]


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

    def route(sender: int, receiver: int) -> Route | None:
        if sender == receiver:
            return None
        channels = (f"rank {sender} → rank {receiver}",) if is_exclusive else ()
        return Route(problem.transfer_ticks[sender][receiver], channels)

    ranks = problem.stage_to_rank
    return Network(
        routes={(a, b): route(ranks[a], ranks[b]) for a, b in _hops(problem)},
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
        ranks, boundaries = self.problem.stage_to_rank, self._num_model_stages - 1
        activations = _one_each(sizes.activation, boundaries, "activation_bytes", "boundary of two stages")
        gradients = _one_each(sizes.gradient, boundaries, "gradient_bytes", "boundary of two stages")
        routes: dict[tuple[int, int], Route | None] = {}
        for a, b in _hops(self.problem):
            if ranks[a] == ranks[b]:
                routes[a, b] = None
            else:
                size = self._share(a, b, activations if a < b else gradients)
                routes[a, b] = self._route(ranks[a], ranks[b], size)
        found = Network(routes=routes, all_reduce=self._all_reduces(all_reduce), overlaps=overlaps)
        self._check_sum(found)
        return found

    @property
    def _model_stages(self) -> tuple[int, ...]:
        """For every stage, the stage of the model that it runs."""
        feeds = self.problem.feeds
        return tuple(feed.model_stage for feed in feeds) or tuple(range(self.problem.num_stages))

    @property
    def _num_model_stages(self) -> int:
        return max(self._model_stages) + 1

    def _share(self, a: int, b: int, sizes: Sequence[int]) -> int:
        """What one stage sends another for a microbatch: of the bytes of their boundary its slice's share."""
        first, second = sorted((self._model_stages[a], self._model_stages[b]))
        if second != first + 1:
            raise InputError(
                f"stages {a} and {b} are on two ranks and run no neighbouring stages of the model, but "
                f"{first} and {second}: transfer_bytes are those between neighbours"
            )
        if not self.problem.feeds:
            return sizes[first]
        alike = [feed.slice for feed in self.problem.feeds if feed.model_stage == self._model_stages[a]]
        count, number = max(alike) + 1, self.problem.feeds[a].slice
        return sizes[first] * (number + 1) // count - sizes[first] * number // count

    def _check_ranks(self) -> None:
        for rank in range(self.problem.num_ranks):
            if self.topology.node_of(rank) is None:
                raise InputError(f"rank {rank} is in no node of the topology: put it into one")

    def _route(self, sender: int, receiver: int, size_bytes: int) -> Route:
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
        none = (None,) * self.problem.num_stages
        if wanted is None:
            return none
        sizes = _one_each(
            wanted.weight_gradient_bytes, self._num_model_stages, "weight_gradient_bytes", "stage"
        )
        found: list[Route | None] = list(none)
        for held in set(self.problem.replicas_by_stage):
            by_rank = {self.problem.stage_to_rank[stage]: stage for stage in reversed(held)}
            copies = wanted.replicas * len(by_rank)
            if copies == 1 or any(self.problem.stages[stage].R is not None for stage in held):
                continue
            for rank, stage in by_rank.items():
                size = sizes[self._model_stages[stage]]
                found[stage] = self._all_reduce(rank, size, copies)
        return tuple(found)

    def _all_reduce(self, rank: int, size_bytes: int, replicas: int) -> Route:
        link = self.topology.all_reduce_link
        if link is None:
            raise InputError("nothing links the replicas: give the topology 'between', or 'inside'")
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
        total = self.problem.num_microbatches * sum(r.ticks for r in network.routes.values() if r)
        total += sum(route.ticks for route in network.all_reduce if route)
        if total >= LARGEST_SUM:
            raise InputError(f"transfers sum to {total} ticks: sums must stay below 2**62; use a longer tick")


def _one_each(given: int | tuple[int, ...], wanted: int, name: str, what: str) -> tuple[int, ...]:
    if isinstance(given, int):
        return (given,) * wanted
    if len(given) != wanted:
        raise InputError(f"{name} is {len(given)} long: give one number, or {wanted}, one per {what}")
    return given
