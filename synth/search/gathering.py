"""Different schedules of about one value, for a more robust one to be chosen from.

A search keeps what improves, and where a baseline meets the bound there is only that. Annealing at a low
temperature, which wanders from one schedule to the next, comes upon hundreds of others that take as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from synth.search.annealer import Annealer
from synth.search.improving import ANNEALED, COLD, OP_MOVES_PER_SLICE
from synth.search.standing import MOST_NEAR, NEAR_BEST, Incumbent
from synth.simulate import replay_with_jitter
from synth.timing import schedule_orders

SEARCH_SHARE = 0.8
"""The share of the time limit that the search has at most where schedules are gathered after it."""

MOST_GATHERED = 200
"""How many schedules are looked at, however much time is left."""

MOVES_PER_OP, HOT = 30, 0.2
"""Annealing moves per op between two schedules, and the first temperature as a share of the mean op."""

SIFTING_SAMPLES = 100
"""Replays under noise that decide which schedules are kept."""


def gather(
    incumbent: Incumbent, sigma: float, seed: int, deadline: float, report: Callable[[str], None]
) -> list[Incumbent]:
    """Schedules near a given one, within :data:`NEAR_BEST` of its value, that do best under noise.

    Parameters
    ----------
    incumbent
        What to begin from.
    sigma
        Relative standard deviation of the noise on op times.
    seed
        Of all random choices.
    deadline
        When to end at the latest, in seconds of the monotonic clock.
    report
        Told of the step under way.

    Returns
    -------
    At most :data:`MOST_NEAR`, none where there is no time.
    """
    problem = incumbent.schedule.problem
    annealer = Annealer(problem, incumbent.schedule.orders, seed)
    num_ops = annealer.graph.num_ops
    moves = max(1, min(MOVES_PER_OP * num_ops, OP_MOVES_PER_SLICE // num_ops))
    hot = HOT * float(annealer.graph.ticks.mean())
    method = incumbent.method.removesuffix(ANNEALED) + ANNEALED
    kept: list[tuple[int, Incumbent]] = []
    for _ in range(MOST_GATHERED):
        if time.monotonic() >= deadline:
            break
        report("gathering schedules to choose from")
        annealer.forget()
        annealer.run(moves, hot, COLD * hot)
        schedule = schedule_orders(problem, annealer.best_orders)
        is_known = any(schedule.ranks == known.schedule.ranks for _, known in kept)
        if not is_known and schedule.value <= (1 + NEAR_BEST) * incumbent.value:
            noisy = replay_with_jitter(schedule, sigma=sigma, samples=SIFTING_SAMPLES, seed=seed)
            kept.append((noisy.p95, Incumbent(schedule, schedule.value, method)))
            kept = sorted(kept, key=lambda pair: pair[0])[:MOST_NEAR]
    return [found for _, found in kept]
