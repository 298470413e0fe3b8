"""Which pipeline rank of which replica sits on which node, and who shares the way out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class SeatOrder(StrEnum):
    """Who are neighbours. Tensor-parallel peers always are."""

    STAGES = "stages"
    """The ranks of one pipeline: transfers stay inside a node as far as it goes, all-reduces leave it."""
    REPLICAS = "replicas"
    """The replicas of one rank: all-reduces stay inside a node as far as it goes, transfers leave it."""


@dataclass(frozen=True, kw_only=True)
class Seats:
    """Where every rank sits.

    >>> Seats(num_ranks=4, replicas=2, tensor=1, order=SeatOrder.STAGES, gpus_per_node=4).nodes
    ((0, 1), (0, 1), (0, 1), (0, 1))
    >>> Seats(num_ranks=4, replicas=2, tensor=1, order=SeatOrder.REPLICAS, gpus_per_node=4).nodes
    ((0, 0), (0, 0), (1, 1), (1, 1))

    Parameters
    ----------
    num_ranks, replicas, tensor
        Pipeline ranks, replicas of the pipeline, tensor-parallel GPUs of a rank.
    order
        Who are neighbours.
    gpus_per_node
        Of the fullest node; a multiple of ``tensor``.
    """

    num_ranks: int
    replicas: int
    tensor: int
    order: SeatOrder
    gpus_per_node: int

    @cached_property
    def nodes(self) -> tuple[tuple[int, ...], ...]:
        """The node of every rank's replicas: [rank][replica]."""
        per_node = self.gpus_per_node // self.tensor
        inside = self.order is SeatOrder.STAGES

        def place(rank: int, replica: int) -> int:
            return replica * self.num_ranks + rank if inside else rank * self.replicas + replica

        return tuple(
            tuple(place(rank, replica) // per_node for replica in range(self.replicas))
            for rank in range(self.num_ranks)
        )

    def flows(self, sender: int, receiver: int) -> int:
        """How many GPUs of the busiest node send from one rank to another on another node; 0 where none does.

        All tensor-parallel peers send, and the replicas that sit on the same node do so at the same time.
        """
        leaving: dict[int, int] = {}
        for here, there in zip(self.nodes[sender], self.nodes[receiver], strict=True):
            if here != there:
                leaving[here] = leaving.get(here, 0) + self.tensor
        return max(leaving.values(), default=0)

    @cached_property
    def rings(self) -> tuple[int, ...]:
        """For every rank, how many rings of replicas leave the busiest node its own ring is on; 0 inside one.

        A ring passes its members node by node, so it leaves each node once. All rings run at the same time.
        """
        on_node: dict[int, int] = {}
        crossing = [set(nodes) if len(set(nodes)) > 1 else set() for nodes in self.nodes]
        for nodes in crossing:
            for node in nodes:
                on_node[node] = on_node.get(node, 0) + self.tensor
        return tuple(max((on_node[node] for node in nodes), default=0) for nodes in crossing)
