"""BPipe: 1F1B whose first ranks keep some of their activations on the last ones.

Symbols: p ranks, m microbatches, c ticks per transfer; F, BW ticks of one stage; A bytes that F allocates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from synth.baselines.flushed import one_f_one_b, one_f_one_b_bubble_ticks
from synth.baselines.shapes import chain_ranks, equal_ticks, holds_from_forward_on
from synth.errors import BaselineUndefinedError
from synth.feed import Feed
from synth.ops import Op, OpKind, RankOrders
from synth.placement import Placement
from synth.problem import OpCost, Problem, StageCosts
from synth.schedule import Schedule
from synth.timing import schedule_orders

_NAME = "bpipe"

STORAGE_TICKS = 1
"""How long taking an activation in, and handing it back, keeps the rank that stores it busy."""

_Placed = tuple[int, int, int, Op]
"""An op and where it comes in its rank's order: the tick, then the microbatch, then storage first."""


def bpipe_problem(problem: Problem) -> Problem:
    """A plain chain in which the first ranks of 1F1B evict what is above the cap to the last ranks.

    A rank of depth x has min(p-x, m) microbatches in flight. Where that is more than the cap of ⌈(p+2)/2⌉
    activations, its stage becomes two: of as many microbatches one keeps the cap less one, the other evicts
    the rest. F of an evicted microbatch frees as it ends all that it kept, and its backward allocates that
    again; between them a storage stage on the rank of depth p-1-x holds it, whose F takes it in and whose BW
    hands it back. Either takes a tick of that rank, and a transfer what that of a boundary activation takes,
    too little where a link is slow. The weights are held once.

    A problem that is this already stays as it is.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages, or the stages are none that this made.
    """
    if not problem.feeds:
        return _evicting(problem)
    if not _is_evicting(problem):
        raise BaselineUndefinedError(
            _NAME,
            f"the {problem.num_stages} stages are not those of a chain whose first ranks evict activations: "
            "give the plain chain, one stage per rank",
        )
    return problem


def bpipe(problem: Problem) -> RankOrders:
    """BPipe: 1F1B, with a partner's storage ops where activations come and where they are wanted back.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> problem = bpipe_problem(uniform_problem(4, 4, StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))))
    >>> print(render_grid(schedule_orders(problem, bpipe(problem)), last_slot=17))
     rank 0  0F0  0F1  1F2  1F3  .    .    .    .    .    .    .    .    0BW0----- .    0BW1----- …
     rank 1  .    3F0  3F1  3F2  .    .    .    .    .    .    3BW0----- 3F3  3BW1----- .    3BW2- …
     rank 2  .    .    4F0  4F1  .    .    .    .    4BW0----- 4F2  4BW1----- 4F3  4BW2----- . …
     rank 3  .    .    .    2F2  5F0  2F3  5BW0----- 5F1  5BW1----- 5F2  5BW2----- 5F3  2BW2 2BW3 …

    Stage 1 is the first stage for the microbatches that it evicts, stage 2 their storage. An activation is
    taken in before the first op that the partner starts after it came in 1F1B, and handed back before the
    last that it starts in time. In the time of 1F1B every op lies behind all that it waits for, so nothing
    can deadlock. With free links it ends at most two ticks later than 1F1B for every activation evicted.

    References
    ----------
    Kim et al., "BPipe: Memory-Balanced Pipeline Parallelism for Training Large Language Models", ICML 2023;
    Huang et al., "Re-evaluating the Memory-balanced Pipeline Parallelism: BPipe", arXiv 2401.02088.
    """
    stages = _stages_by_depth(problem)
    chain = _chain(problem)
    unsummed = replace(chain, stages=tuple(replace(costs, R=None) for costs in chain.stages))
    planned = schedule_orders(unsummed, one_f_one_b(unsummed))
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for depth, rank in enumerate(chain.stage_to_rank):
        kept, *others = stages[depth]
        leaving = frozenset(problem.microbatches_of(others[0]) if others else ())
        own = [
            (start, op.microbatch, 2, op._replace(stage=others[0] if op.microbatch in leaving else kept))
            for op, start, _ in planned.ranks[rank]
        ]
        stored = _stored(problem, planned, depth, stages[-1 - depth])
        orders[rank] = tuple(op for *_, op in _by_tick([*own, *stored]))
    return tuple(orders)


def bpipe_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+BW) + 2 - ⌊p/2⌋ for m = p ≥ 4, no transfers and equal stages; storage ops count as work.

    1F1B's where nothing is evicted, with at most ⌈(p+2)/2⌉ microbatches or ranks.
    """
    chain = _chain(problem)
    flushed = one_f_one_b_bubble_ticks(chain)
    p, m = chain.num_ranks, chain.num_microbatches
    if flushed is None or not problem.feeds:
        return flushed
    ticks = equal_ticks(chain, divided=False)
    if m != p or ticks is None or ticks.transfer or ticks.W:
        return None
    return flushed + 2 - p // 2


def bpipe_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """⌈(p+2)/2⌉·A on the ranks that evict; elsewhere what 1F1B holds and what is stored, at most as much.

    Plus static bytes; for any costs, if F allocates and backward frees A.
    """
    chain = _chain(problem)
    if not all(map(holds_from_forward_on, chain.stages)):
        return None
    peaks = list(problem.static_bytes_by_rank)
    ranks = chain.stage_to_rank
    for depth, costs in enumerate(chain.stages):
        share = _Share.of(chain, depth)
        peaks[ranks[depth]] += (share.kept + bool(share.evicted)) * costs.F.alloc_bytes
        peaks[ranks[-1 - depth]] += share.evicted * costs.F.alloc_bytes
    return tuple(peaks)


@dataclass(frozen=True, slots=True)
class _Share:
    """How many of the microbatches in flight on a rank it keeps, and how many it evicts."""

    kept: int
    evicted: int

    @classmethod
    def of(cls, chain: Problem, depth: int) -> _Share:
        """The share of the rank of a depth: an evicted one is there while its F or its backward runs."""
        in_flight, cap = min(chain.num_ranks - depth, chain.num_microbatches), (chain.num_ranks + 3) // 2
        return cls(in_flight, 0) if in_flight <= cap else cls(cap - 1, in_flight - cap + 1)

    def microbatches(self, chain: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All those kept and all those evicted: of any in flight together so many."""
        classes: tuple[list[int], list[int]] = [], []
        for i in range(chain.num_microbatches):
            classes[i % (self.kept + self.evicted) >= self.kept].append(i)
        return tuple(classes[0]), tuple(classes[1])


