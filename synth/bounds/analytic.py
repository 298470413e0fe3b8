"""Lower bounds in closed form: work, chains, and what memory leaves to do before the first backward."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from synth.bounds.bound import Bound
from synth.bounds.chains import (
    backward_tails,
    climbs_ticks,
    forward_heads,
    gradient_ticks,
    round_trip_ticks,
)
from synth.bounds.memory_area import memory_area_bound
from synth.bounds.relaxation import relax, relaxable_ranks
from synth.problem import Objective, Problem


def analytic_bounds(problem: Problem) -> tuple[Bound, ...]:
    """All bounds in closed form that apply and say something, the strongest first."""
    bounds = [
        period_bound(problem),
        first_backward_bound(problem),
        there_and_back_bound(problem),
        memory_area_bound(problem),
    ]
    if any(len(held) == 1 for held in problem.stages_by_rank):
        bounds.append(whole_forwards_bound(problem))
    if relaxable_ranks(problem):
        bounds.append(round_trips_bound(problem))
    if problem.objective is Objective.MAKESPAN:
        bounds += [head_and_tail_bound(problem), chain_bound(problem)]
    return tuple(sorted((bound for bound in bounds if bound.ticks), key=lambda bound: -bound.ticks))


def period_bound(problem: Problem) -> Bound:
    """The work of the busiest rank: no schedule repeats faster than that rank can work.

    Holds for both objectives, since a rank runs one op at a time. A building block that repeats at this
    rate has no bubble in its steady state.
    """
    work = problem.work_ticks_by_rank
    rank = work.index(max(work))
    return Bound(
        "period", work[rank], f"rank {rank} works this long for {problem.num_microbatches} microbatches"
    )


def chain_bound(problem: Problem) -> Bound:
    """One microbatch down the forward and back up the backward chain, and what must follow its last op.

    Holds for the makespan.
    """
    down = forward_heads(problem)[-1] + problem.stages[-1].F.ticks
    up = backward_tails(problem)[-1]
    return Bound("chain", down + up, "one microbatch passes all stages forward and backward")


def head_and_tail_bound(problem: Problem) -> Bound:
    """Per rank: the wait for its first microbatch, its work, and what must follow its last op.

    A rank's first op is a forward and cannot start before one microbatch has come down to its first stage.
    Its last backward is of that stage too, and from there the gradient still has to go up to stage 0. Only
    W can run behind that backward, so the rank's forwards and backwards alone count towards it. Holds for
    the makespan.
    """
    heads, tails = forward_heads(problem), backward_tails(problem)
    best = Bound("head and tail", 0, "")
    works = problem.work_ticks_by_rank
    for rank, held in enumerate(problem.stages_by_rank):
        head, work = heads[held[0]], works[rank]
        up_front = problem.num_microbatches * sum(
            problem.stages[s].F.ticks + gradient_ticks(problem, s) for s in held
        )
        tail = tails[held[0]] - gradient_ticks(problem, held[0])
        ticks = head + max(work, up_front + tail)
        if ticks > best.ticks:
            what = (
                f"{work} ticks of work"
                if work >= up_front + tail
                else f"{up_front} ticks up to its last backward"
            )
            best = Bound(
                "head and tail",
                ticks,
                f"rank {rank} waits {head} ticks for its first microbatch and has {what}"
                + ("" if work >= up_front + tail else f", whose gradient takes {tail} more to stage 0"),
            )
    return best


def there_and_back_bound(problem: Problem) -> Bound:
    """Per pair of ranks: what one of them does between the other's first op and its last.

    Take a rank and one further down. The further one's first forward waits for the near one's first
    forward; then it has all its forwards and backwards to run, up to its last backward, whose gradient has
    to come all the way back before the near rank can run its own last backward. All of that lies between the
    near rank's first start and last end. Holds for both objectives.
    """
    heads, climbs, best = forward_heads(problem), climbs_ticks(problem), Bound("there and back", 0, "")
    stages_by_rank = problem.stages_by_rank
    busy_ticks = [_up_to_last_backward_ticks(problem, held) for held in stages_by_rank]
    for near, (first, *_) in enumerate(stages_by_rank):
        for far, (turn, *_) in enumerate(stages_by_rank):
            if first > turn:
                continue
            there, busy = heads[turn] - heads[first], busy_ticks[far]
            back = climbs[turn] - climbs[first] + problem.stages[first].least_backward_ticks
            if there + busy + back > best.ticks:
                best = Bound(
                    "there and back",
                    there + busy + back,
                    f"between the first start and the last end of rank {near}, rank {far} is reached in "
                    f"{there} ticks, works {busy} until its last backward, and is back in {back}",
                )
    return best


def _up_to_last_backward_ticks(problem: Problem, held: Sequence[int]) -> int:
    """A rank's forwards and backwards, but for the last backward of its first stage."""
    passes = sum(problem.stages[stage].F.ticks + gradient_ticks(problem, stage) for stage in held)
    return problem.num_microbatches * passes - gradient_ticks(problem, held[0])


