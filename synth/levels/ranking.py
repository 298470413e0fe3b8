"""The places of schedules at every level, and how they change from one level to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from synth.levels.judging import Levels

Values = Sequence[Fraction | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A schedule's places, 1 the best and equals equal, and how they change.

    Parameters
    ----------
    places
        At every level among all schedules that have a value there, or None.
    rises
        From each level to the next, how many of the schedules that have values at both it overtakes; below
        0, by how many it is overtaken. None where it has no value at one.
    """

    places: tuple[int | None, int, int]
    rises: tuple[int | None, int]


def rank_levels(rows: Sequence[Levels]) -> list[Standing]:
    """The places of schedules at every level, and how they change from one to the next."""
    formulas = [None if row.formula is None else row.formula.idle_share for row in rows]
    slots = [row.slots.slots for row in rows]
    seconds = [row.simulation.seconds for row in rows]
    first, second, third = _places(formulas), _places(slots), _places(seconds)
    to_slots, to_seconds = _rises(formulas, slots), _rises(slots, seconds)
    return [
        Standing(places=(first[n], _known(second[n]), _known(third[n])), rises=(to_slots[n], _known(rise)))
        for n, rise in enumerate(to_seconds)
    ]


def _places(values: Values) -> list[int | None]:
    """1 and how many are less."""
    known = [value for value in values if value is not None]
    return [None if own is None else 1 + sum(value < own for value in known) for own in values]


def _rises(before: Values, after: Values) -> list[int | None]:
    """The change of place among those that have both values."""
    both = [None not in pair for pair in zip(before, after, strict=True)]
    first, second = (_places(_only(values, both)) for values in (before, after))
    return [None if a is None or b is None else a - b for a, b in zip(first, second, strict=True)]


def _only(values: Values, wanted: Iterable[bool]) -> list[Fraction | None]:
    return [value if keep else None for value, keep in zip(values, wanted, strict=True)]


def _known(number: int | None) -> int:
    assert number is not None, "levels 2 and 3 know every schedule"
    return number
