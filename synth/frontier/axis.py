"""Memory limits as one number for all ranks, so that they can be swept and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from synth.errors import InputError
from synth.memory import is_multiple, one_f_one_b_bytes, parse_limit
from synth.problem import Problem

MOST_DISTINCT = 32
"""Where a range holds at most so many limits that differ, all of them are tried unless told otherwise."""

USUAL_POINTS = 13
"""Limits in a wider range: from 0.4x to 1x one for every 0.05x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What a limit of so many bytes means for every rank.

    Parameters
    ----------
    unit_bytes
        What 1F1B holds on its fullest rank: 1x.
    adds_static
        Whether a rank's static bytes come on top of a limit, as they do on top of a multiple such as 0.5x.
    static_bytes
        The static bytes of the rank with the most, where a limit includes them; else 0.
    step_bytes
        What is live on a rank is a multiple of this, so limits in between allow no more than the one below.
    """

    unit_bytes: int
    adds_static: bool
    static_bytes: int
    step_bytes: int

    @classmethod
    def of(cls, problems: Sequence[Problem], *, adds_static: bool) -> Axis:
        """The axis of a problem, stated in one way or several.

        Raises
        ------
        InputError
            When no stage holds anything.
        """
        unit = one_f_one_b_bytes(problems[0])
        if unit == 0:
            raise InputError(
                "no stage holds any activation bytes, so memory makes no difference: give alloc_bytes"
            )
        stages = [costs for problem in problems for costs in problem.stages]
        ops = [cost for costs in stages for _, cost in costs.offered]
        sizes = [size for cost in ops for size in (cost.alloc_bytes, cost.free_bytes)]
        static = 0 if adds_static else max(problems[0].static_bytes_by_rank)
        if not adds_static:
            sizes += [costs.static_bytes for costs in stages]
        return cls(unit_bytes=unit, adds_static=adds_static, static_bytes=static, step_bytes=gcd(*sizes))

    def limits(self, problem: Problem, limit_bytes: int) -> tuple[int, ...]:
        """The limit of every rank."""
        return tuple(base + limit_bytes for base in self._bases(problem))

    def under(self, problem: Problem, limit_bytes: int) -> Problem:
        """The problem under a limit."""
        return problem.with_memory_limit(self.limits(problem, limit_bytes))

    def needed(self, problem: Problem, bytes_by_rank: Sequence[int]) -> int:
        """The smallest limit under which every rank may hold so much."""
        pairs = zip(bytes_by_rank, self._bases(problem), strict=True)
        return max(0, *(held - base for held, base in pairs))

    def multiple(self, limit_bytes: float) -> float:
        """A limit as a multiple of 1F1B's activations."""
        return (limit_bytes - self.static_bytes) / self.unit_bytes

    def _bases(self, problem: Problem) -> tuple[int, ...]:
        return problem.static_bytes_by_rank if self.adds_static else (0,) * problem.num_ranks


def read_range(first: str, last: str, problems: Sequence[Problem], bytes_scale: int) -> tuple[Axis, int, int]:
    """Read the ends of a range of limits as typed, and the axis they lie on.

    Parameters
    ----------
    first, last
        Bytes, a size or a multiple, as :func:`synth.memory.parse_limit` reads them.
    problems
        The problem under every way in which it is stated.
    bytes_scale
        How many of their bytes one byte of an absolute limit is.

    Raises
    ------
    InputError
        When one is no size, they are not of one kind where that matters, or the range is empty.
    """
    problem = problems[0]
    static = any(costs.static_bytes for costs in problem.stages)
    if static and is_multiple(first) != is_multiple(last):
        raise InputError(
            f"{first} and {last} are of two kinds, of which only a multiple leaves out static bytes: "
            "give two multiples, or two sizes"
        )
    axis = Axis.of(problems, adds_static=is_multiple(first))
    ends = [_read(text, problem, bytes_scale) for text in (first, last)]
    if ends[0] > ends[1]:
        raise InputError(f"the limits go from {first} to {last}, which is less: give the smaller one first")
    return axis, ends[0], ends[1]


def choose_limits(
    axis: Axis, first: int, last: int, count: int | None = None, also: Sequence[int] = ()
) -> tuple[int, ...]:
    """Limits from the first to the last, ascending, no two of which allow the same schedules.

    Each is rounded down to a multiple of the axis' step, which forbids nothing.

    Parameters
    ----------
    axis
        What the limits lie on.
    first, last
        The ends of the range, bytes.
    count
        How many; by default all that differ where these are at most :data:`MOST_DISTINCT`, else
        :data:`USUAL_POINTS` evenly spaced ones. Never more than differ.
    also
        Limits besides, where they are in the range.
    """
    step = axis.step_bytes
    low, high = first // step, last // step
    distinct = high - low + 1
    if count is None:
        count = distinct if distinct <= MOST_DISTINCT else USUAL_POINTS
    if count >= distinct:
        return tuple(step * number for number in range(low, high + 1))
    places = [first + (last - first) * n // max(1, count - 1) for n in range(count)]
    places += [limit for limit in also if first <= limit <= last]
    return tuple(sorted({step * (place // step) for place in places}))


def _read(text: str, problem: Problem, bytes_scale: int) -> int:
    limit = parse_limit(text, problem)[0]
    return limit - problem.static_bytes_by_rank[0] if is_multiple(text) else limit * bytes_scale
