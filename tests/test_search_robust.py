"""The most robust schedule: never worse under noise than the best value, chosen the same every time."""

import pytest
from builders import DIVIDED, orders_of, two_by_two

from synth.errors import BackendError
from synth.ops import TimedOp
from synth.placement import PlacementKind
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import Schedule
from synth.search.robust import SAMPLES, most_robust
from synth.search.standing import Incumbent
from synth.search.synthesizer import synthesize
from synth.simulate import replay_with_jitter
from synth.timing import schedule_orders
from synth.verify import verify_schedule

COARSE = StageCosts(F=OpCost(ticks=2000), B=OpCost(ticks=2000), W=OpCost(ticks=1000))
TIGHT = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")
LATE = orders_of("0F0 0F1 0B0 0B1 0W0 0W1", "1F0 1F1 1B0 1B1 1W0 1W1")


def incumbent(orders, method: str) -> Incumbent:
    schedule = schedule_orders(two_by_two(COARSE, transfer_ticks=1000), orders)
    return Incumbent(schedule, schedule.value, method)


def p95(schedule: Schedule, sigma: float, seed: int = 3) -> int:
    return replay_with_jitter(schedule, sigma=sigma, samples=SAMPLES, seed=seed).p95


def test_the_least_percentile_is_chosen_and_both_are_reported():
    pair = [incumbent(TIGHT, "tight"), incumbent(LATE, "late")]
    for incumbents in (pair, pair[::-1]):
        chosen, robustness = most_robust(incumbents, 0.3, 3)
        assert chosen is min(pair, key=lambda each: p95(each.schedule, 0.3))
        for shown, of in ((robustness.best, incumbents[0]), (robustness.chosen, chosen)):
            assert (shown.method, shown.value) == (of.method, of.value)
            assert shown.p95 == {sigma: p95(of.schedule, sigma) for sigma in (0.05, 0.1, 0.3)}
        assert (robustness.sigma, robustness.samples, robustness.compared) == (0.3, 1000, 2)


def test_the_better_value_among_equals():
    best = incumbent(TIGHT, "tight")
    same = Incumbent(best.schedule, best.value + 1, "said to be worse")
    assert most_robust([same, best], 0.1, 0)[0] is best


def test_an_invalid_choice_is_our_bug():
    good = incumbent(TIGHT, "tight")
    first, *rest = good.schedule.ranks[0]
    wrong = (TimedOp(first.op, first.start, first.end + 1), *rest)
    broken = Schedule(good.schedule.problem, (wrong, *good.schedule.ranks[1:]))
    with pytest.raises(BackendError, match="tight gave a schedule that breaks a rule"):
        most_robust([Incumbent(broken, good.value, "tight")], 0.1, 0)


@pytest.mark.parametrize("kind", [PlacementKind.LOOP, PlacementKind.AUTO])
def test_synthesized(kind):
    problem = uniform_problem(3, 9, COARSE, transfer_ticks=100, chunks=2, kind=kind, memory_limit_bytes=0)
    result = synthesize(problem, time_limit=2, workers=1, seed=4, robust=0.1)
    robustness = result.robustness
    assert verify_schedule(result.schedule, metrics=result.metrics, certificate=result.certificate) == []
    assert result.value == robustness.chosen.value <= 1.01 * robustness.best.value
    assert robustness.chosen.p95[0.1] <= robustness.best.p95[0.1]
    assert robustness.chosen.p95[0.1] == p95(result.schedule, 0.1, seed=4)
    assert 1 <= robustness.compared <= 16 * 3
    assert result.provenance.method == robustness.chosen.method


def test_the_same_seed_chooses_the_same():
    problem = two_by_two(DIVIDED, stage_to_rank=(0, 1, 1, 0), num_microbatches=4).with_memory_limit(6)
    first, second = (synthesize(problem, time_limit=100, workers=1, seed=3, robust=0.05) for _ in range(2))
    assert first.schedule == second.schedule
    assert first.robustness == second.robustness
