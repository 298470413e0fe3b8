"""Bad conditions: hardly any time, memory on the edge, extreme sizes and costs; every answer is verified.

Problems of one kind of trouble each are in ``test_search_driver.py``; here troubles meet.
"""

from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED

from synth.baselines import BASELINES, baseline_orders
from synth.bounds import lower_bounds
from synth.chunks import cut_every_way
from synth.cpsat import SolveParams
from synth.errors import BaselineUndefinedError, InfeasibleError
from synth.free_maps import open_placements
from synth.memory import smallest_limits_bytes
from synth.placement import PlacementKind, place
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import fits, peak_memory_bytes
from synth.search.synthesizer import Result, synthesize
from synth.simulate import replay
from synth.timing import schedule_orders
from synth.verify import verify_schedule

TERA = 10**12
HARDLY = 1e-9
"""Seconds in which nothing is found beyond the first schedule built."""


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """Compile, or load what was compiled, before any time counts."""
    synthesize(uniform_problem(3, 4, DIVIDED, transfer_ticks=1, memory_limit_bytes=6), time_limit=60)


def stage(forward: int, backward: int, weight: int, held: int = 2, static: int = 0) -> StageCosts:
    return StageCosts(
        F=OpCost(ticks=forward, alloc_bytes=held),
        B=OpCost(ticks=backward, free_bytes=held // 2),
        W=OpCost(ticks=weight, free_bytes=held - held // 2),
        static_bytes=static,
    )


def problem_of(
    num_ranks: int, stages: list[StageCosts], num_microbatches: int, kind: str, *, transfer: int = 1, **more
) -> Problem:
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=num_microbatches,
        placement=place(PlacementKind(kind), num_ranks, len(stages)),
        stages=tuple(stages),
        transfer_ticks=uniform_transfers(num_ranks, transfer),
        **more,
    )


def answered(problem: Problem, **options) -> Result:
    """Synthesize, and hold the answer against every rule, its replay and its own bound."""
    result = synthesize(problem, **({"time_limit": 0.3, "workers": 1} | options))
    violations = verify_schedule(
        result.schedule,
        metrics=result.metrics,
        certificate=result.certificate,
        stated_gap=result.gap,
        stated_status=result.status,
    )
    assert violations == []
    assert replay(result.schedule) == result.schedule
    assert result.value == schedule_orders(result.schedule.problem, result.schedule.orders).value
    assert type(result.value) is type(result.lower_bound) is int
    return result


STAGES = {
    "alike": [DIVIDED] * 4,
    "whole backwards": [UNDIVIDED] * 4,
    "one 100 times the others": [stage(3, 3, 2), stage(300, 300, 200), stage(3, 3, 2), stage(3, 3, 2)],
    "tera": [stage(TERA, 2 * TERA, TERA, held=TERA)] * 4,
    "from 1 to tera": [stage(1, 1, 1), stage(TERA, TERA, TERA), EITHER, stage(7, 8, 9, held=TERA)],
}
SIZES = {"p=1": (1, 3), "p=2": (2, 3), "p=4": (4, 3), "m=1": (2, 1), "p=m=1": (1, 1)}


@pytest.mark.parametrize("links", Links)
@pytest.mark.parametrize("transfer", [0, 1, 10 * TERA])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("costs", STAGES)
def test_troubles_meet(costs, size, transfer, links):
    """Auto placement at the least memory that the loop needs, both objectives."""
    num_ranks, num_microbatches = SIZES[size]
    problem = problem_of(num_ranks, STAGES[costs], num_microbatches, "auto", transfer=transfer, links=links)
    problem = problem.with_memory_limit(smallest_limits_bytes(problem))
    for objective in Objective:
        result = answered(replace(problem, objective=objective), time_limit=0.05)
        assert result.lower_bound >= min(placed.work_ticks for placed in open_placements(problem))


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("kind", ["loop", "wave"])
@pytest.mark.parametrize("costs", STAGES)
def test_memory_on_the_edge(costs, kind, more):
    """The least memory does, a byte more does, and a byte less on any rank does not."""
    problem = problem_of(2, STAGES[costs], 3, kind)
    least = smallest_limits_bytes(problem)
    result = answered(problem.with_memory_limit([limit + more for limit in least]))
    assert fits(
        problem.with_memory_limit([limit + more for limit in least]), result.metrics.peak_memory_bytes
    )
    for rank in range(2):
        limits = [limit - (rank == other) for other, limit in enumerate(least)]
        with pytest.raises(InfeasibleError) as caught:
            synthesize(problem.with_memory_limit(limits), time_limit=0.05)
        assert caught.value.smallest_limit_bytes == least
        assert f"rank {rank} has a limit of {limits[rank]} bytes" in str(caught.value)


def test_under_auto_the_limit_said_to_do_does():
    """However little time there is to find free maps again."""
    stages = [stage(1, 1, 1, held=held) for held in (TERA, 1, 1, 1, TERA, 1)]
    problem = problem_of(2, stages, 3, "auto").with_memory_limit(TERA + 1)
    with pytest.raises(InfeasibleError) as caught:
        synthesize(problem, time_limit=5)
    answered(problem.with_memory_limit(caught.value.smallest_limit_bytes), time_limit=HARDLY)


@pytest.mark.parametrize("kind", ["loop", "wave", "auto"])
@pytest.mark.parametrize("limit", [None, 16, 6, 4])
def test_hardly_any_time(kind, limit):
    problem = problem_of(4, [DIVIDED] * 8, 12, kind).with_memory_limit(limit)
    assert answered(problem, time_limit=HARDLY).value > 0


def test_hardly_any_time_for_a_larger_problem():
    """The baselines have a moment beyond the limit, so the best of those that fit is no worse than any."""
    problem = uniform_problem(8, 64, stage(100, 90, 50), transfer_ticks=3, memory_limit_bytes=16)
    result = answered(problem, time_limit=HARDLY)
    for name in BASELINES:
        try:
            orders = baseline_orders(name, problem)
        except BaselineUndefinedError:
            continue
        if fits(problem, peak_memory_bytes(problem, orders)):
            assert result.value <= schedule_orders(problem, orders).value


@pytest.mark.parametrize("kind", [None, PlacementKind.AUTO, PlacementKind.WAVE, PlacementKind.V])
@pytest.mark.parametrize("costs", STAGES)
def test_every_cut_of_troubles(costs, kind):
    cuts = cut_every_way(problem_of(4, STAGES[costs], 2, "loop", transfer=3), kind).problems
    limits = [max(pair) for pair in zip(*map(smallest_limits_bytes, cuts), strict=True)]
    first, *others = (cut.with_memory_limit(limits) for cut in cuts)
    answered(first, alternatives=others, time_limit=0.1)


@pytest.mark.parametrize("costs", STAGES)
def test_robust_choice_of_troubles(costs):
    result = answered(problem_of(2, STAGES[costs], 3, "auto"), robust=10.0)
    assert all(p95 > 0 for p95 in result.robustness.chosen.p95.values())


def test_block_of_large_bytes_and_transfers_far_longer_than_ops():
    """A lifespan of many periods times many bytes passes 64 bits, where memory does not rule it out."""
    problem = problem_of(2, [stage(1, 1, 1, held=TERA)] * 4, 24, "loop", transfer=TERA, links=Links.EXCLUSIVE)
    answered(problem.with_memory_limit(3 * TERA), time_limit=0.5)


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("costs", STAGES)
def test_bounds_of_troubles(costs, objective):
    """No bound is above what is found, in whole ticks however large."""
    problem = replace(problem_of(4, STAGES[costs], 3, "loop", transfer=TERA), objective=objective)
    params = SolveParams(time_limit_s=0.2, work_limit=0.2, workers=1, seed=0)
    value = answered(problem).value
    for bound in lower_bounds(problem, params):
        assert type(bound.ticks) is int
        assert bound.ticks <= value
