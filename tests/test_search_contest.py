"""The contest between placements: everyone is looked at, the hopeless are out, the best gets the most."""

import time

import pytest
from builders import DIVIDED

from synth.baselines import baseline_orders
from synth.chunks import cut_every_way
from synth.free_maps import open_placements, placement_name
from synth.instances import load_instance
from synth.memory import parse_limit
from synth.placement import PlacementKind
from synth.problem import Problem, uniform_problem
from synth.search.contest import search_all
from synth.search.driver import Search
from synth.search.synthesizer import synthesize
from synth.timing import schedule_orders


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
    assert looked == ["loop", "wave", "0-0-1-1-2-2-3-3"] * 2  # until each has a schedule, and then to the end
    assert looked[:3] == [placement_name(search.problem) for search in contest.searches]
    firsts = runs[:3]
    assert len({name for name, *_ in firsts}) == len(firsts)
    for _, share, rival in firsts:
        assert share < 0.51
        assert rival >= min(search.incumbent.value for search in contest.searches)
    least = min(search.bound.ticks for search in contest.searches)
    assert max(contest.bounds) <= least


@pytest.mark.parametrize("transfer_ticks", [3, 40])
def test_with_time_left_a_small_problem_is_proved_over_all_placements(transfer_ticks):
    """Also over those that a first look finds far off: their bounds count too."""
    problem = uniform_problem(
        2, 3, DIVIDED, transfer_ticks=transfer_ticks, chunks=2, kind=PlacementKind.AUTO, memory_limit_bytes=8
    )
    result = synthesize(problem, time_limit=60, workers=1)
    alone = [synthesize(placed, time_limit=60, workers=1) for placed in open_placements(problem)]
    assert all(each.gap == 0 for each in alone)
    assert result.value == result.lower_bound == min(each.value for each in alone)


def test_a_large_problem_s_best_is_gone_on_with_before_the_others(monkeypatch):
    monkeypatch.setattr("synth.search.solving.MOST_EXACT_OPS", 0)
    monkeypatch.setattr("synth.search.contest.NEAR", 0)
    contest = Contest(auto(), 2)
    name, share, _ = next(rest for what, *rest in contest.done if what == "run")
    best = min(contest.searches, key=lambda search: search.incumbent.value)
    assert name == placement_name(best.problem)
    assert share > 0.99


def test_who_cannot_win_is_not_run(monkeypatch):
    """Transfers far longer than ops: the bound of a loop is above what neighbours on one rank reach."""
    monkeypatch.setattr("synth.search.contest.LOOK_SHARE", 0.9)
    contest = Contest(auto(transfer_ticks=1000).with_memory_limit(None), 2)
    run = {rest[0] for what, *rest in contest.done if what == "run"}
    assert "loop" not in run
    loop = contest.searches[0]
    assert loop.bound.ticks >= min(search.incumbent.value for search in contest.searches)


def test_without_time_everyone_s_baselines_are_looked_at():
    """However short the limit: the V, looked at later, makes far more of half the memory of 1F1B."""
    cuts = cut_every_way(load_instance("zb-1.5b-m24"), PlacementKind.AUTO).problems
    cuts = [cut.with_memory_limit(parse_limit("0.5x", cut)) for cut in cuts]
    v = next(placed for placed in open_placements(cuts[1]) if placed.placement.kind is PlacementKind.WAVE)
    known = schedule_orders(v, baseline_orders("v-min", v)).value
    assert synthesize(cuts[0], alternatives=cuts[1:], time_limit=1e-6, workers=1).value <= known


def test_one_is_looked_at_however_little_time(monkeypatch):
    monkeypatch.setattr("synth.search.contest.GRACE_S", 0.0)
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
