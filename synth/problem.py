"""The problem: what every stage costs, where it sits, what links and ranks allow.

A :class:`Problem` that exists is valid; nothing beyond its constructor checks it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from synth.errors import InvalidProblemError
from synth.feed import Feed
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
    R
        The sum of its weight gradients over its replicas, run once behind the last of them; None where there
        is nothing to sum, or where it is not planned.
    static_bytes
        Held on the stage's rank throughout: weights, gradients, optimizer state.
    weight_bytes, weight_versions
        One version of the weights, and how many are held: those beyond the first add to the static bytes.
    layers
        Names of the model's layers in this stage, for exporters.
    """

    F: OpCost
    B: OpCost | None = None
    W: OpCost | None = None
    BW: OpCost | None = None
    R: OpCost | None = None
    static_bytes: int = 0
    weight_bytes: int = 0
    weight_versions: int = 1
    layers: tuple[str, ...] = ()

    @property
    def offered(self) -> tuple[tuple[OpKind, OpCost], ...]:
        """The kinds of op the stage offers, with their costs."""
        costs = (
            (OpKind.F, self.F),
            (OpKind.B, self.B),
            (OpKind.W, self.W),
            (OpKind.BW, self.BW),
            (OpKind.R, self.R),
        )
        return tuple((kind, cost) for kind, cost in costs if cost is not None)

    @property
    def held_bytes(self) -> int:
        """What the stage holds throughout: the static bytes, and the further versions of the weights."""
        return self.static_bytes + (self.weight_versions - 1) * self.weight_bytes

    @property
    def reduce_ticks(self) -> int:
        """What summing the gradients over replicas takes, 0 where it is not planned."""
        return 0 if self.R is None else self.R.ticks

    def cost(self, kind: OpKind) -> OpCost:
        """The cost of one kind of op; the kind must be offered."""
        cost = getattr(self, kind.value)
        assert isinstance(cost, OpCost), f"the stage offers no {kind}"
        return cost

    def map_costs(self, change: Callable[[OpKind, OpCost], OpCost]) -> StageCosts:
        """The same stage, every kind of op it offers at another cost."""
        new = {kind.value: change(kind, cost) for kind, cost in self.offered}
        return replace(self, F=new["F"], B=new.get("B"), W=new.get("W"), BW=new.get("BW"), R=new.get("R"))

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
    feeds
        For every stage what feeds it and which microbatches it carries; none for a plain chain, in which
        every stage feeds the next and carries all.

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
    feeds: tuple[Feed, ...] = ()

    def __post_init__(self) -> None:
        _check_at_least(1, num_ranks=self.num_ranks, num_microbatches=self.num_microbatches)
        if not 0 < self.tick_seconds < float("inf"):
            raise InvalidProblemError("tick_seconds", self.tick_seconds, "give a finite length above 0")
        for stage, costs in enumerate(self.stages):
            _check_stage(f"stages[{stage}]", costs)
        _check_placement(self)
        _check_matrix(self.transfer_ticks, self.num_ranks)
        _check_feeds(self)
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
    def is_chain(self) -> bool:
        """Whether every stage just feeds the next, for all microbatches, and nothing is summed at the end."""
        return not self.feeds and all(costs.R is None for costs in self.stages)

    @property
    def inputs_by_stage(self) -> tuple[tuple[int, ...], ...]:
        """For every stage, those that feed its forward."""
        if self.feeds:
            return tuple(feed.inputs for feed in self.feeds)
        return tuple((stage - 1,) if stage else () for stage in range(self.num_stages))

    @property
    def outputs_by_stage(self) -> tuple[tuple[int, ...], ...]:
        """For every stage, those that its forward feeds: its backward waits for theirs."""
        outputs: list[list[int]] = [[] for _ in self.stages]
        for stage, inputs in enumerate(self.inputs_by_stage):
            for source in inputs:
                outputs[source].append(stage)
        return tuple(map(tuple, outputs))

    @property
    def replicas_by_stage(self) -> tuple[tuple[int, ...], ...]:
        """For every stage, those of the same model stage, itself among them."""
        if not self.feeds:
            return tuple((stage,) for stage in range(self.num_stages))
        alike: dict[int, list[int]] = {}
        for stage, feed in enumerate(self.feeds):
            alike.setdefault(feed.model_stage, []).append(stage)
        return tuple(tuple(alike[feed.model_stage]) for feed in self.feeds)

    def microbatches_of(self, stage: int) -> Sequence[int]:
        """The microbatches that a stage carries, ascending."""
        return self.feeds[stage].microbatches if self.feeds else range(self.num_microbatches)

    @property
    def static_bytes_by_rank(self) -> tuple[int, ...]:
        """The static bytes of every rank: the sum over its stages of what each holds throughout."""
        return tuple(sum(self.stages[s].held_bytes for s in held) for held in self.stages_by_rank)

    @property
    def work_ticks(self) -> int:
        """The least total op time of the busiest rank, over all microbatches."""
        return max(self.work_ticks_by_rank)

    @property
    def work_ticks_by_rank(self) -> tuple[int, ...]:
        """The least total op time of every rank, over all microbatches."""
        work = [0] * self.num_ranks
        for stage, (rank, costs) in enumerate(zip(self.stage_to_rank, self.stages, strict=True)):
            passes = len(self.microbatches_of(stage)) * (costs.F.ticks + costs.least_backward_ticks)
            work[rank] += passes + costs.reduce_ticks
        return tuple(work)

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
    _check_at_least(0, **{f"{where}.weight_bytes": costs.weight_bytes})
    _check_at_least(1, **{f"{where}.weight_versions": costs.weight_versions})


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
            shortened(ranks),
            f"rank {empty[0]} holds no stage; give it one, or lower num_ranks",
        )


