"""Several statements of one problem, under different placements or cut differently, in one search.

Each gets a short look first: what is built without a solver. Those whose lower bound is not below the best
value seen are out. Of the time that is left, the one with the best value gets half, the next best half of the
rest, and so on, as long as they come near the best value by then; what is left over goes to the best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from synth.errors import NoScheduleFoundError
from synth.problem import Problem
from synth.search.driver import Search

LOOK_SHARE = 0.25
"""The share of the time limit that all first looks together may take."""

NEAR = 1.15
"""How far above the best value what a first look found, if it saw all, may be to get more time."""

Report = Callable[[str, int | None, int], None]
MakeSearch = Callable[[Problem, Report], Search]


def search_all(
    candidates: Sequence[Problem], make_search: MakeSearch, deadline: float, report: Report
) -> list[Search]:
    """Search among the candidates; returns one search for each that was looked at, with its incumbent.

    Parameters
    ----------
    candidates
        At least one; values and bounds are in the same ticks for all.
    make_search
        Makes the search of a candidate, which reports as told.
    deadline
        When to end, in seconds of the monotonic clock.
    report
        Told of every step: what it is, the best value of its candidate, the bound over all candidates.

    Raises
    ------
    NoScheduleFoundError
        When no candidate has a schedule.
    """

    def report_least(step: str, value: int | None, _: int) -> None:
        report(step, value, min(search.bound.ticks for search in searches))

    searches: list[Search] = []
    searches += [make_search(candidate, report_least) for candidate in candidates]
    if len(searches) == 1:
        searches[0].run()
        return searches
    seen = _look(searches, deadline)
    if not seen[-1].interrupted:
        _run(seen, deadline)
    return seen


def _look(searches: list[Search], deadline: float) -> list[Search]:
    """Look at one after the other while there is time, at one at least; those that have a schedule."""
    begun = time.monotonic()
    until = begun + LOOK_SHARE * (deadline - begun)
    seen: list[Search] = []
    failure: NoScheduleFoundError | None = None
    for number, search in enumerate(searches):
        if seen and (time.monotonic() >= until or seen[-1].interrupted):
            break
        try:
            search.look(begun + (until - begun) * (number + 1) / len(searches))
        except NoScheduleFoundError as error:
            failure = error
        else:
            seen.append(search)
    if not seen:
        assert failure is not None
        raise failure
    return seen


def _run(searches: list[Search], deadline: float) -> None:
    """Run those that may still win, the best first, each with half of the time that is left."""
    waiting = sorted(searches, key=lambda search: search.incumbent.value)
    while time.monotonic() < deadline:
        best = min(searches, key=lambda search: search.incumbent.value)
        value = best.incumbent.value
        waiting = [
            search
            for search in waiting
            if search.bound.ticks < value and (search.incumbent.value <= NEAR * value or not search.is_built)
        ]
        if not waiting:
            if best.bound.ticks < value:
                best.run(deadline)
            return
        search, now = waiting.pop(0), time.monotonic()
        search.run(now + (deadline - now) / 2, value)
        if search.interrupted:
            return
