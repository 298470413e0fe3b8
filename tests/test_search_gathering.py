"""Schedules to choose a robust one from: valid, different, of about one value, the same every time."""

import time

import pytest

from synth.baselines import baseline_orders
from synth.instances import load_instance
from synth.memory import parse_limit
from synth.search.gathering import gather
from synth.search.standing import MOST_NEAR, NEAR_BEST, Incumbent
from synth.search.synthesizer import synthesize
from synth.timing import schedule_orders
from synth.verify import verify_schedule


@pytest.fixture
def problem():
    """Eight ranks, 24 microbatches, in the memory of 1F1B, where ZB-H1 meets the bound at once."""
    instance = load_instance("zb-1.5b-m24")
    return instance.with_memory_limit(parse_limit("1x", instance))


@pytest.fixture
def incumbent(problem):
    schedule = schedule_orders(problem, baseline_orders("zb-h1", problem))
    return Incumbent(schedule, schedule.value, "zb-h1")


def test_different_valid_schedules_of_about_one_value(incumbent, monkeypatch):
    monkeypatch.setattr("synth.search.gathering.MOST_GATHERED", 20)
    steps = []
    gathered = gather(incumbent, 0.05, 3, time.monotonic() + 100, steps.append)
    assert len(steps) == 20
    assert len({found.schedule.ranks for found in gathered} - {incumbent.schedule.ranks}) == MOST_NEAR
    for found in gathered:
        assert verify_schedule(found.schedule) == []
        assert found.schedule.value == found.value <= (1 + NEAR_BEST) * incumbent.value
        assert found.method == "zb-h1, annealed"
    again = gather(incumbent, 0.05, 3, time.monotonic() + 100, steps.append)
    assert again == gathered


def test_none_without_time(incumbent):
    assert gather(incumbent, 0.05, 3, time.monotonic(), print) == []


def test_there_is_a_choice_where_a_baseline_meets_the_bound_at_once(problem):
    result = synthesize(problem, time_limit=60, workers=1, robust=0.05)
    robustness = result.robustness
    assert result.gap == 0
    assert robustness.compared > 1
    assert robustness.best.method == "zb-h1"
    assert robustness.chosen.p95[0.05] < robustness.best.p95[0.05]


def test_an_interrupt_while_gathering_keeps_the_best(problem, monkeypatch):
    monkeypatch.setattr("synth.search.synthesizer.HEARTBEAT_S", 0.0)

    def interrupt(progress):
        if progress.step.startswith("gathering"):
            raise KeyboardInterrupt

    result = synthesize(problem, time_limit=60, workers=1, robust=0.05, on_progress=interrupt)
    assert result.interrupted
    assert (result.robustness, result.provenance.method, result.gap) == (None, "zb-h1", 0)