def _check_feeds(problem: Problem) -> None:
    feeds = problem.feeds
    if not feeds:
        return
    if len(feeds) != problem.num_stages:
        raise InvalidProblemError("feeds", f"{len(feeds)} long", f"give {problem.num_stages}, one per stage")
    carried: set[int] = set()
    for stage, feed in enumerate(feeds):
        where = f"stages[{stage}]"
        carried.update(feed.microbatches)
        if list(feed.inputs) != sorted(set(feed.inputs) & set(range(stage))):
            raise InvalidProblemError(
                f"{where}.inputs", list(feed.inputs), f"give different stages below {stage}, ascending"
            )
        known = set(range(problem.num_microbatches))
        if not feed.microbatches or list(feed.microbatches) != sorted(set(feed.microbatches) & known):
            raise InvalidProblemError(
                f"{where}.microbatches",
                shortened(feed.microbatches),
                f"give at least one, ascending, of 0 to {problem.num_microbatches - 1}",
            )
        _check_at_least(0, **{f"{where}.model_stage": feed.model_stage, f"{where}.slice": feed.slice})
    if len(carried) < problem.num_microbatches:
        missing = next(i for i in range(problem.num_microbatches) if i not in carried)
        raise InvalidProblemError(
            "num_microbatches",
            problem.num_microbatches,
            f"no stage carries microbatch {missing}: let one carry it, or lower num_microbatches",
        )
    if problem.placement.kind is PlacementKind.AUTO:
        raise InvalidProblemError(
            "placement.kind", "auto", "with directions or slices, give stage_to_rank or a named map"
        )


def shortened(values: Sequence[int]) -> object:
    """A list as a message shows it: as it is, or where it is long by its length."""
    return list(values) if len(values) <= 16 else f"{len(values)} long"


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
        memory += costs.held_bytes
    for what, total, unit in (("ticks", ticks, "tick_seconds"), ("bytes", memory, "memory unit")):
        if total * problem.num_microbatches >= LARGEST_SUM:
            raise InvalidProblemError(
                "stages",
                f"{total} {what} per microbatch over {problem.num_microbatches} microbatches",
                f"sums must stay below 2**62; use a larger {unit}",
            )