def first_backward_bound(problem: Problem) -> Bound:
    """Per rank: before its first backward it can only run as many forwards as its memory holds.

    From the start of a rank's first forward to the start of its first backward, one microbatch goes down
    the remaining stages and its gradient comes back. The rank's first forward is of its first stage and its
    first backward of its last, and in between it can run forwards only, within its limit; the rest of that
    time it idles. Holds for both objectives; for the makespan the wait for the first microbatch adds.

    References
    ----------
    Zero Bubble Pipeline Parallelism, arXiv 2401.10241, appendix B, for equal stages, one per rank:
    ``(p - 1)(B + 2c) + (p - k)F`` idle with k microbatches of memory.
    """
    heads = forward_heads(problem)
    best, works = Bound("first backward", 0, ""), problem.work_ticks_by_rank
    for rank, held in enumerate(problem.stages_by_rank):
        first, last = held[0], held[-1]
        round_trip = problem.stages[first].F.ticks + round_trip_ticks(problem, first, last)
        idle = max(0, round_trip - _most_forward_ticks(problem, rank))
        wait = heads[first] if problem.objective is Objective.MAKESPAN else 0
        ticks = wait + works[rank] + idle
        if ticks > best.ticks:
            best = Bound(
                "first backward",
                ticks,
                f"rank {rank} works {works[rank]} ticks"
                + (f"; its first microbatch takes {wait} to come down" if wait else "")
                + (f"; it idles {idle} of the {round_trip} up to its first backward" if idle else ""),
            )
    return best


def whole_forwards_bound(problem: Problem) -> Bound:
    """All ranks with one stage at once: how long each idles before its first backward, in whole forwards.

    From the start of its first forward to the start of its first backward such a rank runs a whole number of
    forwards, at most as many as its memory holds, and idles the rest. That time is at least as long as the
    same time one stage further down, and a forward, a gradient and two transfers more. If no rank may idle
    longer than a given objective leaves over beside its work, the shortest such times follow stage by stage
    from the last to the first: where the time that comes up is too far from a whole number of forwards, one
    more forward runs and the gradient waits for it, on this rank and all before it. The least objective for
    which this reaches stage 0 is a bound, for both objectives; for the makespan the wait for the first
    microbatch adds to a rank's work.

    At twice 1F1B's memory this is what the best schedules of all twelve published profiles idle, but one.
    """
    makespan = problem.objective is Objective.MAKESPAN
    heads, work = forward_heads(problem), problem.work_ticks_by_rank
    alone = {
        held[0]: relax(problem, rank) for rank, held in enumerate(problem.stages_by_rank) if len(held) == 1
    }
    busy = {s: work[problem.stage_to_rank[s]] + (heads[s] if makespan else 0) for s in alone}

    def is_open(objective: int) -> bool:
        time = 0
        for stage in reversed(range(problem.num_stages)):
            time += problem.stages[stage].F.ticks
            if stage + 1 < problem.num_stages:
                time += gradient_ticks(problem, stage + 1)
                time += problem.lag_ticks(stage, stage + 1) + problem.lag_ticks(stage + 1, stage)
            if stage in alone:
                one, idle = alone[stage], objective - busy[stage]
                if time % one.forward_ticks > idle:
                    time += one.forward_ticks - time % one.forward_ticks
                if time - one.forwards_before_backward * one.forward_ticks > idle:
                    return False
        return True

    low = max(busy.values())
    high = low + 1
    while not is_open(high):
        high += high - low
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_open(middle) else (middle + 1, high)
    return Bound(
        "whole forwards",
        low,
        "with less, some rank would idle too long beside whole forwards before its first backward, or hold "
        "too many",
    )


