"""The contest between placements: everyone is looked at, the hopeless are out, the best gets the most."""

import time

import pytest
from builders import DIVIDED

from synth.free_maps import open_placements, placement_name
from synth.placement import PlacementKind
from synth.problem import Problem, uniform_problem
from synth.search.contest import search_all
from synth.search.driver import Search
from synth.search.synthesizer import synthesize


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """Compile, or load what was compiled, before any time counts."""
    synthesize(uniform_problem(3, 4, DIVIDED, transfer_ticks=1, memory_limit_bytes=6), time_limit=60)


def auto(num_microbatches: int = 8, transfer_ticks: int = 1) -> Problem:
    return uniform_problem(
        4,
        num_microbatches,
        DIVIDED,
        transfer_ticks=transfer_ticks,
        chunks=2,
        kind=PlacementKind.AUTO,
        memory_limit_bytes=14,
    )


class Contest:
    """A contest and what it did, as (what, placement, seconds given, rival)."""

    def __init__(self, problem: Problem, seconds: float) -> None:
        self.done: list[tuple] = []
        self.bounds: list[int] = []
        deadline = time.monotonic() + seconds
        contest = self

        class Noted(Search):
            def look(self, until):
                super().look(until)
                contest.done.append(("look", placement_name(self.problem)))

            def run(self, until=None, rival=None):
                left = None if until is None else (until - time.monotonic()) / (deadline - time.monotonic())
                contest.done.append(("run", placement_name(self.problem), left, rival))
                super().run(until, rival)

        self.searches = search_all(
            open_placements(problem),
            lambda candidate, report: Noted(candidate, deadline, 1, 0, report),
            deadline,
            lambda step, value, bound: self.bounds.append(bound),
        )


def test_everyone_is_looked_at_and_the_best_gets_half(monkeypatch):
    monkeypatch.setattr("synth.search.contest.LOOK_SHARE", 1.0)
    contest = Contest(auto(), 4)
    looked = [name for what, name, *_ in contest.done if what == "look"]
    runs = [rest for what, *rest in contest.done if what == "run"]
    assert looked == ["loop", "wave", "0-0-1-1-2-2-3-3"]
    assert looked == [placement_name(search.problem) for search in contest.searches]
    assert len(runs) <= 3
    for _, share, rival in runs[:-1]:
        assert share < 0.51
        assert rival >= min(search.incumbent.value for search in contest.searches)
    least = min(search.bound.ticks for search in contest.searches)
    assert max(contest.bounds) <= least


def test_who_cannot_win_is_not_run(monkeypatch):
    """Transfers far longer than ops: the bound of a loop is above what neighbours on one rank reach."""
    monkeypatch.setattr("synth.search.contest.LOOK_SHARE", 0.9)
    contest = Contest(auto(transfer_ticks=1000).with_memory_limit(None), 2)
    run = {rest[0] for what, *rest in contest.done if what == "run"}
    assert "loop" not in run
    loop = contest.searches[0]
    assert loop.bound.ticks >= min(search.incumbent.value for search in contest.searches)


def test_no_time_at_all_is_enough_for_one():
    contest = Contest(auto(), 1e-6)
    assert [what for what, *_ in contest.done] == ["look"]
    assert contest.searches[0].incumbent.value > 0


def test_who_was_not_seen_whole_is_not_dropped_for_its_value(monkeypatch):
    """A first look with no time at all builds one schedule; a baseline built later may still win."""
    monkeypatch.setattr("synth.search.contest.LOOK_SHARE", 1e-3)
    monkeypatch.setattr("synth.search.contest.NEAR", 0)
    contest = Contest(auto(), 2)
    seen = {placement_name(search.problem) for search in contest.searches}
    assert {rest[0] for what, *rest in contest.done if what == "run"} == seen
    assert all(search.is_built for search in contest.searches)


def test_a_single_candidate_is_run_alone():
    contest = Contest(uniform_problem(2, 2, DIVIDED), 1)
    assert contest.done == [("run", "loop", None, None)]
