"""Times and bytes in the units that people read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from synth.export.shown import Shown
from synth.problem import Problem
from synth.schedule import measure

LONGEST_IN_TICKS = 1000
"""Schedules shorter than this are laid out on a grid of ticks; longer ones are in seconds."""

LARGEST_PLAIN = 10_000
"""Amounts of memory below this are written as they are: they count activations rather than bytes."""

_SECONDS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
_BYTES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """A unit of time: its name, and its length in seconds, None for ticks."""

    name: str
    seconds: float | None

    def per_tick(self, problem: Problem) -> float:
        """How long a tick of the problem is in this unit."""
        return 1.0 if self.seconds is None else problem.tick_seconds / self.seconds

    def write(self, problem: Problem, ticks: int) -> str:
        """A time, in ticks or in the unit that suits it best."""
        if self.seconds is None:
            return f"{ticks} {self.name}"
        seconds = ticks * problem.tick_seconds
        best = _unit_of(seconds)
        return f"{significant(seconds / best[1], 4)} {best[0]}"


@dataclass(frozen=True, slots=True)
class BytesUnit:
    """A unit of memory: its name, none for the unit of the document, and its size in bytes."""

    name: str
    size: int

    def number(self, amount: int) -> str:
        """An amount without its unit."""
        return f"{amount}" if self.size == 1 else significant(amount / self.size, 3)


def time_unit(shown: Sequence[Shown]) -> TimeUnit:
    """The unit in which all of these schedules are shown: ticks for a grid of few, else seconds or parts.

    Schedules whose ticks differ in length are never shown in ticks.
    """
    spans = [(measure(one.schedule).makespan, one.schedule.problem.tick_seconds) for one in shown]
    if max(span for span, _ in spans) < LONGEST_IN_TICKS and len({tick for _, tick in spans}) == 1:
        return TimeUnit("ticks", None)
    return TimeUnit(*_unit_of(max(span * tick for span, tick in spans)))


def bytes_unit(amounts: Iterable[int]) -> BytesUnit:
    """The unit in which all of these amounts are shown."""
    largest = max(amounts, default=0)
    if largest < LARGEST_PLAIN:
        return BytesUnit("", 1)
    return next(BytesUnit(*unit) for unit in _BYTES if largest >= unit[1])


def _unit_of(seconds: float) -> tuple[str, float]:
    """The largest unit of which these are one or more."""
    return next((unit for unit in _SECONDS if seconds >= unit[1]), _SECONDS[-1])


def significant(number: float, digits: int) -> str:
    """A number with so many significant digits, all digits before the point kept.

    >>> significant(1.32384, 4), significant(12345.6, 4), significant(80.0, 3)
    ('1.324', '12346', '80')
    """
    if abs(number) >= 10**digits:
        return f"{number:.0f}"
    return f"{number:.{digits}g}"
