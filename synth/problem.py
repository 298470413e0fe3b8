"""The problem: what every stage costs, where it sits, what links and ranks allow.

A :class:`Problem` that exists is valid; nothing beyond its constructor checks it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from synth.errors import InvalidProblemError
from synth.ops import OpKind
from synth.placement import Placement, PlacementKind, place

LARGEST_SUM = 2**62
"""No sum of all ticks or all bytes of a problem may reach this: sums stay within 64-bit integers."""


class Objective(StrEnum):
    """What is minimised (FORMATS.md, Objectives)."""

    MAKESPAN = "makespan"
    """First start to last end over all ranks."""
    RANK_SPAN = "rank_span"
    """The largest, over ranks, of last end minus first start."""


class Links(StrEnum):
    """Whether transfers on one ordered rank pair exclude each other."""

    FREE = "free"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCost:
    """What one op takes.

    Parameters
    ----------
    ticks
        Duration, at least 1.
    alloc_bytes
        Allocated at the op's start.
    free_bytes
        Freed at the op's end.
    """

    ticks: int
    alloc_bytes: int = 0
    free_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """The ops a stage offers: F, and B with W, or BW, or all of them.

    Parameters
    ----------
    F, B, W, BW
        Costs per microbatch; B and W only together. With BW beside them, any backward may be divided.
    static_bytes
        Held on the stage's rank throughout: weights, gradients, optimizer state.
    layers
        Names of the model's layers in this stage, for exporters.
    """

    F: OpCost
    B: OpCost | None = None
    W: OpCost | None = None
    BW: OpCost | None = None
    static_bytes: int = 0
    layers: tuple[str, ...] = ()

    @property
    def offered(self) -> tuple[tuple[OpKind, OpCost], ...]:
        """The kinds of op the stage offers, with their costs."""
        costs = ((OpKind.F, self.F), (OpKind.B, self.B), (OpKind.W, self.W), (OpKind.BW, self.BW))
        return tuple((kind, cost) for kind, cost in costs if cost is not None)

    def cost(self, kind: OpKind) -> OpCost:
        """The cost of one kind of op; the kind must be offered."""
        cost = getattr(self, kind.value)
        assert isinstance(cost, OpCost), f"the stage offers no {kind}"
        return cost

    @property
    def can_divide(self) -> bool:
        """Whether B and W are offered."""
        return self.B is not None

    @property
    def must_divide(self) -> bool:
        """Whether BW is not offered."""
        return self.BW is None

    @property
    def least_backward_ticks(self) -> int:
        """The shortest whole backward, divided or not."""
        ways = []
        if self.B is not None and self.W is not None:
            ways.append(self.B.ticks + self.W.ticks)
        if self.BW is not None:
            ways.append(self.BW.ticks)
        return min(ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A pipeline-parallel scheduling problem (FORMATS.md, ``pipesynth.problem``).

    Parameters
    ----------
    num_ranks, num_microbatches
        Both at least 1.
    placement
        The rank of every stage; every rank holds at least one.
    stages
        Costs, one entry per stage.
    transfer_ticks
        Matrix [from rank][to rank], ticks of one transfer; the diagonal is ignored.
    links
        Whether one ordered rank pair carries one transfer at a time.
    memory_limit_bytes
        Per rank, or None for no limit; static bytes count against it.
    objective
        What is minimised.
    tick_seconds
        The length of a tick.
    name, source
        What it is called, and where its numbers come from.

    Raises
    ------
    InvalidProblemError
        Naming the place, the value and what would be accepted.
    """

    num_ranks: int
    num_microbatches: int
    placement: Placement
    stages: tuple[StageCosts, ...]
    transfer_ticks: tuple[tuple[int, ...], ...]
    links: Links = Links.FREE
    memory_limit_bytes: tuple[int, ...] | None = None
    objective: Objective = Objective.MAKESPAN
    tick_seconds: float = 1e-6
    name: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        _check_at_least(1, num_ranks=self.num_ranks, num_microbatches=self.num_microbatches)
        if not 0 < self.tick_seconds < float("inf"):
            raise InvalidProblemError("tick_seconds", self.tick_seconds, "give a finite length above 0")
        for stage, costs in enumerate(self.stages):
            _check_stage(f"stages[{stage}]", costs)
        _check_placement(self)
        _check_matrix(self.transfer_ticks, self.num_ranks)
        if self.memory_limit_bytes is not None:
            limits = self.memory_limit_bytes
            if len(limits) != self.num_ranks:
                raise InvalidProblemError(
                    "memory_limit_bytes",
                    f"{len(limits)} long",
                    f"give one integer, or one for each of the {self.num_ranks} ranks, or null",
                )
            for rank, limit in enumerate(limits):
                _check_at_least(0, **{f"memory_limit_bytes[{rank}]": limit})
                if limit >= LARGEST_SUM:
                    raise InvalidProblemError(
                        f"memory_limit_bytes[{rank}]",
                        limit,
                        "give an integer below 2**62, or null for no limit",
                    )
        _check_sums(self)

    @property
    def num_stages(self) -> int:
        """How many stages the model is cut into."""
        return len(self.stages)

    @property
    def stage_to_rank(self) -> tuple[int, ...]:
        """The rank of every stage."""
        return self.placement.stage_to_rank

    @property
    def stages_by_rank(self) -> tuple[tuple[int, ...], ...]:
        """The stages of every rank, ascending."""
        held: list[list[int]] = [[] for _ in range(self.num_ranks)]
        for stage, rank in enumerate(self.stage_to_rank):
            held[rank].append(stage)
        return tuple(map(tuple, held))

    @property
    def static_bytes_by_rank(self) -> tuple[int, ...]:
        """The static bytes of every rank: the sum over its stages."""
        return tuple(sum(self.stages[s].static_bytes for s in held) for held in self.stages_by_rank)

    @property
    def work_ticks(self) -> int:
        """The least total op time of the busiest rank, over all microbatches."""
        return max(self.work_ticks_by_rank)

    @property
    def work_ticks_by_rank(self) -> tuple[int, ...]:
        """The least total op time of every rank, over all microbatches."""
        return tuple(
            self.num_microbatches
            * sum(self.stages[s].F.ticks + self.stages[s].least_backward_ticks for s in held)
            for held in self.stages_by_rank
        )

    @property
    def chunk_by_stage(self) -> tuple[int, ...]:
        """For every stage, which of its rank's stages it is, from 0."""
        chunks = [0] * self.num_stages
        for held in self.stages_by_rank:
            for chunk, stage in enumerate(held):
                chunks[stage] = chunk
        return tuple(chunks)

    def lag_ticks(self, from_stage: int, to_stage: int) -> int:
        """The transfer time between two stages: none on one rank."""
        sender, receiver = self.stage_to_rank[from_stage], self.stage_to_rank[to_stage]
        return 0 if sender == receiver else self.transfer_ticks[sender][receiver]

    def with_placement(self, placement: Placement) -> Problem:
        """The same stages on other ranks."""
        return replace(self, placement=placement)

    @property
    def placements(self) -> tuple[Problem, ...]:
        """The problem under every named placement it leaves open: itself, or for ``auto`` loop and wave.

        With a number of stages that is no multiple of the ranks, none is: stage s is on rank s mod p.
        """
        if self.placement.kind is not PlacementKind.AUTO:
            return (self,)
        if self.num_stages % self.num_ranks:
            return (self.with_placement(Placement.explicit(self.stage_to_rank)),)
        kinds = [PlacementKind.LOOP]
        if self.num_stages > self.num_ranks > 1:
            kinds.append(PlacementKind.WAVE)
        return tuple(self.with_placement(place(kind, self.num_ranks, self.num_stages)) for kind in kinds)

    def with_memory_limit(self, limit_bytes: Sequence[int] | int | None) -> Problem:
        """The same problem under another limit, for every rank or one each."""
        if isinstance(limit_bytes, int):
            limit_bytes = (limit_bytes,) * self.num_ranks
        return replace(self, memory_limit_bytes=None if limit_bytes is None else tuple(limit_bytes))


