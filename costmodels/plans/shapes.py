"""The choices of a plan, and all of them in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from costmodels.plans.fleet import Fleet
from costmodels.plans.seats import SeatOrder
from costmodels.training import Recompute
from synth.drafts import WeightPolicy
from synth.placement import PlacementKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a model is spread over a cluster, but for the schedule.

    Parameters
    ----------
    pp, dp, tp
        Pipeline ranks, replicas of the pipeline, tensor-parallel GPUs of a rank.
    microbatch
        Sequences in a microbatch.
    chunks, placement
        Stages of a rank, and their named placement.
    recompute
        What the backward computes again.
    weights
        When weights change.
    seats
        Who are neighbours.
    """

    pp: int
    dp: int
    tp: int
    microbatch: int
    chunks: int = 1
    placement: PlacementKind = PlacementKind.LOOP
    recompute: Recompute = Recompute.NONE
    weights: WeightPolicy = WeightPolicy.FLUSH
    seats: SeatOrder = SeatOrder.STAGES

    @property
    def key(self) -> str:
        """Its name: every choice."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    @property
    def last_rank(self) -> int:
        """The rank of the last stage: a V and waves of an even number of chunks end where they began."""
        returns = self.placement is not PlacementKind.LOOP and self.chunks % 2 == 0
        return 0 if returns else self.pp - 1

    @classmethod
    def of(cls, key: str) -> Shape:
        """The shape of that name."""
        given = dict(part.split("=") for part in key.split())
        return cls(
            **{name: int(given[name]) for name in ("pp", "dp", "tp", "microbatch", "chunks")},
            placement=PlacementKind(given["placement"]),
            recompute=Recompute(given["recompute"]),
            weights=WeightPolicy(given["weights"]),
            seats=SeatOrder(given["seats"]),
        )


CHUNKS = (1, 2, 4)
"""Stages of a rank that are tried where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may be chosen; an empty tuple leaves a degree to the arithmetic.

    All GPUs are used: pp · dp · tp of them. Tensor-parallel peers share a node. The replicas share the batch
    evenly, and so do the microbatches of a replica; double buffering has one stage per rank and at least as
    many microbatches as ranks.

    Parameters
    ----------
    batch
        Sequences of one update of the weights.
    pp, dp, tp, microbatch
        Those allowed.
    chunks, recompute, weights, seats
        Those allowed.
    """

    batch: int
    pp: tuple[int, ...] = ()
    dp: tuple[int, ...] = ()
    tp: tuple[int, ...] = ()
    microbatch: tuple[int, ...] = ()
    chunks: tuple[int, ...] = CHUNKS
    recompute: tuple[Recompute, ...] = tuple(Recompute)
    weights: tuple[WeightPolicy, ...] = tuple(WeightPolicy)
    seats: tuple[SeatOrder, ...] = tuple(SeatOrder)

    def shapes(self, fleet: Fleet, most_stages: int) -> tuple[Shape, ...]:
        """Every shape on a cluster of a model that can be cut into so many stages, in a fixed order."""
        return tuple(
            shape for degrees in self._degrees(fleet) for shape in self._ways(*degrees, fleet, most_stages)
        )

    def _degrees(self, fleet: Fleet) -> Iterator[tuple[int, int, int, int]]:
        """Ranks, replicas, tensor degree, microbatch size."""
        for tp in _allowed(_divisors(fleet.num_gpus), self.tp):
            if fleet.gpus_per_node % tp:
                continue
            for pp in _allowed(_divisors(fleet.num_gpus // tp), self.pp):
                dp = fleet.num_gpus // tp // pp
                if self.batch % dp or (self.dp and dp not in self.dp):
                    continue
                for microbatch in _allowed(_divisors(self.batch // dp), self.microbatch):
                    yield pp, dp, tp, microbatch

    def _ways(
        self, pp: int, dp: int, tp: int, microbatch: int, fleet: Fleet, most_stages: int
    ) -> Iterator[Shape]:
        for chunks, placement in _placements(self.chunks, pp, most_stages):
            for weights in self._policies(pp, chunks, self.batch // dp // microbatch):
                for recompute in self.recompute:
                    for seats in self._seats(pp, dp, fleet):
                        yield Shape(
                            pp=pp,
                            dp=dp,
                            tp=tp,
                            microbatch=microbatch,
                            chunks=chunks,
                            placement=placement,
                            recompute=recompute,
                            weights=weights,
                            seats=seats,
                        )

    def _policies(self, pp: int, chunks: int, num_microbatches: int) -> list[WeightPolicy]:
        buffers = chunks == 1 and num_microbatches >= pp
        return [policy for policy in self.weights if buffers or policy is WeightPolicy.FLUSH]

    def _seats(self, pp: int, dp: int, fleet: Fleet) -> tuple[SeatOrder, ...]:
        """One order where they are the same: one rank, one replica, or one node."""
        differ = pp > 1 and dp > 1 and fleet.num_gpus > fleet.gpus_per_node
        return self.seats if differ else self.seats[:1]


def _placements(chunks: tuple[int, ...], pp: int, most_stages: int) -> Iterator[tuple[int, PlacementKind]]:
    for v in chunks:
        if pp * v > most_stages or (pp == 1 and v > 1):
            continue
        yield v, PlacementKind.LOOP
        if v > 1:
            yield v, PlacementKind.V if v == 2 else PlacementKind.WAVE


def _allowed(possible: list[int], given: tuple[int, ...]) -> list[int]:
    return [number for number in possible if not given or number in given]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
