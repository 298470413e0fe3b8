"""Bounds, exact answers and the search on flows: against every order, tried one by one."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.bounds import best_bound
from synth.bounds.flows import flow_bounds
from synth.cpsat import SolveParams
from synth.errors import InputError
from synth.exact.whole_horizon import solve_whole_horizon
from synth.flows import Direction, with_directions, with_slices
from synth.memory import smallest_limits_bytes
from synth.ops import OpKind
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem
from synth.schedule import fits
from synth.search.synthesizer import synthesize
from synth.verify import verify_schedule
from tests.exhaustive import best_value

PARAMS = SolveParams(time_limit_s=60, work_limit=60, workers=1, seed=0)


@st.composite
def tiny_flows(draw, limited=False):
    """Two ranks; two directions with one microbatch each, or one microbatch of two slices."""

    def cost(alloc=0, free=0):
        return OpCost(ticks=draw(st.integers(1, 4)), alloc_bytes=alloc, free_bytes=free)

    def stage(summed):
        way = draw(st.sampled_from(["divided", "whole", "either"]))
        parts = {}
        if way != "whole":
            parts |= {"B": cost(free=1), "W": cost(free=1)}
        if way != "divided":
            parts["BW"] = cost(free=2)
        return StageCosts(F=cost(alloc=2), R=cost() if summed else None, **parts)

    plain = uniform_problem(
        2,
        2 if (two_ways := draw(st.booleans())) else 1,
        stage(False),
        transfer_ticks=draw(st.integers(0, 3)),
        objective=draw(st.sampled_from(Objective)),
    )
    plain = replace(plain, links=draw(st.sampled_from(Links)))
    if two_ways:
        summed = draw(st.booleans())
        plain = replace(plain, stages=(stage(summed), stage(summed)))
        flow = with_directions(plain, [Direction((0, 1), (0,)), Direction((1, 0), (1,))])
    else:
        flow = with_slices(plain, [[stage(False), stage(False)], [stage(False), stage(False)]])
    if limited:
        room = draw(st.integers(0, 2))
        flow = flow.with_memory_limit([least + room for least in smallest_limits_bytes(flow)])
    return flow


@settings(max_examples=15)
@given(tiny_flows())
def test_no_bound_exceeds_the_best_of_all_orders(problem):
    best = best_value(problem, delayed=problem.links is Links.FREE)
    for bound in flow_bounds(problem):
        assert bound.ticks <= best, bound


@settings(max_examples=15)
@given(tiny_flows(limited=True))
def test_whole_horizon_finds_the_best_of_all_orders(problem):
    best = best_value(problem, delayed=problem.links is Links.FREE)
    answer = solve_whole_horizon(problem, PARAMS)
    assert answer.is_complete
    schedule = answer.found.schedule(problem)
    assert not verify_schedule(schedule)
    if problem.objective is Objective.MAKESPAN or problem.links is Links.FREE:
        assert schedule.value == answer.lower_bound == best
    else:
        assert answer.lower_bound <= schedule.value <= best


@settings(max_examples=10)
@given(tiny_flows(limited=True))
def test_search_proves_tiny_flows_optimal(problem):
    result = synthesize(problem, time_limit=20, workers=1)
    assert not verify_schedule(result.schedule)
    assert fits(problem, result.metrics.peak_memory_bytes)
    assert result.gap == 0
    hinted = solve_whole_horizon(problem, PARAMS, hint=result.schedule)
    assert hinted.lower_bound == result.value


STAGE = StageCosts(
    F=OpCost(ticks=10, alloc_bytes=2),
    B=OpCost(ticks=10, free_bytes=1),
    W=OpCost(ticks=10, free_bytes=1),
    static_bytes=3,
)


def bidirectional(num_ranks, num_microbatches, **options):
    """Half of the microbatches each way."""
    ahead, half = tuple(range(num_ranks)), num_microbatches // 2
    ways = [
        Direction(ahead, tuple(range(half))),
        Direction(ahead[::-1], tuple(range(half, num_microbatches))),
    ]
    return with_directions(uniform_problem(num_ranks, num_microbatches, STAGE, **options), ways)


def test_larger_flows_are_answered_within_their_limits():
    problem = bidirectional(4, 8, transfer_ticks=1)
    roomy = synthesize(problem, time_limit=1, workers=1)
    limit = [
        max(least, peak - 3)
        for least, peak in zip(smallest_limits_bytes(problem), roomy.metrics.peak_memory_bytes, strict=True)
    ]
    tight = synthesize(problem.with_memory_limit(limit), time_limit=1, workers=1)
    for result in (roomy, tight):
        assert not verify_schedule(result.schedule)
        assert best_bound(problem).ticks <= result.lower_bound <= result.value
    assert fits(tight.schedule.problem, tight.metrics.peak_memory_bytes)


def test_two_directions_fill_each_others_warm_up():
    """Chimera's reason (arXiv 2107.06925): either direction's ops fit into the other's bubble."""
    one_way = synthesize(uniform_problem(4, 8, STAGE), time_limit=1, workers=1)
    both_ways = synthesize(bidirectional(4, 8), time_limit=1, workers=1)
    assert both_ways.value < one_way.value


@pytest.mark.parametrize("objective", Objective)
def test_bounds_of_large_flows_are_there_at_once(objective):
    problem = bidirectional(16, 64, objective=objective)
    bound = best_bound(problem)
    assert bound.ticks >= problem.work_ticks
    if objective is Objective.MAKESPAN:
        assert bound.ticks > problem.work_ticks, "some rank waits for its first microbatch"


def test_sums_follow_the_last_weight_gradient():
    problem = replace(
        bidirectional(2, 2),
        stages=tuple(replace(costs, R=OpCost(ticks=50)) for costs in bidirectional(2, 2).stages),
    )
    result = synthesize(problem, time_limit=5, workers=1)
    assert [timed.op.kind for timed in result.schedule.ranks[0][-2:]] == [OpKind.R, OpKind.R]
    assert result.gap == 0


def test_the_counter_formulation_is_refused():
    with pytest.raises(InputError, match="give cpsat for directions, slices"):
        synthesize(bidirectional(2, 2), time_limit=1, solver="milp")