def uniform_transfers(num_ranks: int, ticks: int) -> tuple[tuple[int, ...], ...]:
    """The transfer matrix in which every pair of different ranks costs the same."""
    return tuple(tuple(0 if a == b else ticks for b in range(num_ranks)) for a in range(num_ranks))


def uniform_problem(
    num_ranks: int,
    num_microbatches: int,
    stage: StageCosts,
    *,
    transfer_ticks: int = 0,
    chunks: int = 1,
    kind: PlacementKind = PlacementKind.LOOP,
    objective: Objective = Objective.MAKESPAN,
    memory_limit_bytes: int | None = None,
    name: str = "",
) -> Problem:
    """A problem whose stages all cost the same: the setting of most published formulas.

    Parameters
    ----------
    num_ranks, num_microbatches
        Counts.
    stage
        The costs of every stage (of every chunk, with several per rank).
    transfer_ticks
        Between any two different ranks.
    chunks, kind
        Stages per rank and the named placement.
    objective, memory_limit_bytes, name
        As in :class:`Problem`, one limit for all ranks.
    """
    num_stages = num_ranks * chunks
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=num_microbatches,
        placement=place(kind, num_ranks, num_stages),
        stages=(stage,) * num_stages,
        transfer_ticks=uniform_transfers(num_ranks, transfer_ticks),
        objective=objective,
        memory_limit_bytes=None if memory_limit_bytes is None else (memory_limit_bytes,) * num_ranks,
        name=name,
    )