def round_trips_bound(problem: Problem) -> Bound:
    """Per rank with one stage: the round trips of its first and of its last microbatch.

    The first as in :func:`first_backward_bound`. The last forward, in turn, still has its round trip, its
    backward and its W ahead of it; what else can be left to do by then is limited by memory, because enough
    must have been released for that forward to fit, and the rest of the time the rank idles. Where memory
    wants a backward before the last forward, the two times do not overlap, and both count.

    For equal stages, one per rank, at 1F1B's memory this is ``(p - 1)(B + 2c)`` and ``(p - 1)(F - W + 2c)``:
    what ZB-H1 idles, which is therefore optimal there, for any number of microbatches m > p.
    """
    best = Bound("round trips", 0, "")
    for rank in relaxable_ranks(problem):
        alone = relax(problem, rank)
        trip = alone.forward_ticks + alone.delay_ticks
        first = max(0, trip - alone.forwards_before_backward * alone.forward_ticks)
        end = trip + alone.backward_ticks + max(alone.weight_ticks, alone.tail_ticks)
        last = max(0, end - alone.work_from_last_forward)
        apart = alone.forwards_before_backward < alone.num_microbatches
        idle = first + last if apart else max(first, last)
        ticks = alone.head_ticks + alone.work_ticks + idle
        if ticks > best.ticks:
            best = Bound(
                "round trips",
                ticks,
                f"rank {rank} works {alone.work_ticks} ticks and idles {first} up to its first backward, "
                f"{last} from its last forward on" + ("" if apart else ", at least the longer of the two"),
            )
    return best


def _most_forward_ticks(problem: Problem, rank: int) -> int:
    """The most time a rank can fill with forwards before any backward, within its memory.

    The knapsack is relaxed to fractions of forwards, except where all forwards need the same bytes.
    """
    held = problem.stages_by_rank[rank]
    costs = [problem.stages[s].F for s in held]
    everything = problem.num_microbatches * sum(cost.ticks for cost in costs)
    if problem.memory_limit_bytes is None:
        return everything
    room = problem.memory_limit_bytes[rank] - problem.static_bytes_by_rank[rank]
    kept = [cost.alloc_bytes - cost.free_bytes for cost in costs]
    if min(kept) <= 0:
        return everything
    if len(set(kept)) == 1:
        return _fill([(cost.ticks, 1) for cost in costs], room // kept[0], problem.num_microbatches)
    return _fill(
        [(cost.ticks, net) for cost, net in zip(costs, kept, strict=True)], room, problem.num_microbatches
    )


def _fill(items: Sequence[tuple[int, int]], room: int, most_each: int) -> int:
    """The most value of items (value, size), each at most so often, in a room: fractions rounded up."""
    value = 0
    for worth, size in sorted(items, key=lambda item: Fraction(*item), reverse=True):
        count = min(most_each, room // size)
        value += count * worth
        room -= count * size
        if count < most_each:
            return value + -(-room * worth // size)
    return value
