"""A list schedule by rules: every rank takes the most urgent of its streams' next ops, or waits.

Identical microbatches run in order, so a rank chooses among streams (one kind of op on one stage), not ops.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

FORWARD, BACKWARD, WEIGHT, REDUCE = 0, 1, 2, 3
"""What a stream's ops are: F, the backward that gives the input's gradient (B or BW), W, and R."""

OPENING, LATER = 0, 1
"""Rows of the delays of forwards: before the stage's first backward, and from it on."""

NEVER = np.int64(2**62)


class Streams(NamedTuple):
    """The op graph by streams: those of a rank stand together, of equal urgency the preferred first."""

    rank_first: np.ndarray  # where a rank's streams begin
    first: np.ndarray  # where a stream's ops begin in ops
    ops: np.ndarray  # op numbers, stream by stream, in microbatch order
    kind: np.ndarray  # of each stream
    stage: np.ndarray  # of each stream
    rank: np.ndarray  # of each op, and so the next three
    ticks: np.ndarray
    alloc: np.ndarray
    free: np.ndarray
    waits: np.ndarray  # how many predecessors each op has
    successor_start: np.ndarray
    successor: np.ndarray
    successor_lag: np.ndarray
    room: np.ndarray  # bytes, of each rank
    work: np.ndarray  # ticks, of each rank


class Rules(NamedTuple):
    """What a rank goes by, stage by stage.

    A delay is how late an op may make a backward that is known to come, as a share of the op's own ticks.
    """

    forward_delay: np.ndarray  # [OPENING or LATER, stage]
    weight_delay: np.ndarray
    most_ahead: np.ndarray  # forwards ahead of backwards at most
    least_ahead: np.ndarray  # with fewer, a forward goes before a backward
    most_owed: np.ndarray  # with more W ops put off, W goes before F


class Plan(NamedTuple):
    """What comes out: ops rank by rank in order, and where each rank begins."""

    flat: np.ndarray
    rank_start: np.ndarray


@njit(cache=True, nogil=True)
def list_schedule(streams, rules, plan, is_rank_span, cutoff):
    """Schedule every op: the objective's value and the mean over ranks of what it is the largest of.

    Both are NEVER where no rank can go on, or where the value would be the cutoff or more.
    """
    num_ranks = len(plan.rank_start) - 1
    num_ops = len(streams.ticks)
    waits = streams.waits.copy()
    available = np.zeros(num_ops, np.int64)
    following = streams.first[:-1].copy()
    ahead = np.zeros(len(rules.most_ahead), np.int64)
    owed = np.zeros(len(rules.most_ahead), np.int64)
    phase = np.full(len(rules.most_ahead), OPENING, np.int64)
    room = streams.room.copy()
    work_left = streams.work.copy()
    rank_free = np.zeros(num_ranks, np.int64)
    began = np.zeros(num_ranks, np.int64)
    wake = np.zeros(num_ranks, np.int64)
    filled = plan.rank_start[:-1].copy()
    for _ in range(num_ops):
        chosen = -1
        while chosen < 0:
            rank = np.argmin(wake)
            now = wake[rank]
            if now == NEVER:
                return NEVER, NEVER
            chosen, wake[rank] = choose(
                streams, rules, rank, now, room[rank], following, waits, available, ahead, owed, phase
            )
        op = streams.ops[following[chosen]]
        following[chosen] += 1
        stage = streams.stage[chosen]
        if streams.kind[chosen] == FORWARD:
            ahead[stage] += 1
        elif streams.kind[chosen] == BACKWARD:
            ahead[stage] -= 1
            owed[stage] += 1
            phase[stage] = LATER
        elif streams.kind[chosen] == WEIGHT:
            owed[stage] -= 1
        if is_rank_span and filled[rank] == plan.rank_start[rank]:
            began[rank] = now
        plan.flat[filled[rank]] = op
        filled[rank] += 1
        end = now + streams.ticks[op]
        rank_free[rank] = end
        wake[rank] = end if filled[rank] < plan.rank_start[rank + 1] else NEVER
        room[rank] += streams.free[op] - streams.alloc[op]
        work_left[rank] -= streams.ticks[op]
        if end + work_left[rank] - began[rank] >= cutoff:
            return NEVER, NEVER
        for edge in range(streams.successor_start[op], streams.successor_start[op + 1]):
            target = streams.successor[edge]
            available[target] = max(available[target], end + streams.successor_lag[edge])
            waits[target] -= 1
            if waits[target] == 0:
                other = streams.rank[target]
                wake[other] = min(wake[other], max(available[target], rank_free[other]))
    spans = rank_free - began
    return spans.max(), spans.sum() // num_ranks


@njit(cache=True, nogil=True)
def choose(streams, rules, rank, now, room, following, waits, available, ahead, owed, phase):
    """The stream to go on with, or -1, and then the time to look again."""
    arrival = NEVER  # of the next backward that is known to come
    look_again = NEVER
    for stream in range(streams.rank_first[rank], streams.rank_first[rank + 1]):
        if following[stream] < streams.first[stream + 1]:
            op = streams.ops[following[stream]]
            if waits[op] == 0 and available[op] > now:
                look_again = min(look_again, available[op])
                if streams.kind[stream] == BACKWARD:
                    arrival = min(arrival, available[op])
    chosen = -1
    most_urgent = -1
    for stream in range(streams.rank_first[rank], streams.rank_first[rank + 1]):
        if following[stream] == streams.first[stream + 1]:
            continue
        op = streams.ops[following[stream]]
        if waits[op] > 0 or available[op] > now or streams.alloc[op] > room:
            continue
        stage = streams.stage[stream]
        delay = 0.0
        if streams.kind[stream] == BACKWARD:
            urgency = 3
        elif streams.kind[stream] == FORWARD:
            if ahead[stage] >= rules.most_ahead[stage]:
                continue
            urgency = 4 if ahead[stage] < rules.least_ahead[stage] else 1
            delay = rules.forward_delay[phase[stage], stage]
        else:
            urgency = 2 if owed[stage] > rules.most_owed[stage] else 0
            delay = rules.weight_delay[stage]
        ticks = streams.ticks[op]
        if urgency > most_urgent and (urgency == 3 or now + ticks - arrival <= delay * ticks):
            most_urgent = urgency
            chosen = stream
    return chosen, look_again
