"""Lower bounds: never above the optimum, equal to the published ones, tight where that is known."""

import json
import random
import re
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from math import ceil
from pathlib import Path

import pytest
from builders import DIVIDED, UNDIVIDED, orders_of, two_by_two
from exhaustive import best_value
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems, random_orders

from synth.baselines import baseline_orders
from synth.bounds import best_bound, counter_bounds, lower_bounds, one_rank_bounds
from synth.bounds.counters import counter_bound
from synth.cpsat import SolveParams
from synth.free_maps import open_placements
from synth.instances import load_instance
from synth.memory import serial_orders, smallest_limits_bytes
from synth.placement import PlacementKind
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import peak_memory_bytes
from synth.timing import schedule_orders

PUBLISHED = json.loads((Path(__file__).parent / "data" / "published.json").read_text(encoding="utf-8"))
TEN_SECONDS = SolveParams(time_limit_s=10, work_limit=10, workers=1, seed=0)
SHAPES = ((1, 1, 3), (1, 2, 2), (2, 1, 1), (2, 1, 2), (2, 2, 1), (3, 1, 1))
"""At most so many ranks, chunks and microbatches: twelve ops."""


def named(problem: Problem, name: str) -> int:
    """The ticks of one bound."""
    (ticks,) = (bound.ticks for bound in lower_bounds(problem) if bound.name == name)
    return ticks


@st.composite
def tiny_problems(draw):
    """A problem of a dozen ops, with no limit or one that some schedule fits."""
    ranks, chunks, microbatches = draw(st.sampled_from(SHAPES))
    problem = draw(problems(max_ranks=ranks, max_chunks=chunks, max_microbatches=microbatches))
    if draw(st.booleans()):
        return problem
    more = draw(st.tuples(*[st.integers(0, 4)] * problem.num_ranks))
    return problem.with_memory_limit(
        [least + extra for least, extra in zip(smallest_limits_bytes(problem), more, strict=True)]
    )


@settings(max_examples=250)
@given(tiny_problems())
def test_no_bound_is_above_the_optimum(problem):
    optimum = best_value(problem, delayed=problem.links is Links.FREE)
    assert optimum is not None
    bounds = lower_bounds(problem)
    assert all(bound.ticks <= optimum for bound in bounds), optimum
    assert all(a.ticks >= b.ticks for a, b in pairwise(bounds))
    assert best_bound(problem) == bounds[0]
    assert all(bound.name and bound.argument for bound in bounds)


@settings(max_examples=200)
@given(problems(links=(Links.FREE,), max_microbatches=10), st.integers(0, 2**32))
def test_no_closed_form_is_above_any_orders_under_their_own_peak(problem, seed):
    orders = random_orders(problem, random.Random(seed))
    limited = problem.with_memory_limit(peak_memory_bytes(problem, orders))
    assert best_bound(limited).ticks <= schedule_orders(limited, orders).value


@settings(max_examples=60)
@given(tiny_problems(), st.sampled_from([0.001, 1.0]))
def test_what_a_solver_proves_is_not_above_the_optimum_either(problem, work_limit):
    """However early the solver is cut off."""
    params = SolveParams(time_limit_s=2, work_limit=work_limit, workers=1, seed=0)
    optimum = best_value(problem, delayed=problem.links is Links.FREE)
    assert all(bound.ticks <= optimum for bound in lower_bounds(problem, params)), optimum


@settings(max_examples=200)
@given(tiny_problems(), st.sampled_from([2, 7, 60]), st.data())
def test_counters_of_any_ranks_are_not_above_the_optimum(problem, slots, data):
    optimum = best_value(problem, delayed=problem.links is Links.FREE)
    ranks = data.draw(st.sets(st.sampled_from(range(problem.num_ranks)), min_size=1))
    if problem.objective is Objective.RANK_SPAN:
        ranks |= {problem.stage_to_rank[0]}
    assert counter_bound(problem, sorted(ranks), slots, TEN_SECONDS).ticks <= optimum


@pytest.mark.parametrize("objective", Objective)
def test_room_for_one_microbatch_takes_them_one_by_one(objective):
    """Stage 0 holds a microbatch from its forward to the end of its backward, and then the next may come."""
    stage = StageCosts(F=OpCost(ticks=3, alloc_bytes=5), BW=OpCost(ticks=4, free_bytes=5))
    problem = uniform_problem(3, 6, stage, transfer_ticks=2, objective=objective, memory_limit_bytes=5)
    one_by_one = 6 * (3 * (3 + 4) + 4 * 2)
    assert named(problem, "memory area") == one_by_one == best_bound(problem).ticks
    assert schedule_orders(problem, serial_orders(problem)).value == one_by_one


