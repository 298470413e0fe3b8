"""Several statements of one problem, under different placements or cut differently, in one search.

Each gets a short look first: the first schedule that can be built without a solver, then the others. Of the
time that is left, the one with the best value gets half, the next best half of the rest, and so on, as long
as they come near the best value by then. Those small enough to be solved as a whole get a little however far
off they are, often enough to be proved. What is left over goes to the best, where it is too large for that,
and then, in turns, to all whose lower bound is below the best value: the least bound is the one that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from math import inf

from synth.errors import NoScheduleFoundError, SynthError
from synth.memory import smallest_limits_bytes
from synth.problem import Problem
from synth.search.constructing import GRACE_S
from synth.search.driver import Search
from synth.search.solving import is_small

LOOK_SHARE = 0.25
"""The share of the time limit that all first looks together may take."""

NEAR = 1.15
"""How far above the best value what a first look found, if it saw all, may be to get time first."""

FIRST_SHARE, FAR_SHARE = 0.5, 0.1
"""The share of the time left that a first turn may take, near the best value and far off."""

Report = Callable[[str, int | None, int], None]
MakeSearch = Callable[[Problem, Report], Search]


def search_all(
    candidates: Sequence[Problem], make_search: MakeSearch, deadline: float, report: Report
) -> list[Search]:
    """Search among the candidates; returns one search for each that was looked at and may have a schedule.

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
        When no schedule of any candidate was found.
    InfeasibleError
        When it is proved that none has one.
    """

    def report_least(step: str, value: int | None, _: int) -> None:
        possible = [search.bound.ticks for search in searches if search.infeasible is None]
        report(step, value, min(possible, default=0))

    searches: list[Search] = []
    searches += [make_search(candidate, report_least) for candidate in candidates]
    if len(searches) == 1:
        searches[0].run()
    else:
        searches = _look(searches, deadline)
        if not _interrupted(searches):
            _run(searches, deadline)
    if all(search.best is None for search in searches):
        raise _nothing_found(searches)
    return [search for search in searches if search.infeasible is None]


def _nothing_found(searches: Sequence[Search]) -> SynthError:
    errors = [search.infeasible for search in searches if search.infeasible is not None]
    if len(errors) == len(searches):
        return min(errors, key=lambda error: sum(error.smallest_limit_bytes))
    problem = next(search.problem for search in searches if search.infeasible is None)
    return NoScheduleFoundError(
        f"no schedule was found within {list(problem.memory_limit_bytes or ())} bytes, and none may exist; "
        f"{list(smallest_limits_bytes(problem))} would do"
    )


def _look(searches: list[Search], deadline: float) -> list[Search]:
    """Look at one after the other while there is time, first until each has a schedule; those looked at."""
    begun = time.monotonic()
    until = begun + LOOK_SHARE * (deadline - begun)
    shares = [begun + (until - begun) * number / len(searches) for number in range(1, len(searches) + 1)]
    seen: list[Search] = []
    for ends in ([-inf] * len(searches), shares):
        for search, end in zip(searches, ends, strict=True):
            if seen and (_interrupted(seen) or time.monotonic() >= until + GRACE_S):
                return seen
            search.look(end)
            if not seen:  # loading compiled code is not to count against the others
                until = max(until, time.monotonic())
            if search not in seen:
                seen.append(search)
    return seen


def _run(searches: list[Search], deadline: float) -> None:
    """Run those whose turn it is until time is up or nobody may win any more."""
    for search, share in _turns(searches):
        now = time.monotonic()
        if now >= deadline:
            return
        value = _best_value(searches)
        search.run(now + share * (deadline - now), None if value == inf else int(value))
        if search.interrupted:
            return


def _turns(searches: list[Search]) -> Iterator[tuple[Search, float]]:
    """Whose turn it is, and the share of the time left that it may take."""
    for search in sorted(searches, key=_value):
        is_near = _value(search) <= NEAR * _best_value(searches) or not search.is_built
        if _may_win(search, searches) and (is_near or is_small(search.problem)):
            yield search, FIRST_SHARE if is_near else FAR_SHARE
    while going := [search for search in searches if _may_win(search, searches)]:
        best = min(going, key=_value)
        if _value(best) == _best_value(searches) and not is_small(best.problem):
            yield best, 1.0
            continue
        for number, search in enumerate(sorted(going, key=lambda search: search.bound.ticks)):
            if _may_win(search, searches):
                yield search, 1 / (len(going) - number)


def _may_win(search: Search, searches: Sequence[Search]) -> bool:
    """Whether a search has something left to do that could better the best value."""
    value = _best_value(searches)
    return not search.is_over and search.may_improve(None if value == inf else int(value))


def _value(search: Search) -> float:
    """What a search has found, ticks; without a schedule more than any."""
    return inf if search.best is None else search.best.value


def _best_value(searches: Sequence[Search]) -> float:
    return min(map(_value, searches))


def _interrupted(searches: Sequence[Search]) -> bool:
    return any(search.interrupted for search in searches)
