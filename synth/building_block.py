"""Building blocks: one microbatch's ops with relative start times, repeated every so many ticks.

A pipeline schedule is a small pattern laid down once per microbatch ("Pipeline Parallelism with Controllable
Memory", arXiv 2405.15362). The block's times only decide the order of each rank: real times
follow by longest path, which is what the paper calls squeezing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from synth.errors import InputError, InvalidOrdersError
from synth.ops import PASSES, Op, OpKind, RankOrders
from synth.problem import Problem, StageCosts

_DOWN_THE_CHAIN = {OpKind.F: 0, OpKind.B: 1, OpKind.BW: 1, OpKind.W: 2}


class BlockOp(NamedTuple):
    """One op of a block: its kind, its stage and its start for microbatch 0, in ticks."""

    kind: OpKind
    stage: int
    start: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}@{self.start}"


class PlacedOp(NamedTuple):
    """An op of an unrolled block, with the start that the block gives it."""

    start: int
    op: Op


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildingBlock:
    """One microbatch's ops and the interval after which the next microbatch does the same.

    Op k of microbatch i starts at ``start_k + i * period_ticks``.

    Parameters
    ----------
    period_ticks
        The repeat interval, at least 1.
    ops
        Each (kind, stage) at most once. Starts are relative and may be negative.

    Raises
    ------
    InputError
        When the period is below 1 or an op stands twice.
    """

    period_ticks: int
    ops: tuple[BlockOp, ...]

    def __post_init__(self) -> None:
        if self.period_ticks < 1:
            raise InputError(f"a building block repeats every {self.period_ticks} ticks: give at least 1")
        seen: set[tuple[OpKind, int]] = set()
        for op in self.ops:
            if (op.kind, op.stage) in seen:
                raise InputError(f"{op.stage}{op.kind} stands twice in a building block: give it one start")
            seen.add((op.kind, op.stage))

    @property
    def start_ticks(self) -> dict[tuple[OpKind, int], int]:
        """The start of every (kind, stage) for microbatch 0."""
        return {(op.kind, op.stage): op.start for op in self.ops}


def unroll(blocks: Sequence[BuildingBlock], problem: Problem) -> RankOrders:
    """The orders that a block repeated for every microbatch gives, or several of one period that take turns.

    Microbatch ``j * K + k`` starts its ops j periods after the starts of block k, of K. Where one block for
    every microbatch does not fit the memory, K that differ may.

    The orders cannot deadlock when no op of a block starts before an op it waits for: sorting all ops by
    start, and equal starts by microbatch, then down the forward and up the backward chain, puts every op
    behind what it waits for, and each rank's order is a part of that one sequence.

    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(2, 3, StageCosts(F=one, B=one, W=one))
    >>> starts = {"F": (0, 1), "B": (4, 2), "W": (5, 3)}
    >>> block = BuildingBlock(
    ...     period_ticks=3,
    ...     ops=tuple(BlockOp(OpKind(k), s, t) for k, row in starts.items() for s, t in enumerate(row)),
    ... )
    >>> for order in unroll([block], problem):
    ...     print(*order)
    0F0 0F1 0B0 0W0 0F2 0B1 0W1 0B2 0W2
    1F0 1B0 1W0 1F1 1B1 1W1 1F2 1B2 1W2

    Parameters
    ----------
    blocks
        At least one, their starts on one time axis. Their ops should be those of the problem; the orders hold
        what the blocks hold.
    problem
        Gives the microbatches and the placement.

    Raises
    ------
    InvalidOrdersError
        When a block names a stage that the problem lacks.
    """
    ranks: list[list[PlacedOp]] = [[] for _ in range(problem.num_ranks)]
    for turn, block in enumerate(blocks):
        turns = len(range(turn, problem.num_microbatches, len(blocks)))
        for rank, placed in zip(
            ranks, unroll_with_starts(block, replace(problem, num_microbatches=max(1, turns))), strict=True
        ):
            rank += (
                PlacedOp(start, Op(op.kind, op.stage, op.microbatch * len(blocks) + turn))
                for start, op in placed
                if op.microbatch < turns
            )
    return tuple(tuple(placed.op for placed in sorted(rank, key=_sequence)) for rank in ranks)


def unroll_with_starts(block: BuildingBlock, problem: Problem) -> tuple[tuple[PlacedOp, ...], ...]:
    """The ops that one block repeated for every microbatch gives, with their starts."""
    ranks: list[list[PlacedOp]] = [[] for _ in range(problem.num_ranks)]
    for kind, stage, start in block.ops:
        if not 0 <= stage < problem.num_stages:
            raise InvalidOrdersError(
                f"the building block has {stage}{kind}, but the problem's stages are 0 to "
                f"{problem.num_stages - 1}"
            )
        ranks[problem.stage_to_rank[stage]] += (
            PlacedOp(start + i * block.period_ticks, Op(kind, stage, i))
            for i in range(problem.num_microbatches)
        )
    return tuple(tuple(sorted(rank, key=_sequence)) for rank in ranks)


def block_violations(block: BuildingBlock, problem: Problem) -> list[str]:
    """What keeps a block's own times from being a schedule of the problem, one sentence each.

    A block without violations repeats without a gap or overlap of its own: its unrolled orders reach at
    least one microbatch per period, and their peak memory is within :func:`lifespan_peak_bytes`.
    """
    found = _missing_ops(block, problem)
    return found or [*_late_predecessors(block, problem), *_overlaps(block, problem)]


def lifespan_peak_bytes(block: BuildingBlock, problem: Problem) -> tuple[int, ...]:
    """An upper bound on each rank's peak memory: Σ over its stages of ``ceil(lifespan / period) * bytes``.

    A stage's lifespan is from the start of its F to the end of its last op; at most ``ceil(lifespan /
    period)`` microbatches are within it at once, each holding no more than what one microbatch ever holds on
    that stage. Static bytes are included. It holds for a block without violations whose stages free what
    they allocate.

    References
    ----------
    arXiv 2405.15362, equation 1 (there all is freed at W, so ``bytes`` is F's allocation).
    """
    starts = block.start_ticks
    peaks = list(problem.static_bytes_by_rank)
    for stage, costs in enumerate(problem.stages):
        kinds = [kind for kind in PASSES if (kind, stage) in starts]
        lifespan = max(starts[k, stage] + costs.cost(k).ticks for k in kinds) - starts[OpKind.F, stage]
        in_flight = min(-(-lifespan // block.period_ticks), problem.num_microbatches)
        peaks[problem.stage_to_rank[stage]] += in_flight * _held_bytes(costs, kinds)
    return tuple(peaks)


def _sequence(placed: PlacedOp) -> tuple[int, int, int, int]:
    kind, stage, microbatch = placed.op
    return placed.start, microbatch, _DOWN_THE_CHAIN[kind], stage if kind is OpKind.F else -stage


def _held_bytes(costs: StageCosts, kinds: list[OpKind]) -> int:
    """The most that one microbatch holds on a stage, its ops running in the order F, B, W."""
    live = peak = 0
    for kind in kinds:
        live += costs.cost(kind).alloc_bytes
        peak = max(peak, live)
        live -= costs.cost(kind).free_bytes
    return peak


def _missing_ops(block: BuildingBlock, problem: Problem) -> list[str]:
    starts = block.start_ticks
    found = [
        f"{stage}{kind} is in the block, but the problem does not offer it"
        for kind, stage in starts
        if not 0 <= stage < problem.num_stages or getattr(problem.stages[stage], kind.value) is None
    ]
    for stage in range(problem.num_stages):
        kinds = {kind for kind in PASSES if (kind, stage) in starts}
        if kinds not in ({OpKind.F, OpKind.B, OpKind.W}, {OpKind.F, OpKind.BW}):
            given = ", ".join(sorted(kinds)) or "nothing"
            found.append(f"stage {stage} has {given}; it needs F, B and W, or F and BW")
    return found


def _late_predecessors(block: BuildingBlock, problem: Problem) -> list[str]:
    starts = block.start_ticks
    found = []
    for source, target in _dependencies(problem, starts):
        ready = starts[source] + problem.stages[source[1]].cost(source[0]).ticks
        ready += problem.lag_ticks(source[1], target[1])
        if starts[target] < ready:
            found.append(
                f"{target[1]}{target[0]} starts at {starts[target]}, {ready - starts[target]} ticks before "
                f"{source[1]}{source[0]} is there"
            )
    return found


def _dependencies(
    problem: Problem, starts: dict[tuple[OpKind, int], int]
) -> list[tuple[tuple[OpKind, int], tuple[OpKind, int]]]:
    """The (source, target) pairs of one microbatch, each a (kind, stage)."""
    pairs = []
    for stage in range(problem.num_stages):
        backward = _backward_kind(starts, stage)
        if stage > 0:
            pairs.append(((OpKind.F, stage - 1), (OpKind.F, stage)))
            pairs.append(((backward, stage), (_backward_kind(starts, stage - 1), stage - 1)))
        pairs.append(((OpKind.F, stage), (backward, stage)))
        if backward is OpKind.B:
            pairs.append(((OpKind.B, stage), (OpKind.W, stage)))
    return pairs


def _backward_kind(starts: dict[tuple[OpKind, int], int], stage: int) -> OpKind:
    return OpKind.B if (OpKind.B, stage) in starts else OpKind.BW


def _overlaps(block: BuildingBlock, problem: Problem) -> list[str]:
    """Ops of one rank that meet when the block is laid on a circle of one period."""
    period = block.period_ticks
    circles: list[list[tuple[int, int, BlockOp]]] = [[] for _ in range(problem.num_ranks)]
    for op in block.ops:
        ticks = problem.stages[op.stage].cost(op.kind).ticks
        circles[problem.stage_to_rank[op.stage]].append((op.start % period, ticks, op))
    found = []
    for rank, circle in enumerate(circles):
        circle.sort(key=lambda placed: placed[0])
        for (start, ticks, op), (following, _, other) in zip(
            circle, [*circle[1:], (circle[0][0] + period, 0, circle[0][2])], strict=True
        ):
            if start + ticks > following:
                found.append(
                    f"on rank {rank} {op} and {other} overlap by {start + ticks - following} ticks "
                    f"when repeated every {period}"
                )
    return found