def test_memory_area_with_its_ramps():
    """By hand: rank 0 holds 2 for F, the round trip and B, then 1 for W, and fills at 2 bytes per F."""
    stage = StageCosts(
        F=OpCost(ticks=10, alloc_bytes=2),
        B=OpCost(ticks=12, free_bytes=1),
        W=OpCost(ticks=8, free_bytes=1),
    )
    problem = uniform_problem(4, 20, stage, transfer_ticks=1, memory_limit_bytes=4)
    held = 2 * (4 * 10 + 3 * 12 + 6 * 1 + 12) + 1 * 8
    fill = Fraction(1, 2) * (4 - 2) * Fraction(4 - 2) / Fraction(2, 10)
    empty = Fraction(1, 2) * (4 - 1) * Fraction(4 - 1) / Fraction(1, 8)
    assert named(problem, "memory area") == ceil((20 * held + fill + empty) / 4)


def test_memory_area_needs_a_limit():
    assert "memory area" not in {bound.name for bound in lower_bounds(uniform_problem(3, 4, DIVIDED))}


def v_problem(ticks, transfer_ticks, num_ranks, num_microbatches, limit, objective=Objective.RANK_SPAN):
    """Two chunks in a V whose activations are let go at W only; the limit counts chunk activations."""
    forward, backward, weight = (OpCost(ticks=t) for t in ticks)
    stage = StageCosts(F=replace(forward, alloc_bytes=1), B=backward, W=replace(weight, free_bytes=1))
    return uniform_problem(
        num_ranks,
        num_microbatches,
        stage,
        transfer_ticks=transfer_ticks,
        chunks=2,
        kind=PlacementKind.V,
        objective=objective,
        memory_limit_bytes=limit,
    )


@pytest.mark.parametrize("num_ranks", [4, 6, 8])
def test_first_and_last_rank_explain_the_published_frontier(num_ranks):
    """DESIGN.md: the pair's bound is the published value, up to 1.5 p for both objectives.

    Only at 2 p - 1 it stays a slot below.
    """
    points = PUBLISHED["adaptive_v"]["unit_costs"]["points"]
    for point in (point for point in points if point["p"] == num_ranks):
        limit, idle = point["k"], point["bubble_units"]
        spans = v_problem((1, 1, 1), 0, num_ranks, 2 * num_ranks, limit)
        bound = counter_bound(spans, (0, num_ranks - 1), 10**6, TEN_SECONDS).ticks - spans.work_ticks
        assert bound == (2 if limit == 2 * num_ranks - 1 else idle)
        if 2 * limit <= 3 * num_ranks:
            whole = replace(spans, objective=Objective.MAKESPAN)
            bound = counter_bound(whole, (0, num_ranks - 1), 10**6, TEN_SECONDS).ticks - spans.work_ticks
            assert bound == idle


@pytest.mark.parametrize(("limit", "bubble"), [(8, 0.1945), (12, 0.1365)])
def test_first_and_last_rank_of_a_v_in_real_times(limit, bubble):
    """Just below the best values that annealing finds for the pair (DESIGN.md)."""
    problem = v_problem((9261, 9043, 4668), 601, 8, 24, limit)
    proved = max(bound.ticks for bound in islice(counter_bounds(problem, TEN_SECONDS), 2))
    assert 1 - problem.work_ticks / proved == pytest.approx(bubble, abs=1e-4)


def test_counter_bound_does_not_grow_with_the_microbatches():
    few, many = (v_problem((9261, 9043, 4668), 601, 8, m, 8) for m in (24, 400))
    idle = [counter_bound(v, (0, 7), 60, TEN_SECONDS).ticks - v.work_ticks for v in (few, many)]
    assert idle[0] == pytest.approx(idle[1], rel=1e-3)


@settings(max_examples=40)
@given(tiny_problems())
def test_microbatches_need_not_overtake(problem):
    """DESIGN.md: some optimal schedule runs every stream in microbatch order."""
    if sum(len(costs.offered) for costs in problem.stages) * problem.num_microbatches <= 12:
        delayed = problem.links is Links.FREE
        assert best_value(problem, delayed=delayed) == best_value(problem, fifo=False, delayed=delayed)


