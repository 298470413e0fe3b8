"""Seconds to whole ticks, with the error that rounding makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from synth.errors import InputError
from synth.problem import LARGEST_SUM


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiser:
    """Rounds times to ticks of one length.

    Parameters
    ----------
    tick_seconds
        The length of a tick.
    """

    tick_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.tick_seconds < float("inf"):
            raise InputError(f"a tick of {self.tick_seconds} s is given: give a finite length above 0")

    def ticks(self, seconds: float, *, least: int = 1) -> int:
        """The nearest number of ticks, at least one for an op.

        Raises
        ------
        InputError
            When it does not fit into 64-bit sums.
        """
        ticks = seconds / self.tick_seconds
        if not ticks < LARGEST_SUM:
            raise InputError(
                f"{seconds:.3g} s are more than 2**62 ticks of {self.tick_seconds:g} s: give a longer tick"
            )
        return max(least, round(ticks))

    def largest_error(self, times: Iterable[float], *, least: int = 1) -> float:
        """The largest error of rounding, relative to the time; times of 0 do not count."""
        return max(
            (
                abs(self.ticks(time, least=least) * self.tick_seconds - time) / time
                for time in times
                if time > 0
            ),
            default=0.0,
        )
