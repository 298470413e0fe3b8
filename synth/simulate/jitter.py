"""Replays with noise: how much a schedule's value varies when its ops' times do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth.compiled.event_loop import replay_many
from synth.errors import InputError
from synth.problem import Links, Objective
from synth.schedule import Schedule
from synth.simulate.lowering import Lowered, Ticks, lower
from synth.simulate.network import Network, planned_network
from synth.simulate.replaying import first_starts, run_events, spans_of_ranks

LARGEST_SIGMA = 10.0
"""Noise beyond this says nothing of a schedule any more."""

FARTHEST_SIGMAS = 40
"""Farther from the mean no normal random number of a generator is."""

LARGEST_BLOCK = 4_000_000
"""Samples times ops that are drawn and replayed at once."""


@dataclass(frozen=True, slots=True)
class JitterResult:
    """The values of the problem's objective over replays with perturbed op times.

    Parameters
    ----------
    objective
        What the values are of.
    values
        Ticks, one per sample, in the order drawn; at least one.
    """

    objective: Objective
    values: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean value, ticks."""
        return sum(self.values) / len(self.values)

    @property
    def p50(self) -> int:
        """The smallest value that half of the samples do not exceed, ticks."""
        return self.percentile(50)

    @property
    def p95(self) -> int:
        """The smallest value that 95 in 100 samples do not exceed, ticks."""
        return self.percentile(95)

    @property
    def max(self) -> int:
        """The largest value, ticks."""
        return max(self.values)

    def percentile(self, percent: int) -> int:
        """The smallest value that so many in 100 samples do not exceed, ticks; from 1 to 100."""
        return sorted(self.values)[math.ceil(len(self.values) * percent / 100) - 1]


def replay_with_jitter(
    schedule: Schedule,
    *,
    sigma: float,
    samples: int,
    seed: int,
    links: Links | None = None,
    network: Network | None = None,
) -> JitterResult:
    """Replay a schedule again and again with op times that vary.

    Every op's ticks are multiplied by ``max(0, 1 + sigma * z)``, z standard normal and drawn anew for each op
    and sample, then rounded, and last at least 1 tick. Transfers and all-reduces do not vary. Where the noise
    cannot change who goes first on a channel, all samples are replayed at once, op by op; else each is
    replayed event by event.

    Parameters
    ----------
    schedule
        Its orders and the first start of each rank are used.
    sigma
        Relative standard deviation, at least 0; with 0 every value is that of the replay.
    samples
        How many replays, at least 1.
    seed
        Of the random numbers.
    links
        Used instead of the problem's.
    network
        Used instead of the problem's transfers and links.

    Raises
    ------
    InputError
        When sigma or samples are out of bounds.
    InvalidOrdersError
        When the orders do not hold exactly the problem's ops, or deadlock.
    """
    if not 0 <= sigma <= LARGEST_SIGMA:
        raise InputError(f"sigma is {sigma}: give a number from 0 to {LARGEST_SIGMA}")
    if samples < 1:
        raise InputError(f"samples is {samples}: give an integer ≥ 1")
    problem = schedule.problem
    network = network or planned_network(problem, links=links)
    sweep = _Sweep(lower(problem, schedule.orders, network), first_starts(schedule), sigma)
    random = np.random.default_rng(seed)
    values: list[int] = []
    while len(values) < samples:
        rows = min(samples - len(values), max(1, LARGEST_BLOCK // len(sweep.lowered.ops)))
        firsts, lasts = sweep.replays(sweep.durations(random, rows))
        values += map(int, spans_of_ranks(problem.objective, firsts, lasts))
    return JitterResult(problem.objective, tuple(values))


class _Sweep:
    """Many replays of one plan, after one without noise, which shows that it does not deadlock."""

    def __init__(self, lowered: Lowered, release_ticks: Sequence[int], sigma: float) -> None:
        self.lowered, self._sigma = lowered, sigma
        self._is_large = lowered.sums_are_large(release_ticks, 1 + FARTHEST_SIGMAS * sigma)
        self._dtype = object if self._is_large else np.int64
        self._release = np.array(release_ticks, self._dtype)
        self._planned = run_events(lowered, np.array(lowered.ticks, self._dtype), self._release)

    def durations(self, random: np.random.Generator, rows: int) -> Ticks:
        """Ticks drawn for every op, shape (samples, ops)."""
        planned = np.array(self.lowered.ticks, np.int64)
        noise = np.maximum(-1, self._sigma * random.standard_normal((rows, len(planned))))
        change = np.rint(planned * noise)
        whole = np.vectorize(int, otypes=[object])(change) if self._is_large else change.astype(np.int64)
        durations: Ticks = np.maximum(1, planned + whole)
        return durations

    def replays(self, durations: Ticks) -> tuple[Ticks, Ticks]:
        """Each rank's first start and last end, both of shape (ranks, samples)."""
        if self.lowered.queues_are_fixed:
            return self._op_by_op(np.ascontiguousarray(durations.T))
        return self._event_by_event(durations)

    def _event_by_event(self, durations: Ticks) -> tuple[Ticks, Ticks]:
        shape = len(self._release), len(durations)
        firsts, lasts = np.zeros(shape, self._dtype), np.zeros(shape, self._dtype)
        if not self._is_large:
            replay_many(self.lowered.plan, durations, self._release, self.lowered.num_channels, firsts, lasts)
            return firsts, lasts
        for row, ticks in enumerate(durations):
            times = run_events(self.lowered, ticks, self._release)
            firsts[:, row] = times.start[self.lowered.plan.rank_start[:-1]]
            lasts[:, row] = times.last
        return firsts, lasts

    def _op_by_op(self, durations: Ticks) -> tuple[Ticks, Ticks]:
        """All samples at once, ops in a sequence in which they can start.

        On one rank an op begins when the one before it has ended; a channel, which one rank alone feeds,
        takes transfers in that rank's order, which is that of the sequence.
        """
        lowered, plan = self.lowered, self.lowered.plan
        rank_free = [np.full_like(durations[0], ticks) for ticks in self._release]
        lasts, firsts = rank_free.copy(), rank_free.copy()
        arrivals: dict[int, Ticks] = {}
        free: dict[int, Ticks] = {}
        # An op's inputs have started before it, whatever the durations: this order suits every sample.
        for number in sorted(range(len(durations)), key=self._planned.start.__getitem__):
            rank, start = plan.rank[number], rank_free[plan.rank[number]]
            if number in arrivals:
                start = np.maximum(start, arrivals.pop(number))
            if number == plan.rank_start[rank]:
                firsts[rank] = start
            end = rank_free[rank] = start + durations[number]
            lasts[rank] = np.maximum(lasts[rank], end)
            for send in lowered.sends[number]:
                if send.route is None:
                    continue
                arrival = end
                for channel in send.channels:
                    arrival = np.maximum(arrival, free.get(channel, arrival))
                arrival = arrival + send.route.ticks
                for channel in send.channels:
                    free[channel] = arrival
                if send.consumer is None:
                    lasts[rank] = np.maximum(lasts[rank], arrival)
                else:
                    arrivals[send.consumer] = np.maximum(arrival, arrivals.get(send.consumer, arrival))
        return np.array(firsts), np.array(lasts)