@settings(max_examples=100)
@given(problems(max_ranks=5, max_microbatches=8))
def test_less_memory_never_lowers_a_bound(problem):
    smallest = smallest_limits_bytes(problem)
    limits = [None, [limit + 20 for limit in smallest], [limit + 3 for limit in smallest], smallest]
    values = [best_bound(problem.with_memory_limit(limit)).ticks for limit in limits]
    assert values == sorted(values)
    assert min(values) >= named(problem, "period") == problem.work_ticks


@pytest.mark.parametrize("row", PUBLISHED["table5_bubble"]["rows"], ids=lambda row: row["id"])
def test_published_bound_at_one_times_the_memory(row):
    size, ranks, microbatches = row["id"].removeprefix("zb-").split("-")
    problem = load_instance(f"zb-{size}-{microbatches}").with_memory_limit(2 * int(ranks[1:]))
    closed = named(problem, "first backward")
    assert round(1 - problem.work_ticks / closed, 4) == row["lower_bound_at_1p"]
    best = 1 - problem.work_ticks / best_bound(problem).ticks
    assert row["lower_bound_at_1p"] <= round(best, 4) <= row["ZB-1p"]


@pytest.mark.parametrize("row", PUBLISHED["table5_bubble"]["rows"], ids=lambda row: row["id"])
def test_published_heuristic_at_twice_the_memory_is_never_below_the_bound(row):
    size, ranks, microbatches = row["id"].removeprefix("zb-").split("-")
    problem = load_instance(f"zb-{size}-{microbatches}").with_memory_limit(4 * int(ranks[1:]))
    assert 0 < 1 - problem.work_ticks / best_bound(problem).ticks <= row["ZB-2p"] + 0.00005


def test_whole_forwards_by_hand():
    """F takes 4 and B 2: from its first F to its first B, stage 2 takes 4, stage 1 at least 10, stage 0 16.

    Stage 1 fills 8 of its 10 and idles 2, or runs 3 forwards in 12; then stage 0 takes 18, or 20 with 5.
    """
    stage = StageCosts(F=OpCost(ticks=4, alloc_bytes=1), B=OpCost(ticks=2), W=OpCost(ticks=1, free_bytes=1))
    problem = uniform_problem(3, 8, stage, objective=Objective.RANK_SPAN)
    assert named(problem, "whole forwards") == problem.work_ticks
    assert named(problem.with_memory_limit(5), "whole forwards") == problem.work_ticks
    assert named(problem.with_memory_limit(4), "whole forwards") == problem.work_ticks + 2
    assert named(problem.with_memory_limit(3), "whole forwards") == problem.work_ticks + 4


@pytest.mark.parametrize("name", ["zb-1.5b-m24", "zb-6.2b-m24"])
def test_published_heuristic_is_optimal_at_one_times_the_memory(name):
    """DESIGN.md: one rank alone already needs as long as ZB-1p; its rows agree with ZB-H1."""
    problem = load_instance(name).with_memory_limit(16)
    params = SolveParams(time_limit_s=30, work_limit=30, workers=1, seed=0)
    value = schedule_orders(problem, baseline_orders("zb-h1", problem)).value
    assert max(bound.ticks for bound in one_rank_bounds(problem, params)) == value


@pytest.mark.parametrize(("objective", "optimum"), [("makespan", 3831880), ("rank_span", 3623744)])
@pytest.mark.parametrize("limit", [None, 19840, 9920])
def test_uneven_instance_is_tight(objective, optimum, limit):
    problem = load_instance("zb-8stage-uneven").with_memory_limit(limit)
    assert best_bound(replace(problem, objective=Objective(objective))).ticks == optimum


@pytest.mark.parametrize("num_microbatches", [1, 4])
@pytest.mark.parametrize("objective", Objective)
def test_one_rank_is_its_work(num_microbatches, objective):
    problem = uniform_problem(1, num_microbatches, DIVIDED, chunks=2, objective=objective)
    assert best_bound(problem).ticks == problem.work_ticks == 10 * num_microbatches