def _check_at_least(least: int, **values: int) -> None:
    for where, value in values.items():
        if value < least:
            raise InvalidProblemError(where, value, f"give an integer ≥ {least}")


def _check_stage(where: str, costs: StageCosts) -> None:
    if (costs.B is None) != (costs.W is None) or (costs.B is None and costs.BW is None):
        given = ", ".join(kind.value for kind, _ in costs.offered)
        raise InvalidProblemError(where, f"given {given}", "a stage gives B and W, or BW, or all three")
    for kind, cost in costs.offered:
        _check_at_least(1, **{f"{where}.{kind}.ticks": cost.ticks})
        _check_at_least(0, **{f"{where}.{kind}.alloc_bytes": cost.alloc_bytes})
        _check_at_least(0, **{f"{where}.{kind}.free_bytes": cost.free_bytes})
    _check_at_least(0, **{f"{where}.static_bytes": costs.static_bytes})


def _check_placement(problem: Problem) -> None:
    ranks = problem.placement.stage_to_rank
    where = "placement.stage_to_rank"
    if len(ranks) != len(problem.stages):
        raise InvalidProblemError(
            where, f"{len(ranks)} long", f"give one rank for each of the {len(problem.stages)} stages"
        )
    for stage, rank in enumerate(ranks):
        if not 0 <= rank < problem.num_ranks:
            raise InvalidProblemError(
                f"{where}[{stage}]", rank, f"give a rank from 0 to {problem.num_ranks - 1}"
            )
    empty = sorted(set(range(problem.num_ranks)) - set(ranks))
    if empty:
        raise InvalidProblemError(
            where,
            list(ranks) if len(ranks) <= 16 else f"{len(ranks)} long",
            f"rank {empty[0]} holds no stage; give it one, or lower num_ranks",
        )


def _check_matrix(ticks: tuple[tuple[int, ...], ...], num_ranks: int) -> None:
    where = "transfers.ticks_by_rank_pair"
    if len(ticks) != num_ranks:
        raise InvalidProblemError(where, f"{len(ticks)} long", f"give {num_ranks} rows, one per rank")
    for a, row in enumerate(ticks):
        if len(row) != num_ranks:
            raise InvalidProblemError(
                f"{where}[{a}]", f"{len(row)} long", f"give {num_ranks} entries, one per rank"
            )
        for b, value in enumerate(row):
            _check_at_least(0, **{f"{where}[{a}][{b}]": value})


def _check_sums(problem: Problem) -> None:
    ticks = max(map(max, problem.transfer_ticks)) * 2 * problem.num_stages
    memory = 0
    for costs in problem.stages:
        for _, cost in costs.offered:
            ticks += cost.ticks
            memory += cost.alloc_bytes + cost.free_bytes
        memory += costs.static_bytes
    for what, total, unit in (("ticks", ticks, "tick_seconds"), ("bytes", memory, "memory unit")):
        if total * problem.num_microbatches >= LARGEST_SUM:
            raise InvalidProblemError(
                "stages",
                f"{total} {what} per microbatch over {problem.num_microbatches} microbatches",
                f"sums must stay below 2**62; use a larger {unit}",
            )
