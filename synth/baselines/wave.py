"""Hanayo: an even number of chunks per rank on a wave, microbatch by microbatch into the first idle slots.

Symbols: p ranks, m microbatches, v = 2W stages per rank for W waves; F, BW ticks of one stage (one chunk);
A bytes that the F of one stage allocates.
"""

from __future__ import annotations

from synth.baselines.shapes import equal_activation_bytes, equal_ticks, wave_ranks, with_offered_backwards
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_NAME = "hanayo"


def hanayo(problem: Problem) -> RankOrders:
    """Hanayo: p microbatches at a time ride the waves, each as early as those before it leave room.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> chunk = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    >>> problem = uniform_problem(4, 4, chunk, chunks=2, kind=PlacementKind.WAVE)
    >>> print(render_grid(schedule_orders(problem, hanayo(problem)), last_slot=17))
     rank 0  0F0  0F1  0F2  0F3  .    .    .    7F0  7BW0----- 7F1  7BW1----- 7F2  7BW2----- 7F3 …
     rank 1  .    1F0  1F1  1F2  1F3  .    6F0  .    6F1  .    6BW0----- 6F2  6BW1----- 6F3  6BW2- …
     rank 2  .    .    2F0  2F1  2F2  5F0  2F3  5F1  .    5F2  .    5F3  5BW0----- .    5BW1----- …
     rank 3  .    .    .    3F0  4F0  3F1  4F1  3F2  4F2  3F3  4F3  .    .    .    4BW0----- 3BW0- …

    On a grid of slots, one for F and two for BW, a microbatch takes on its way down and up all waves and back
    the first idle slots one behind the other; the next p microbatches start where the first one of the p
    before has ended. The orders follow from the slots, whatever the problem's costs.
    At BW = 2F the bubble is 4(p-1)F for m = p, and every further p microbatches add (2p-3)F; the fullest rank
    holds p·v·A, as under 1F1B. The paper draws m = p; how more groups follow is not in it.

    References
    ----------
    Liu et al., "Hanayo: Harnessing Wave-like Pipeline Parallelism for Enhanced Large Model Training
    Efficiency", arXiv 2308.15762, SC 2023.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no wave of an even number of chunks.
    """
    wave_ranks(_NAME, problem)
    slots = _Slots(problem.num_ranks)
    begin = 0
    for first in range(0, problem.num_microbatches, problem.num_ranks):
        group = range(first, min(first + problem.num_ranks, problem.num_microbatches))
        ends = [slots.insert(_way(problem, microbatch), begin) for microbatch in group]
        begin = ends[0]
    return tuple(with_offered_backwards(problem, slots.order(rank)) for rank in range(problem.num_ranks))


def hanayo_bubble_ticks(problem: Problem) -> int | None:
    """4(p-1)F + (m/p - 1)(2p-3)F; exact for equal stages, BW = 2F, no transfers, m a multiple of p.

    At m = p a share of (2p-2)/(3pW+2p-2); the paper's simplified (2p-2)/(3pW+p-1) has a shorter step below.
    """
    wave_ranks(_NAME, problem)
    ticks = equal_ticks(problem, divided=False)
    groups, rest = divmod(problem.num_microbatches, problem.num_ranks)
    if ticks is None or ticks.W or ticks.transfer or ticks.B != 2 * ticks.F or rest:
        return None
    p = problem.num_ranks
    return (4 * (p - 1) + (groups - 1) * (2 * p - 3)) * ticks.F if p > 1 else 0


def hanayo_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(p·v - max(0, p-1-i-⌊i/2⌋))·A on the i-th rank down, plus static bytes; equal stages, F allocates A.

    Exact for m a multiple of p with two or more waves, and for m = p with one.
    """
    down = wave_ranks(_NAME, problem)
    activation = equal_activation_bytes(problem)
    p, m = problem.num_ranks, problem.num_microbatches
    if activation is None or m % p or (m > p > 1 and problem.num_stages == 2 * p):
        return None
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(down):
        peaks[rank] += (problem.num_stages - max(0, p - 1 - depth - depth // 2)) * activation
    return tuple(peaks)


def _way(problem: Problem, microbatch: int) -> list[tuple[int, Op]]:
    """A microbatch's ops with their ranks, one behind the other."""
    stages = list(enumerate(problem.stage_to_rank))
    forward = [(rank, Op(OpKind.F, stage, microbatch)) for stage, rank in stages]
    return forward + [(rank, Op(OpKind.BW, stage, microbatch)) for stage, rank in reversed(stages)]


class _Slots:
    """Every rank's slots, filled microbatch by microbatch: F lasts one, BW two."""

    def __init__(self, num_ranks: int) -> None:
        self.taken: list[set[int]] = [set() for _ in range(num_ranks)]
        self.starts: list[dict[int, Op]] = [{} for _ in range(num_ranks)]

    def insert(self, way: list[tuple[int, Op]], begin: int) -> int:
        """Put ops into the first idle slots from ``begin`` on, one behind the other; the end of the last."""
        slot = begin
        for rank, op in way:
            length = 1 if op.kind is OpKind.F else 2
            taken = self.taken[rank]
            while not taken.isdisjoint(range(slot, slot + length)):
                slot += 1
            taken.update(range(slot, slot + length))
            self.starts[rank][slot] = op
            slot += length
        return slot

    def order(self, rank: int) -> list[Op]:
        """A rank's ops by slot."""
        return [op for _, op in sorted(self.starts[rank].items())]