@pytest.mark.parametrize("transfer_ticks", [0, 7, 10**9])
def test_one_microbatch_is_its_chain(transfer_ticks):
    """Down, up, and the W of the first stage."""
    problem = uniform_problem(4, 1, DIVIDED, transfer_ticks=transfer_ticks)
    assert best_bound(problem).ticks == 4 * 2 + 4 * 2 + 1 + 6 * transfer_ticks
    whole = uniform_problem(4, 1, UNDIVIDED, transfer_ticks=transfer_ticks)
    assert best_bound(whole).ticks == 4 * 2 + 4 * 3 + 6 * transfer_ticks


def test_first_backward_by_hand():
    """Rank 0's first backward starts 8 after its first forward; it can fill 2 or 4 of them with forwards."""
    for limit, idle in ((2, 6), (3, 6), (4, 4), (None, 4)):
        problem = two_by_two(objective=Objective.RANK_SPAN).with_memory_limit(limit)
        assert named(problem, "first backward") == 10 + idle
        assert best_value(problem) >= 10 + idle


def test_huge_numbers_stay_exact():
    tera = 10**12
    stage = StageCosts(F=OpCost(ticks=tera, alloc_bytes=tera), BW=OpCost(ticks=2 * tera + 1, free_bytes=tera))
    problem = uniform_problem(
        3, 2, stage, transfer_ticks=tera, kind=PlacementKind.LOOP, memory_limit_bytes=9 * tera
    )
    bound = best_bound(problem).ticks
    assert isinstance(bound, int)
    orders = [[f"{s}F0", f"{s}F1", f"{s}BW0", f"{s}BW1"] for s in range(3)]
    assert bound <= schedule_orders(problem, orders_of(*map(" ".join, orders))).value
    assert bound >= 3 * tera + 3 * (2 * tera + 1) + 4 * tera


def test_bound_of_an_open_placement_is_the_least_over_all():
    stage = StageCosts(F=OpCost(ticks=3), B=OpCost(ticks=3), W=OpCost(ticks=2))
    slower = replace(stage, F=OpCost(ticks=4))
    problem = uniform_problem(4, 8, stage, transfer_ticks=1, chunks=2, kind=PlacementKind.LOOP)
    problem = replace(problem, stages=(stage, slower) * 4)
    left_open = replace(problem, placement=replace(problem.placement, kind=PlacementKind.AUTO))
    (bound,) = lower_bounds(left_open)
    best = [lower_bounds(placed)[0].ticks for placed in open_placements(left_open)]
    assert bound.ticks == min(best) < max(best)
    assert bound.argument.startswith("least over the placements searched (loop, wave, ")


@pytest.mark.parametrize("row", PUBLISHED["table5_bubble"]["rows"], ids=lambda row: row["id"])
def test_zb_h1_is_optimal_at_the_memory_of_1f1b(row):
    problem = load_instance(re.sub(r"-p\d+", "", row["id"]))
    problem = problem.with_memory_limit(2 * problem.num_ranks)
    value = schedule_orders(problem, baseline_orders("zb-h1", problem)).value
    assert best_bound(problem).ticks == named(problem, "round trips") == value
    assert round(1 - problem.work_ticks / value, 4) == row["ZB-1p"]


def test_zb_2p_is_optimal_where_the_last_rank_is_the_bottleneck():
    """1.5B with 24 microbatches at twice the memory: the published .0433 cannot be beaten."""
    problem = load_instance("zb-1.5b-m24").with_memory_limit(32)
    assert round(1 - problem.work_ticks / named(problem, "there and back"), 4) == 0.0433


@settings(max_examples=60)
@given(st.data())
def test_round_trips_are_within_the_optimum_of_one_rank(data):
    """The closed form against CP-SAT's proved optimum of the same relaxation."""

    def draw(least, most):
        return data.draw(st.integers(least, most))

    held = draw(1, 4)
    freed = draw(0, held)
    stage = StageCosts(
        F=OpCost(ticks=draw(1, 9), alloc_bytes=held),
        B=OpCost(ticks=draw(1, 9), free_bytes=freed),
        W=OpCost(ticks=draw(1, 9), free_bytes=held - freed),
    )
    ranks = draw(2, 3)
    problem = uniform_problem(
        ranks,
        draw(2, 7),
        stage,
        transfer_ticks=draw(0, 4),
        objective=data.draw(st.sampled_from(Objective)),
        memory_limit_bytes=draw(held, held * (ranks + 1)),
    )
    params = SolveParams(time_limit_s=20.0, work_limit=20.0, workers=1, seed=0)
    assert named(problem, "round trips") <= max(bound.ticks for bound in one_rank_bounds(problem, params))
