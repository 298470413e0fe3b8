"""A grid of equal time slots: durations and waits in whole slots, rounded so that the answer stays true."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import gcd

from synth.ops import OpKind
from synth.problem import Objective, Problem


class Rounding(StrEnum):
    """What happens to ticks between two slots."""

    DOWN = "down"
    """Every schedule fits the grid, so what does not fit there bounds all schedules."""
    UP = "up"
    """Whatever fits the grid is a schedule no longer than on the grid."""


def common_ticks(problem: Problem) -> int:
    """The greatest common divisor of all durations and transfer times: optimal times are multiples of it."""
    ticks = [cost.ticks for costs in problem.stages for _, cost in costs.offered]
    neighbours = [(s, s + 1) for s in range(problem.num_stages - 1)]
    lags = [problem.lag_ticks(*pair) for a, b in neighbours for pair in ((a, b), (b, a))]
    return gcd(*ticks, *lags)


@dataclass(frozen=True, slots=True)
class Slots:
    """A problem on a grid.

    Parameters
    ----------
    problem
        The problem.
    slot_ticks
        Ticks of a slot, at most those of the shortest op; with :func:`common_ticks` the grid is exact.
    rounding
        Where durations and transfers go that are no multiples.
    """

    problem: Problem
    slot_ticks: int
    rounding: Rounding

    def __post_init__(self) -> None:
        shortest = shortest_ticks(self.problem)
        assert 0 < self.slot_ticks <= shortest, f"a slot of {self.slot_ticks} ticks, an op of {shortest}"

    @property
    def is_exact(self) -> bool:
        """Whether every duration and transfer is whole slots."""
        return common_ticks(self.problem) % self.slot_ticks == 0

    def round(self, ticks: int) -> int:
        """Ticks in slots."""
        return ticks // self.slot_ticks if self.rounding is Rounding.DOWN else -(-ticks // self.slot_ticks)

    def length(self, kind: OpKind, stage: int) -> int:
        """The duration of an op, at least one slot."""
        return self.round(self.problem.stages[stage].cost(kind).ticks)

    def wait(self, kind: OpKind, from_stage: int, to_stage: int) -> int:
        """From the start of an op to that of the op which it feeds on another stage, rounded once."""
        lag = self.problem.lag_ticks(from_stage, to_stage)
        return self.round(self.problem.stages[from_stage].cost(kind).ticks + lag)

    def fewest(self, least_ticks: int) -> int:
        """The fewest slots in which a schedule may fit of which no schedule takes less ticks."""
        if self.rounding is Rounding.UP or self.is_exact:
            return -(-least_ticks // self.slot_ticks)
        return least_ticks // self.slot_ticks  # rounded down, a schedule may seem to take less

    def least_ticks(self, fewest: int) -> int:
        """What is proved when nothing fits less than so many slots rounded down: a bound in ticks.

        Ops keep or gain time when their ends are rounded down to slots, and so the makespan of t ticks fits
        ``t // slot_ticks`` slots. A rank's span does not begin on a slot, and takes up to one slot more.
        """
        if self.is_exact or self.problem.objective is Objective.MAKESPAN:
            return fewest * self.slot_ticks
        return (fewest - 1) * self.slot_ticks + 1


def shortest_ticks(problem: Problem) -> int:
    """The duration of the shortest op."""
    return min(cost.ticks for costs in problem.stages for _, cost in costs.offered)
