"""One rank alone: never above the optimum, and the optimum where one rank is all there is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import DIVIDED
from exhaustive import best_value
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import stage_costs
from test_bounds import tiny_problems, v_problem

from synth.baselines import baseline_orders
from synth.bounds import lower_bounds, one_rank_bounds
from synth.bounds.alone import one_rank_model, serial_ticks
from synth.bounds.counters import counter_bound
from synth.bounds.one_rank import one_rank_bound
from synth.bounds.one_stage import one_stage_model
from synth.bounds.relaxation import relax, relaxable_ranks
from synth.cpsat import SolveParams, solve
from synth.memory import smallest_limits_bytes
from synth.ops import OpKind
from synth.placement import PlacementKind
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem
from synth.timing import schedule_orders

PUBLISHED = json.loads((Path(__file__).parent / "data" / "published.json").read_text(encoding="utf-8"))
UNIT_POINTS = PUBLISHED["adaptive_v"]["unit_costs"]["points"]
PARAMS = SolveParams(time_limit_s=30, work_limit=30, workers=1, seed=0)


def proved(problem, rank, params=PARAMS, known_ticks=0):
    """All that one rank proves."""
    return [bound.ticks for bound in one_rank_bound(problem, rank, params, known_ticks)]


def alone(problem, rank):
    """The least time of a rank by the model of any rank; None where nothing fits."""
    solved = solve(one_rank_model(problem, rank, 0, serial_ticks(problem, rank)), PARAMS)
    assert solved.is_proved
    return round(solved.solver.objective_value) if solved.has_solution else None


@settings(max_examples=120)
@given(tiny_problems(), st.sampled_from([0.001, 1.0, 30.0]))
def test_no_rank_is_above_the_optimum(problem, work_limit):
    """However early the solver is cut off, and whatever is known already."""
    optimum = best_value(problem, delayed=problem.links is Links.FREE)
    params = replace(PARAMS, work_limit=work_limit)
    for rank in range(problem.num_ranks):
        ticks = proved(problem, rank, params)
        assert ticks == sorted(ticks)
        assert ticks[-1] <= optimum
        assert not proved(problem, rank, params, optimum)
        assert alone(problem, rank) <= optimum


@settings(max_examples=60)
@given(stage_costs(), stage_costs(), st.integers(1, 3), st.sampled_from(Objective), st.integers(0, 5))
def test_one_rank_is_all_there_is(first, second, num_microbatches, objective, more):
    """With one stage or two, backwards in either form: the optimum."""
    for stages in ((first,), (first, second)[: 3 - num_microbatches]):
        if not stages:
            continue
        problem = uniform_problem(1, num_microbatches, first, chunks=len(stages), objective=objective)
        problem = replace(problem, stages=stages)
        problem = problem.with_memory_limit(smallest_limits_bytes(problem)[0] + more)
        optimum = best_value(problem)
        assert alone(problem, 0) == optimum
        assert max(proved(problem, 0)) == optimum


@settings(max_examples=60)
@given(tiny_problems())
def test_both_models_of_a_rank_with_one_stage_agree(problem):
    """The one by pairs of counts knows nothing of the pace of others; without it, the same to the tick."""
    for rank in relaxable_ranks(problem):
        solved = solve(one_stage_model(relax(problem, rank)), PARAMS)
        assert solved.is_proved
        if not solved.has_solution:
            assert alone(problem, rank) is None
            continue
        ticks = round(solved.solver.objective_value)
        assert ticks <= alone(problem, rank)
        (stage,) = problem.stages_by_rank[rank]
        backwards = [cost for kind, cost in problem.stages[stage].offered if kind is not OpKind.F]
        if problem.objective is Objective.RANK_SPAN and not any(cost.alloc_bytes for cost in backwards):
            assert ticks == alone(problem, rank)


@pytest.mark.parametrize(
    "point", [p for p in UNIT_POINTS if p["p"] == 4], ids=lambda point: f"k={point['k']}"
)
def test_last_rank_of_a_v_alone_explains_the_published_frontier(point):
    """In unit times the makespan is the published value, up to 1.5 p; the rank's span says less than half."""
    limit, idle = point["k"], point["bubble_units"]
    problem = v_problem((1, 1, 1), 0, 4, 8, limit, Objective.MAKESPAN)
    if 2 * limit <= 3 * 4:
        assert alone(problem, 3) - problem.work_ticks == idle
    spans = replace(problem, objective=Objective.RANK_SPAN)
    assert alone(spans, 3) - problem.work_ticks <= idle


def test_few_microbatches_hang_on_one_rank():
    """Where the windows of the counters are cut short, the last rank of a V proves the more."""
    problem = v_problem((9261, 9043, 4668), 601, 8, 8, 8, Objective.MAKESPAN)
    counted = counter_bound(problem, (0, 7), 60, PARAMS).ticks
    ticks = max(proved(problem, 7, known_ticks=counted))
    assert counted < ticks <= schedule_orders(problem, baseline_orders("v-min", problem)).value


def test_line_of_one_rank_is_there_for_every_chain():
    """Also where every rank has two stages and backwards may take either form, or nothing is proved above."""
    costs = StageCosts(
        F=OpCost(ticks=3, alloc_bytes=2),
        B=OpCost(ticks=4, free_bytes=1),
        W=OpCost(ticks=3, free_bytes=1),
        BW=OpCost(ticks=5, free_bytes=2),
    )
    problem = uniform_problem(2, 3, costs, chunks=2, kind=PlacementKind.V, memory_limit_bytes=8)
    named = {bound.name: bound for bound in lower_bounds(problem, PARAMS)}
    assert named["one rank"].ticks == max(alone(problem, rank) for rank in range(2))


def test_what_has_too_many_ops_is_not_asked():
    problem = uniform_problem(2, 2000, DIVIDED, chunks=2, memory_limit_bytes=8)
    assert not list(one_rank_bounds(problem, PARAMS))
