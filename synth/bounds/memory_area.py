"""The memory-area bound: what every microbatch holds for how long, against what a rank may hold.

Under a memory limit a steady state has a shortest period that the work alone does not show. Byte-ticks tell:
every microbatch holds some bytes on a rank from its forward on, at the least for the round trip through the
stages behind and back; and a rank has its room, times its span, to give.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil

from synth.bounds.bound import Bound
from synth.bounds.chains import forward_heads, round_trip_ticks
from synth.problem import Objective, OpCost, Problem


def memory_area_bound(problem: Problem) -> Bound:
    """Per rank: the byte-ticks of all microbatches, over the bytes that there is room for.

    Let the ops of a rank run within ``[0, H]``. What is live at any time is what started ops have allocated
    less what ended ones have freed, and at most the room R; so its integral is at most ``R * H``. That is a
    sum over microbatches and stages: what a microbatch's first j ops on a stage leave is held from the start
    of the j-th to the start of the next, which the chains bound from below, and what an op frees it holds
    besides while it runs. Nothing hangs on what the other microbatches do, so m times the least that one can
    hold is within ``R * H``: a steady state's period is at least that share of R, the whole m periods.

    The room is not full at once, nor until the last: the ops of a rank take time to fill it. Up to a time t,
    no more can be held than t times the best rate at which ops add bytes while they run, and one op's
    allocation; until the end, no more than what can be freed by then. What is lost by that is added.

    Holds for both objectives, for any number of microbatches; for the makespan the wait for the first
    microbatch adds.

    References
    ----------
    Pipeline Parallelism with Controllable Memory, arXiv 2405.15362, section 3: lifespans over the interval
    are the peak memory, for a schedule that repeats without loss.
    """
    best = Bound("memory area", 0, "")
    if problem.memory_limit_bytes is None:
        return best
    heads, statics = forward_heads(problem), problem.static_bytes_by_rank
    for rank, held in enumerate(problem.stages_by_rank):
        room = problem.memory_limit_bytes[rank] - statics[rank]
        areas = [_least_area(problem, stage) for stage in held]
        if room <= 0 or None in areas:
            continue
        each = sum(area for area in areas if area is not None)
        lost = _lost_area(problem, rank, room, each)
        wait = heads[held[0]] if problem.objective is Objective.MAKESPAN else 0
        ticks = wait + ceil((problem.num_microbatches * each + lost) / room)
        if ticks > best.ticks:
            best = Bound(
                "memory area",
                ticks,
                f"a microbatch holds {each} byte-ticks of rank {rank}'s {room} bytes at the least, so none "
                f"follows another within {ceil(Fraction(each, room))} ticks on average"
                + (f"; its first microbatch takes {wait} to come down" if wait else ""),
            )
    return best


def _least_area(problem: Problem, stage: int) -> int | None:
    """The least byte-ticks of one microbatch on a stage; None where it may free more than it holds."""
    turn = problem.stages[stage].F.ticks + round_trip_ticks(problem, stage, stage)
    areas = []
    for ops in _ways(problem, stage):
        until_next = [turn, *(op.ticks for op in ops[1:])]
        held = area = 0
        for op, ticks in zip(ops, until_next, strict=True):
            held += _net(op)
            if held < 0:
                return None
            area += held * ticks + op.free_bytes * op.ticks
        areas.append(area)
    return min(areas)


def _lost_area(problem: Problem, rank: int, room: int, each: int) -> Fraction:
    """Byte-ticks of room that no order can use, while the rank fills its memory and while it empties it."""
    ops = list(_ops(problem, rank))
    left = problem.num_microbatches * sum(
        sum(map(_net, way)) for stage in problem.stages_by_rank[rank] for way in _ways(problem, stage)
    )
    fill, fill_ticks = _ramp(room, max(op.alloc_bytes for op in ops), [(_net(op), op.ticks) for op in ops])
    empty, empty_ticks = _ramp(
        room - left, max(op.free_bytes for op in ops), [(-_net(op), op.ticks) for op in ops]
    )
    lasts = max(Fraction(problem.num_microbatches * each, room), Fraction(problem.work_ticks_by_rank[rank]))
    return fill + empty if fill_ticks + empty_ticks <= lasts else Fraction(0)  # else the two would overlap


def _ramp(room: int, at_once: int, rates: list[tuple[int, int]]) -> tuple[Fraction, Fraction]:
    """What is lost while a room fills from so much at once on, at the best (bytes, ticks) rate; how long."""
    rate = max(Fraction(size, ticks) for size, ticks in rates)
    if rate <= 0 or room <= at_once:
        return Fraction(0), Fraction(0)
    ticks = (room - at_once) / rate
    return (room - at_once) * ticks / 2, ticks


def _ways(problem: Problem, stage: int) -> Iterator[list[OpCost]]:
    """The ops of one microbatch on a stage: with a divided backward, or with an undivided one."""
    costs = problem.stages[stage]
    if costs.B and costs.W:
        yield [costs.F, costs.B, costs.W]
    if costs.BW:
        yield [costs.F, costs.BW]


def _ops(problem: Problem, rank: int) -> Iterator[OpCost]:
    for stage in problem.stages_by_rank[rank]:
        yield from (cost for _, cost in problem.stages[stage].offered)


def _net(op: OpCost) -> int:
    return op.alloc_bytes - op.free_bytes
