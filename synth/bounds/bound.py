"""What a lower bound is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound on the problem's objective.

    Parameters
    ----------
    name
        A word for tables.
    ticks
        The bound.
    argument
        Why it holds, in one sentence with the rank it comes from.
    """

    name: str
    ticks: int
    argument: str