def _evicting(chain: Problem) -> Problem:
    """A plain chain, the stages of the ranks that evict divided, with their storage stages."""
    ranks = chain_ranks(_NAME, chain)
    laid: list[tuple[StageCosts, int, Feed]] = []
    before: tuple[int, ...] = ()
    for depth, costs in enumerate(chain.stages):
        here = len(laid)
        share = _Share.of(chain, depth)
        kept, evicted = share.microbatches(chain)
        laid.append((costs, ranks[depth], Feed(inputs=before, microbatches=kept, model_stage=depth)))
        if evicted:
            leaving = Feed(inputs=before, microbatches=evicted, model_stage=depth)
            laid.append((_evicted(costs), ranks[depth], leaving))
            laid.append((_storage(costs), ranks[-1 - depth], replace(leaving, inputs=(here + 1,))))
        before = (here, here + 1) if evicted else (here,)
    if len(laid) == chain.num_stages:
        return chain
    stages, placed, feeds = zip(*laid, strict=True)
    return replace(chain, stages=stages, placement=Placement.explicit(placed), feeds=feeds)


def _evicted(costs: StageCosts) -> StageCosts:
    """A stage whose F leaves nothing behind, and whose backward begins by allocating it again."""
    left = _left_bytes(costs)

    def moved(kind: OpKind, cost: OpCost) -> OpCost:
        if kind is OpKind.F:
            return replace(cost, free_bytes=cost.free_bytes + left)
        return cost if kind is OpKind.W else replace(cost, alloc_bytes=cost.alloc_bytes + left)

    here_too = replace(costs, R=None, static_bytes=0, weight_bytes=0, weight_versions=1)
    return here_too.map_costs(moved)


def _storage(costs: StageCosts) -> StageCosts:
    """Where the activations of an evicted microbatch are between its F and its backward."""
    left = _left_bytes(costs)
    return StageCosts(
        F=OpCost(ticks=STORAGE_TICKS, alloc_bytes=left), BW=OpCost(ticks=STORAGE_TICKS, free_bytes=left)
    )


def _left_bytes(costs: StageCosts) -> int:
    """What F leaves for the backward."""
    return max(0, costs.F.alloc_bytes - costs.F.free_bytes)


def _is_evicting(problem: Problem) -> bool:
    """Whether the stages are those that a chain becomes, whatever they cost."""
    kept = [stages[0] for stages in _stages_by_depth(problem)]
    if sorted(problem.stage_to_rank[stage] for stage in kept) != list(range(problem.num_ranks)):
        return False
    again = _evicting(_chain(problem))
    return (again.feeds, again.stage_to_rank) == (problem.feeds, problem.stage_to_rank)


def _stages_by_depth(problem: Problem) -> list[list[int]]:
    """For every model stage its stages: of those kept, and where some are evicted, of these and storage."""
    if not problem.feeds:
        return [[stage] for stage in range(problem.num_stages)]
    found: dict[int, list[int]] = {}
    for stage, feed in enumerate(problem.feeds):
        found.setdefault(feed.model_stage, []).append(stage)
    return list(found.values())


def _chain(problem: Problem) -> Problem:
    """The plain chain of the stages that keep microbatches."""
    kept = [stages[0] for stages in _stages_by_depth(problem)]
    return replace(
        problem,
        stages=tuple(problem.stages[stage] for stage in kept),
        placement=Placement.explicit([problem.stage_to_rank[stage] for stage in kept]),
        feeds=(),
    )


def _stored(problem: Problem, planned: Schedule, depth: int, evicting: Sequence[int]) -> Iterator[_Placed]:
    """The storage ops of one model stage on the rank of a depth."""
    if len(evicting) == 1:
        return
    ranks = planned.problem.stage_to_rank
    sender, here = ranks[-1 - depth], ranks[depth]
    there, back = problem.transfer_ticks[sender][here], problem.transfer_ticks[here][sender]
    left = {timed.op.microbatch: timed.end for timed in planned.ranks[sender] if timed.op.kind is OpKind.F}
    backwards = [timed for timed in planned.ranks[sender] if timed.op.kind in (OpKind.B, OpKind.BW)]
    wanted = {timed.op.microbatch: timed.start for timed in backwards}
    begins = [timed.start for timed in planned.ranks[here]]
    _, _, storage = evicting
    for i in problem.microbatches_of(storage):
        taken_in = min(left[i] + there, wanted[i])
        in_time = bisect_right(begins, wanted[i] - back - STORAGE_TICKS)
        handed_back = max(taken_in, begins[in_time - 1] if in_time else 0)
        yield taken_in, i, 0, Op(OpKind.F, storage, i)
        yield handed_back, i, 1, Op(OpKind.BW, storage, i)


def _by_tick(placed: Sequence[_Placed]) -> list[_Placed]:
    """By tick, storage ops before the op that starts then, of the microbatches in their order."""
    return sorted(placed, key=lambda one: (one[0], one[2] == 2, one[1], one[2]))
