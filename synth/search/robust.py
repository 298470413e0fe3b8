"""The most robust of several schedules: the one with the least 95th percentile when op times vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synth.errors import BackendError
from synth.search.standing import Incumbent
from synth.simulate import replay_with_jitter
from synth.verify import verify_schedule

SAMPLES = 1000
"""Replays behind every percentile."""

REPORTED_SIGMAS = (0.05, 0.1)
"""Noise that is reported besides the noise asked for."""


@dataclass(frozen=True, slots=True)
class UnderNoise:
    """What a schedule takes with and without noise.

    Parameters
    ----------
    method
        How it was found.
    value
        Of the objective without noise, ticks.
    p95
        The 95th percentile of the objective by the noise's relative standard deviation, ticks.
    """

    method: str
    value: int
    p95: dict[float, int]


@dataclass(frozen=True, slots=True)
class Robustness:
    """The schedule with the best value and the most robust one, side by side.

    Parameters
    ----------
    sigma
        Relative standard deviation of the noise that decided.
    samples
        Replays of each schedule.
    compared
        How many schedules were.
    best, chosen
        The one with the best value, and the one that was chosen.
    """

    sigma: float
    samples: int
    compared: int
    best: UnderNoise
    chosen: UnderNoise


def most_robust(incumbents: Sequence[Incumbent], sigma: float, seed: int) -> tuple[Incumbent, Robustness]:
    """Choose the schedule with the least 95th percentile under noise, the better value among equals.

    Parameters
    ----------
    incumbents
        At least one, the best value first.
    sigma
        The noise (:func:`synth.simulate.replay_with_jitter`).
    seed
        Of the noise, the same for all.

    Raises
    ------
    BackendError
        When the chosen schedule breaks a rule.
    """

    def p95(incumbent: Incumbent, noise: float) -> int:
        return replay_with_jitter(incumbent.schedule, sigma=noise, samples=SAMPLES, seed=seed).p95

    def under_noise(incumbent: Incumbent) -> UnderNoise:
        percentiles = {noise: p95(incumbent, noise) for noise in sorted({sigma, *REPORTED_SIGMAS})}
        return UnderNoise(incumbent.method, incumbent.value, percentiles)

    best = incumbents[0]
    chosen = min(incumbents, key=lambda incumbent: (p95(incumbent, sigma), incumbent.value))
    violations = verify_schedule(chosen.schedule)
    if violations:
        raise BackendError(f"{chosen.method} gave a schedule that breaks a rule: {violations[0]}")
    before = under_noise(best)
    after = before if chosen is best else under_noise(chosen)
    return chosen, Robustness(sigma, SAMPLES, len(incumbents), before, after)
