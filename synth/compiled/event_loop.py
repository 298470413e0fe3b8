"""The simulator's event loop: one replay, and many with other durations."""

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
from numba import njit

RELEASE, END, ARRIVAL = 0, 1, 2
"""What happens at a moment, in the order in which one moment's events are taken."""

LOCAL = -1
"""The route of what stays on its rank."""

NOBODY = -1
"""The consumer of what no op waits for."""


class Plan(NamedTuple):
    """Ops numbered rank by rank in execution order, and what each hands on when it ends.

    Behind the ops there may be sums, which last no time and hold no rank: a sum ends with its last input.
    """

    rank_start: np.ndarray  # each rank's first op and the one behind its last, shape (ranks + 1)
    rank: np.ndarray  # of each op and sum
    waits: np.ndarray  # how many inputs each op and sum has
    sends_start: np.ndarray  # where each op's or sum's sends begin, shape (ops + sums + 1)
    consumer: np.ndarray  # of each send, an op, a sum or NOBODY
    route: np.ndarray  # of each send, or LOCAL
    route_ticks: np.ndarray
    channels_start: np.ndarray  # where each route's channels begin, shape (routes + 1)
    channel: np.ndarray  # of each route; the first channels are the ranks, which ops hold


class Times(NamedTuple):
    """What a replay fills in, in ticks."""

    start: np.ndarray  # of each op
    sent: np.ndarray  # when each send leaves
    last: np.ndarray  # when each rank's last op or all-reduce ends
    free: np.ndarray  # from when on each channel is


@njit(cache=True)
def replay(plan, ticks, release, times):
    """Run every rank's ops in order; returns how far each rank came, as the number of its next op.

    Whoever needs channels queues for all of them at once, at the moment its event is taken: first come, first
    served. It begins when the last of them is free, which is known at once, and holds all of them to its end.
    Events are taken in the order of (time, kind, number), so nothing depends on how they were put in.

    It calls nothing compiled, because it runs uncompiled too, on integers of any size.
    """
    following = plan.rank_start[:-1].copy()
    num_ops = plan.rank_start[-1]
    idle = np.zeros(len(following), np.bool_)
    waits = plan.waits.copy()
    events = [(moment, RELEASE, rank) for rank, moment in enumerate(release)]
    heapify(events)
    while events:
        now, kind, number = heappop(events)
        rank = number if kind == RELEASE else plan.rank[number]
        if kind == ARRIVAL:
            waits[number] -= 1
        elif number < num_ops:
            idle[rank] = True
        if kind == END:
            if number < num_ops:
                following[rank] += 1
                times.last[rank] = max(times.last[rank], now)
            for send in range(plan.sends_start[number], plan.sends_start[number + 1]):
                route, consumer = plan.route[send], plan.consumer[send]
                if route == LOCAL:
                    waits[consumer] -= 1
                    if consumer >= num_ops and waits[consumer] == 0:
                        heappush(events, (now, END, consumer))
                    continue
                begin = now
                for place in range(plan.channels_start[route], plan.channels_start[route + 1]):
                    begin = max(begin, times.free[plan.channel[place]])
                arrival = begin + plan.route_ticks[route]
                for place in range(plan.channels_start[route], plan.channels_start[route + 1]):
                    times.free[plan.channel[place]] = arrival
                times.sent[send] = begin
                if consumer == NOBODY:
                    times.last[rank] = max(times.last[rank], arrival)
                else:
                    heappush(events, (arrival, ARRIVAL, consumer))
        op = following[rank]
        if idle[rank] and op < plan.rank_start[rank + 1] and waits[op] == 0:
            idle[rank] = False
            times.start[op] = max(now, times.free[rank])
            times.free[rank] = times.start[op] + ticks[op]
            heappush(events, (times.free[rank], END, op))
    return following


@njit(cache=True)
def replay_many(plan, ticks, release, num_channels, firsts, lasts):
    """Replay with each row of durations; fills in every rank's first start and last end, [rank, row]."""
    for row in range(len(ticks)):
        times = Times(
            np.zeros(len(plan.rank), np.int64),
            np.zeros(len(plan.route), np.int64),
            release.copy(),
            np.full(num_channels, release.min()),
        )
        replay(plan, ticks[row], release, times)
        firsts[:, row] = times.start[plan.rank_start[:-1]]
        lasts[:, row] = times.last
