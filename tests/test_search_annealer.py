"""Annealing: honest about its value, within the limits, in order, repeatable."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, two_by_two
from exhaustive import best_value
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems, random_orders

from synth.compiled.annealing import WHOLE, first_tails
from synth.ops import OpKind, RankOrders
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import fits, peak_memory_bytes
from synth.search.annealer import Annealer
from synth.search.divisions import open_stages, without_halves
from synth.search.greedy import greedy_orders
from synth.timing import earliest_starts, schedule_orders
from synth.verify import verify_schedule

CHOICE = replace(EITHER, BW=replace(EITHER.BW, ticks=2))
"""A stage whose backward is shorter whole, and earlier for the stage before it divided."""


def annealed(problem: Problem, orders: RankOrders, *, seed: int = 0, slices: int = 1, moves: int = 2000):
    """The best value and orders after so many slices."""
    annealer = Annealer(problem, orders, seed)
    for _ in range(slices):
        annealer.run(moves, 2.0, 0.05)
    return annealer.best_value, annealer.best_orders


@settings(max_examples=120)
@given(problems(links=(Links.FREE,), max_microbatches=6), st.integers(0, 2**32), st.integers(1, 3))
def test_any_problem_from_any_orders(problem, seed, slices):
    start = random_orders(problem, random.Random(seed))
    problem = problem.with_memory_limit(peak_memory_bytes(problem, start))
    before = schedule_orders(problem, start).value
    value, orders = annealed(problem, start, seed=seed, slices=slices, moves=500)
    schedule = schedule_orders(problem, orders)
    assert value == schedule.value <= before
    assert verify_schedule(schedule) == []
    assert fits(problem, peak_memory_bytes(problem, orders))
    assert streams(problem, orders) == streams(problem, start)
    assert annealed(problem, start, seed=seed, slices=slices, moves=500) == (value, orders)


@settings(max_examples=80)
@given(problems(links=(Links.FREE,), max_microbatches=6), st.integers(0, 2**32), st.integers(1, 300))
def test_starts_and_tails_stay_those_of_the_orders(problem, seed, moves):
    start = random_orders(problem, random.Random(seed))
    annealer = Annealer(problem, start, seed)
    annealer.run(moves, 2.0, 0.5)
    after, ops = annealer.orders, annealer.ops
    ids = np.split(after.flat, after.rank_start[1:-1])
    graph = replace(annealer.graph, ticks=ops.ticks)
    starts = earliest_starts(graph, ids)
    assert after.starts.tolist() == starts.tolist()
    assert after.topological[after.place].tolist() == list(range(graph.num_ops))
    is_rank_span = problem.objective is Objective.RANK_SPAN
    assert after.began.tolist() == [int(starts[order[0]]) * is_rank_span for order in ids]
    net = ops.alloc - ops.free
    assert after.level.tolist() == [n for order in ids for n in (np.cumsum(net[order]) - net[order]).tolist()]
    tails = dict(enumerate(after.tails.tolist()))
    pairs = zip(annealer.forms.halves[:, 0], annealer.forms.form, strict=True)
    whole = frozenset(graph.op(backward) for backward, form in pairs if form == WHOLE)
    value = schedule_orders(problem, without_halves(graph.ids_to_orders(ids), whole)).value
    assert max(starts[op] + tail for op, tail in tails.items()) == value
    after.tails[:] = 0
    first_tails(annealer.ops, after)
    assert after.tails.tolist() == list(tails.values())


def streams(problem: Problem, orders: RankOrders) -> dict[tuple, list[int]]:
    """The microbatches of every stream in the order in which they run; of open backwards B and BW are one."""
    found: dict[tuple, list[int]] = {}
    is_open = open_stages(problem)
    for rank, order in enumerate(orders):
        for op in order:
            if op.stage not in is_open:
                found.setdefault((rank, op.kind, op.stage), []).append(op.microbatch)
            elif op.kind is not OpKind.W:
                found.setdefault((rank, op.kind is OpKind.F, op.stage), []).append(op.microbatch)
    return found


@settings(max_examples=60)
@given(problems(links=(Links.EXCLUSIVE,)), st.integers(0, 2**32))
def test_exclusive_links_still_give_orders_that_run(problem, seed):
    start = random_orders(problem, random.Random(seed))
    problem = problem.with_memory_limit(peak_memory_bytes(problem, start))
    _, orders = annealed(problem, start, seed=seed, moves=300)
    assert verify_schedule(schedule_orders(problem, orders)) == []


def test_value_falls_slice_by_slice():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=8)
    annealer = Annealer(problem, greedy_orders(problem), 0)
    values = [annealer.best_value]
    for _ in range(5):
        annealer.run(2000, 2.0, 0.05)
        values.append(annealer.best_value)
        assert schedule_orders(problem, annealer.best_orders).value == values[-1]
    assert all(a >= b for a, b in pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("limit", [None, 2, 3, 4])
@pytest.mark.parametrize("stage", [DIVIDED, UNDIVIDED, CHOICE])
@pytest.mark.parametrize("ranks", [(0, 1), (0, 1, 1, 0), (0,)])
def test_finds_the_optimum_of_tiny_problems(stage, limit, objective, ranks):
    num_microbatches = 3 if len(ranks) < 3 else 1
    problem = two_by_two(stage, stage_to_rank=ranks, num_microbatches=num_microbatches, objective=objective)
    if limit is not None:
        problem = problem.with_memory_limit(limit * (2 if len(ranks) > 2 else 1))
    value, _ = annealed(problem, greedy_orders(problem))
    assert value == best_value(problem, delayed=False)


def test_some_backwards_divided_and_some_whole_beat_either():
    """Whole ones take 2 ticks less, divided ones give the gradient sooner: each where it counts."""
    stage = StageCosts(
        F=OpCost(ticks=4, alloc_bytes=2),
        B=OpCost(ticks=4, free_bytes=1),
        W=OpCost(ticks=6, free_bytes=1),
        BW=OpCost(ticks=8, free_bytes=2),
    )
    either = two_by_two(stage, num_microbatches=3, objective=Objective.RANK_SPAN).with_memory_limit(4)
    only = [replace(stage, BW=None), replace(stage, B=None, W=None)]
    divided, whole = (replace(either, stages=(costs,) * 2) for costs in only)
    assert (best_value(divided, delayed=False), best_value(whole, delayed=False)) == (48, 52)
    for start in (greedy_orders(divided), greedy_orders(whole)):
        value, orders = annealed(either, start)
        assert value == best_value(either, delayed=False) == 44
        assert {op.kind for order in orders for op in order} == set(OpKind)


def test_overtaking_at_the_start_is_kept():
    """Orders that are not first in, first out may be given; no stream is reordered."""
    orders = random_orders(uniform_problem(1, 2, DIVIDED), random.Random(1))
    problem = uniform_problem(1, 2, DIVIDED)
    value, after = annealed(problem, orders)
    assert value == 10
    assert streams(problem, after) == streams(problem, orders)


@pytest.mark.parametrize("tick", [1, 10**12])
def test_scale_does_not_matter(tick):
    """Temperatures scale with the ticks, and so do the values; orders stay the same."""
    stage = StageCosts(
        F=OpCost(ticks=2 * tick, alloc_bytes=2),
        B=OpCost(ticks=2 * tick, free_bytes=1),
        W=OpCost(ticks=tick, free_bytes=1),
    )
    problem = uniform_problem(3, 4, stage, transfer_ticks=tick, memory_limit_bytes=6)
    annealer = Annealer(problem, greedy_orders(problem), 0)
    annealer.run(5000, 2.0 * tick, 0.05 * tick)
    plain = uniform_problem(3, 4, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    value, orders = annealed(plain, greedy_orders(plain), moves=5000)
    assert (annealer.best_value, annealer.best_orders) == (value * tick, orders)


def test_nothing_to_swap():
    stage = StageCosts(F=OpCost(ticks=3), BW=OpCost(ticks=4))
    problem = uniform_problem(1, 1, stage)
    value, orders = annealed(problem, greedy_orders(problem))
    assert value == 7
    assert [list(map(str, order)) for order in orders] == [["0F0", "0BW0"]]
    two = replace(problem, num_microbatches=2)
    assert annealed(two, greedy_orders(two))[0] == 14
