"""The median of repeated measurements and how far they spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from synth.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Repeated measurements of one time.

    Parameters
    ----------
    median_s, low_s, high_s
        The median and the quartiles, seconds.
    count
        How many measurements.
    """

    median_s: float
    low_s: float
    high_s: float
    count: int

    @property
    def relative(self) -> float:
        """Half the distance of the quartiles as a share of the median, 0 where that is 0."""
        return (self.high_s - self.low_s) / (2 * self.median_s) if self.median_s else 0.0


def spread_of(seconds: Sequence[float], what: str) -> Spread:
    """Summarise measurements.

    Parameters
    ----------
    seconds
        At least one.
    what
        What was measured, for messages, e.g. ``F of stage 2``.

    Raises
    ------
    InputError
        When one of them is not finite or below 0.
    """
    for number, value in enumerate(seconds):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(
                f"measurement {number} of {what} is {value} s, and a time is finite and at least 0: "
                "measure again"
            )
    if len(seconds) == 1:
        return Spread(median_s=seconds[0], low_s=seconds[0], high_s=seconds[0], count=1)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Spread(median_s=median, low_s=low, high_s=high, count=len(seconds))
