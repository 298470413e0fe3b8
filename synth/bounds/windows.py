"""The first and the last stretch of a schedule as a few ranks see them: what the counter bound reasons about.

A :class:`Window` is a list of streams (one kind of op on one stage), what they wait for, and what they hold,
seen from the schedule's first start forward in time, or from its last end backward. Ranks left out are pure
delays along the chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from synth.bounds.chains import (
    backward_tails,
    forward_heads,
    gradient_ticks,
    round_trip_ticks,
    way_back_ticks,
)
from synth.ops import OpKind
from synth.problem import Objective, Problem

BACKWARDS = (OpKind.B, OpKind.BW)
"""The kinds that turn a stage's output gradient into its input gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One kind of op on one stage, seen in one direction of time.

    Parameters
    ----------
    rank, stage, kind
        Which.
    ticks
        Duration of each op.
    alloc_bytes, free_bytes
        Held from an op's start on, and let go at its end.
    release_ticks
        No op starts earlier.
    may_lead
        Whether ops may have run before the window begins.
    """

    rank: int
    stage: int
    kind: OpKind
    ticks: int
    alloc_bytes: int
    free_bytes: int
    release_ticks: int = 0
    may_lead: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """No more ops of the targets have started than of the sources had started some time before.

    Parameters
    ----------
    sources
        Numbers of streams, each with the ticks from a start there to the earliest start here.
    targets
        Numbers of streams.
    """

    sources: tuple[tuple[int, int], ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Streams of some ranks and what they wait for, in one direction of time."""

    streams: tuple[Stream, ...]
    waits: tuple[Wait, ...]
    left_bytes: dict[int, int]
    """Per rank, what is live before the window begins: nothing, or what all ops leave behind in the end."""


def warm_up(problem: Problem, ranks: Sequence[int]) -> Window:
    """The window that begins with the schedule's first start."""
    kept = _kept_stages(problem, ranks)
    numbers = _numbers(problem, kept)
    head = forward_heads(problem)[kept[0]]
    streams = tuple(
        replace(
            _stream(problem, stage, kind),
            release_ticks=head if stage == kept[0] and kind is OpKind.F else 0,
        )
        for stage, kind in numbers
    )
    waits = []
    for before, after, lag in _chains(problem, kept, numbers):
        sources = tuple((numbers[op], streams[numbers[op]].ticks + lag) for op in before)
        waits.append(Wait(sources, tuple(numbers[op] for op in after)))
    return Window(streams, tuple(waits), dict.fromkeys(ranks, 0))


def cool_down(problem: Problem, ranks: Sequence[int]) -> Window:
    """The window that begins with the last end and runs back in time: ends are starts, frees are allocs.

    Under ``rank_span`` it begins with the last end of the rank of stage 0; weight ops of other ranks may lie
    beyond it.
    """
    kept = _kept_stages(problem, ranks)
    numbers = _numbers(problem, kept)
    first = kept[0]
    way_up = problem.lag_ticks(first, first - 1) + backward_tails(problem)[first - 1] if first else 0
    spans = problem.objective is Objective.RANK_SPAN
    streams = []
    for stage, kind in numbers:
        stream = _stream(problem, stage, kind)
        streams.append(
            replace(
                stream,
                alloc_bytes=stream.free_bytes,
                free_bytes=stream.alloc_bytes,
                release_ticks=way_up if stage == first and kind in BACKWARDS else 0,
                may_lead=spans and kind is OpKind.W and stream.rank != problem.stage_to_rank[0],
            )
        )
    waits = []
    for before, after, lag in _chains(problem, kept, numbers):
        sources = tuple((numbers[op], streams[numbers[op]].ticks + lag) for op in after)
        waits.append(Wait(sources, tuple(numbers[op] for op in before)))
    return Window(tuple(streams), tuple(waits), {rank: _left_bytes(problem, rank) for rank in ranks})


def _stream(problem: Problem, stage: int, kind: OpKind) -> Stream:
    cost = problem.stages[stage].cost(kind)
    return Stream(
        rank=problem.stage_to_rank[stage],
        stage=stage,
        kind=kind,
        ticks=cost.ticks,
        alloc_bytes=cost.alloc_bytes,
        free_bytes=cost.free_bytes,
    )


def _kept_stages(problem: Problem, ranks: Sequence[int]) -> list[int]:
    return [stage for stage in range(problem.num_stages) if problem.stage_to_rank[stage] in ranks]


def _numbers(problem: Problem, kept: Sequence[int]) -> dict[tuple[int, OpKind], int]:
    """The streams of the kept stages, numbered."""
    streams = [(stage, kind) for stage in kept for kind, _ in problem.stages[stage].offered]
    return {stream: number for number, stream in enumerate(streams)}


_Ops = list[tuple[int, OpKind]]


def _chains(
    problem: Problem, kept: Sequence[int], numbers: dict[tuple[int, OpKind], int]
) -> list[tuple[_Ops, _Ops, int]]:
    """What waits for what: (streams before, streams after, least ticks from an end to a start)."""

    def backwards(stage: int) -> _Ops:
        return [(stage, kind) for kind in BACKWARDS if (stage, kind) in numbers]

    heads = forward_heads(problem)
    chains: list[tuple[_Ops, _Ops, int]] = []
    for near, far in pairwise(kept):
        down = heads[far] - heads[near] - problem.stages[near].F.ticks
        up = way_back_ticks(problem, far, near) - gradient_ticks(problem, far)
        chains.append(([(near, OpKind.F)], [(far, OpKind.F)], down))
        chains.append((backwards(far), backwards(near), up))
    for stage in kept:
        turn = round_trip_ticks(problem, stage, stage)
        chains.append(([(stage, OpKind.F)], backwards(stage), turn))
        if (stage, OpKind.W) in numbers:
            chains.append(([(stage, OpKind.B)], [(stage, OpKind.W)], 0))
    return chains


def _left_bytes(problem: Problem, rank: int) -> int:
    """The least that a rank's ops leave live when all have run, for the thriftiest way to run backwards."""
    left = 0
    for stage in problem.stages_by_rank[rank]:
        net = {kind: cost.alloc_bytes - cost.free_bytes for kind, cost in problem.stages[stage].offered}
        ways = [net[OpKind.B] + net[OpKind.W]] if OpKind.B in net else []
        ways += [net[OpKind.BW]] if OpKind.BW in net else []
        left += problem.num_microbatches * (net[OpKind.F] + min(ways))
    return left
