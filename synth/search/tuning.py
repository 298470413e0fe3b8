"""Search over the rules of list schedules: a random sample, and small changes to the best of it.

A rule set orders all ops at once, however many there are, so this reaches in a second on tens of thousands
of ops what swaps of neighbours take minutes for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from operator import itemgetter

import numpy as np

from synth.compiled.list_schedule import LATER, OPENING, Rules
from synth.graph import Ints, OpGraph
from synth.problem import LARGEST_SUM
from synth.search.greedy import most_in_flight
from synth.search.list_schedule import ANY_NUMBER, ListScheduler, plain_rules

LATER_DELAYS = (1.0, 0.75, 0.9, 0.7, 0.8, 0.95, 0.65, 0.85, 0.5, 0.3)
OPENING_DELAYS = (1.0, 0.1, 0.5, 0.0, 0.75, 0.25)
"""What is tried first: delays that hold for all stages, from a stage's first backward on and before it."""

MOST_KEPT = 8
"""So many of the best rule sets are varied, each in its own line."""

MEAN_SHARE = 0.3
"""What a tick of the mean over ranks counts beside one of the worst rank: it tells equal values apart."""

SLACK = 0.01
"""By how much a varied rule set's value may be worse while its mean makes up for it."""

LARGEST_DELAY = 1.2
"""A backward is never known so long ahead that a larger share of an op's ticks would matter."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A rule set, what it comes to, and the orders it gives."""

    energy: float
    value: int
    rules: Rules
    ids: list[Ints]


class RuleSearch:
    """A search over rules under way: run it in slices and read the best orders in between.

    Parameters
    ----------
    graph
        The ops and edges; links are taken as free.
    seed
        Of all random choices; the same seed and number of samples give the same orders.
    """

    def __init__(self, graph: OpGraph, seed: int) -> None:
        self._scheduler = ListScheduler(graph)
        self._num_ranks, self._num_stages = graph.problem.num_ranks, graph.problem.num_stages
        self._most_in_flight = max(1, most_in_flight(graph.problem))
        self._random = np.random.default_rng(seed)
        self._kept: list[_Kept] = []
        self._first = iter(list(product(OPENING_DELAYS, LATER_DELAYS)))

    @property
    def best(self) -> list[tuple[int, list[Ints]]]:
        """The best values with their per-rank op numbers, ascending; no value twice."""
        by_value = {kept.value: kept.ids for kept in self._kept}
        return sorted(by_value.items(), key=itemgetter(0))

    def run(self, samples: int) -> None:
        """Try so many rule sets."""
        for _ in range(samples):
            delays = next(self._first, None)
            if delays is not None:
                self._try(self._uniform(*delays))
            elif len(self._kept) < 2 or self._random.random() < 0.3:
                self._try(self._sample())
            else:
                place = int(len(self._kept) * self._random.random() ** 2)
                self._try(self._vary(self._kept[place].rules), place)

    def _try(self, rules: Rules, parent: int | None = None) -> None:
        """Keep a rule set in its parent's place where it is no worse, or as a new line in the worst one's."""
        full = len(self._kept) == MOST_KEPT
        bar = self._kept[parent] if parent is not None else self._kept[-1] if full else None
        cutoff = LARGEST_SUM if bar is None else int(bar.value * (1 + SLACK)) + 1
        found = self._scheduler.run(rules, cutoff)
        if found is None:
            return
        value, mean = found
        energy = value + MEAN_SHARE * mean
        if bar is not None:
            if energy > bar.energy or (parent is None and energy == bar.energy):
                return
            self._kept.remove(bar)
        self._kept.append(_Kept(energy, value, rules, self._scheduler.ids))
        self._kept.sort(key=lambda kept: kept.energy)

    def _uniform(self, opening: float, later: float) -> Rules:
        rules = plain_rules(self._num_stages, later, self._most_in_flight)
        rules.forward_delay[OPENING] = opening
        return rules

    def _sample(self) -> Rules:
        """Rules that are the same for all stages, or change evenly from the first to the last."""
        opening, later, weight = LARGEST_DELAY * self._random.random(3)
        rules = self._uniform(opening, later)
        if self._chance(0.5):
            rules.weight_delay[:] = weight
        if self._chance(0.7):
            rules.most_ahead[:] = np.maximum(1, self._ramp(2 * self._num_ranks))
        if self._chance(0.4):
            rules.least_ahead[:] = np.minimum(rules.most_ahead, self._ramp(self._num_ranks))
        if self._chance(0.5):
            rules.most_owed[:] = self._ramp(self._num_ranks // 2)
        return rules

    def _vary(self, rules: Rules) -> Rules:
        """The rules with one or two things changed on some stages."""
        rules = Rules(*(column.copy() for column in rules))
        for _ in range(1 + self._chance(0.3)):
            stages = self._some_stages()
            column = int(self._random.integers(6))
            if column < 3:
                delay = (rules.forward_delay[OPENING], rules.forward_delay[LATER], rules.weight_delay)[column]
                if self._chance(0.3):
                    delay[stages] = LARGEST_DELAY * self._random.random()
                else:
                    changed = delay[stages] + 0.1 * self._random.standard_normal()
                    delay[stages] = np.clip(changed, 0.0, LARGEST_DELAY)
            elif column == 3:
                self._vary_count(rules.most_ahead, stages, 1, 2 * self._num_ranks)
            elif column == 4:
                self._vary_count(rules.least_ahead, stages, 0, 2 * self._num_ranks)
            else:
                self._vary_count(rules.most_owed, stages, 0, self._num_ranks)
        return rules

    def _vary_count(self, count: Ints, stages: slice, least: int, most: int) -> None:
        if count[stages.start] == ANY_NUMBER or self._chance(0.3):
            count[stages] = self._random.integers(least, most + 1)
        else:
            step = self._random.choice((-1, 1))
            count[stages] = np.clip(count[stages] + step, least, ANY_NUMBER)

    def _some_stages(self) -> slice:
        """One stage, a few in a row, all from one on, or all."""
        first = int(self._random.integers(self._num_stages))
        last = (first + 1, first + 1, first + 1 + int(self._random.integers(1, 4)), self._num_stages)
        if self._chance(0.2):
            return slice(0, self._num_stages)
        return slice(first, min(self._num_stages, self._random.choice(last)))

    def _ramp(self, most: int) -> Ints:
        """Counts that run evenly from the first stage to the last, or are the same in either half."""
        ends = most * self._random.random(2)
        position = np.linspace(0.0, 1.0, self._num_stages)
        if self._chance(0.5):
            position = np.round(position)
        ramp: Ints = np.round(ends[0] + (ends[1] - ends[0]) * position).astype(np.int64)
        return ramp

    def _chance(self, probability: float) -> bool:
        return bool(self._random.random() < probability)
