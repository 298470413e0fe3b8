"""Small problems and schedules that can be checked by hand."""

from __future__ import annotations

from synth.ops import Op, RankOrders, TimedOp
from synth.placement import Placement
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_transfers
from synth.schedule import Schedule

DIVIDED = StageCosts(
    F=OpCost(ticks=2, alloc_bytes=2),
    B=OpCost(ticks=2, free_bytes=1),
    W=OpCost(ticks=1, free_bytes=1),
)
"""F 2, B 2, W 1 ticks; a microbatch holds 2 bytes from F, 1 from the end of B, none from the end of W."""

UNDIVIDED = StageCosts(F=OpCost(ticks=2, alloc_bytes=2), BW=OpCost(ticks=3, free_bytes=2))
"""The same stage with its backward in one piece."""

EITHER = StageCosts(F=DIVIDED.F, B=DIVIDED.B, W=DIVIDED.W, BW=UNDIVIDED.BW)
"""The same stage, leaving the choice."""


def two_by_two(
    stage: StageCosts = DIVIDED,
    *,
    transfer_ticks: int = 1,
    links: Links = Links.FREE,
    memory_limit_bytes: tuple[int, ...] | None = None,
    objective: Objective = Objective.MAKESPAN,
    num_microbatches: int = 2,
    stage_to_rank: tuple[int, ...] = (0, 1),
) -> Problem:
    """Two ranks, two microbatches, the same costs for every stage, one tick between the ranks."""
    num_ranks = max(stage_to_rank) + 1
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=num_microbatches,
        placement=Placement.explicit(stage_to_rank),
        stages=(stage,) * len(stage_to_rank),
        transfer_ticks=uniform_transfers(num_ranks, transfer_ticks),
        links=links,
        memory_limit_bytes=memory_limit_bytes,
        objective=objective,
    )


def orders_of(*ranks: str) -> RankOrders:
    """Orders from text, one string per rank: ``orders_of("0F0 0B0", "1F0 1B0")``."""
    return tuple(tuple(map(Op.parse, rank.split())) for rank in ranks)


def schedule_of(problem: Problem, *ranks: str) -> Schedule:
    """A schedule from text, one string per rank, each op with its start: ``"0F0@0 0B0@7"``.

    Every op ends after the problem's ticks, unless the end is given: ``"0F0@0_5"``. An op that the problem
    lacks takes 1 tick.
    """
    return Schedule(problem, tuple(tuple(_timed(problem, word) for word in rank.split()) for rank in ranks))


def good_schedule(problem: Problem | None = None) -> Schedule:
    """A valid schedule of :func:`two_by_two` in which no op can start earlier.

    Makespan 15, rank span 15, work 10, peaks of 4 and 3 bytes.

    >>> from synth.grid import render_grid
    >>> print(render_grid(good_schedule()))
     rank 0  F0--- F1--- .  .  .  .  B0--- W0 .  B1--- W1
     rank 1  .  .  .  F0--- B0--- F1--- B1--- W0 W1 .  .
    """
    return schedule_of(
        two_by_two() if problem is None else problem,
        "0F0@0 0F1@2 0B0@8 0W0@10 0B1@12 0W1@14",
        "1F0@3 1B0@5 1F1@7 1B1@9 1W0@11 1W1@12",
    )


def _timed(problem: Problem, word: str) -> TimedOp:
    name, _, times = word.partition("@")
    op = Op.parse(name)
    start, _, end = times.partition("_")
    if end:
        return TimedOp(op, int(start), int(end))
    offered = dict(problem.stages[op.stage].offered) if op.stage < problem.num_stages else {}
    ticks = offered[op.kind].ticks if op.kind in offered else 1
    return TimedOp(op, int(start), int(start) + ticks)
