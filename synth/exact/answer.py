"""What an exact engine answers, and how times that it found become orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from synth.ops import Op, OpKind, RankOrders
from synth.problem import Objective, Problem
from synth.schedule import Schedule
from synth.timing import schedule_orders

Stream = tuple[OpKind, int]
"""One kind of op on one stage: its microbatches run in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOrders:
    """Orders that an engine found.

    Parameters
    ----------
    orders
        For every rank, its ops in execution order.
    release_ticks
        For every rank, when the engine starts it: a rank's span may be shorter when it begins later.
    """

    orders: RankOrders
    release_ticks: tuple[int, ...]

    def schedule(self, problem: Problem) -> Schedule:
        """The orders with their exact times: from the releases where only they give the better value."""
        earliest = schedule_orders(problem, self.orders)
        if problem.objective is Objective.MAKESPAN:
            return earliest
        released = schedule_orders(problem, self.orders, release_ticks=self.release_ticks)
        return min(earliest, released, key=lambda schedule: schedule.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactAnswer:
    """What an engine found and proved within its limits.

    Parameters
    ----------
    found
        Its best orders, None where it found none.
    lower_bound
        Ticks that no schedule of the problem can beat.
    is_complete
        Whether the engine came to its end rather than to its limits.
    """

    found: FoundOrders | None
    lower_bound: int
    is_complete: bool


def orders_by_start(problem: Problem, ran: Iterable[tuple[int, Op]], unit_ticks: int) -> FoundOrders:
    """Orders from the start of every op that runs, in units; no two ops of a rank start together."""
    timed: list[list[tuple[int, Op]]] = [[] for _ in range(problem.num_ranks)]
    for start, op in sorted(ran):
        timed[problem.stage_to_rank[op.stage]].append((start, op))
    return FoundOrders(
        orders=tuple(tuple(op for _, op in rank_ops) for rank_ops in timed),
        release_ticks=tuple(rank_ops[0][0] * unit_ticks for rank_ops in timed),
    )


def orders_from_starts(problem: Problem, starts: Mapping[Stream, list[int]], unit_ticks: int) -> FoundOrders:
    """Orders from start times per stream.

    Microbatches are identical, so the n-th op of every stream may be of microbatch n: whatever ran early
    enough for the n-th op it feeds before, still does when both are sorted, and memory counts ops and not
    microbatches. A stage's B and BW count as one stream, and its n-th W follows its n-th B.

    Parameters
    ----------
    problem
        The problem.
    starts
        For every stream that runs, the starts of its ops in any order; no two ops of a rank start together.
    unit_ticks
        How many ticks a unit of the starts is.
    """
    timed: list[list[tuple[int, Op]]] = [[] for _ in range(problem.num_ranks)]
    for stage, rank in enumerate(problem.stage_to_rank):
        backwards = sorted(
            (start, kind) for kind in (OpKind.B, OpKind.BW) for start in starts.get((kind, stage), [])
        )
        divided = [n for n, (_, kind) in enumerate(backwards) if kind is OpKind.B]
        timed[rank] += [
            (start, Op(OpKind.F, stage, n)) for n, start in enumerate(sorted(starts[OpKind.F, stage]))
        ]
        timed[rank] += [(start, Op(kind, stage, n)) for n, (start, kind) in enumerate(backwards)]
        weights = sorted(starts.get((OpKind.W, stage), []))
        timed[rank] += [(start, Op(OpKind.W, stage, n)) for start, n in zip(weights, divided, strict=True)]
    return orders_by_start(problem, chain.from_iterable(timed), unit_ticks)
