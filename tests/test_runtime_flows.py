"""Executed directions and slices against the same steps without a pipeline: losses, gradients, weights."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.stage import Division
from synth.feed import Feed
from synth.flows import Direction, lay_out, with_directions, with_slices
from synth.graph import build_graph, carried_microbatches
from synth.memory import serial_orders
from synth.ops import RankOrders
from synth.placement import Placement
from synth.problem import OpCost, Problem, uniform_problem
from synth.schedule import Schedule
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.flow_cases import FlowCase, flow_against_reference, flow_refused

SUMMED = replace(EITHER, R=OpCost(ticks=4))
TOLERANCE = 1e-12
"""In float64: slices and directions add up in another order than one process."""


def flow(ranks_by_direction, shares, *, stage=EITHER, num_slices=1) -> Problem:
    """Directions with so many microbatches each, whose stages are on these ranks."""
    directions, first = [], 0
    for ranks, share in zip(ranks_by_direction, shares, strict=True):
        directions.append(Direction(tuple(ranks), tuple(range(first, first + share))))
        first += share
    laid = lay_out([[stage] * num_slices] * len(ranks_by_direction[0]), directions)
    num_ranks = 1 + max(laid.stage_to_rank)
    plain = uniform_problem(num_ranks, first, stage, transfer_ticks=1)
    placement = Placement.explicit(laid.stage_to_rank)
    return replace(plain, placement=placement, stages=laid.stages, feeds=laid.feeds)


def two_directions(num_ranks=2, per_direction=3, stage=EITHER) -> Problem:
    ahead = tuple(range(num_ranks))
    return flow([ahead, ahead[::-1]], [per_direction] * 2, stage=stage)


def sliced(num_ranks=2, num_microbatches=3, num_slices=3) -> Problem:
    plain = uniform_problem(num_ranks, num_microbatches, EITHER, transfer_ticks=1)
    return with_slices(plain, [[EITHER] * num_slices] * num_ranks)


def random_orders(problem: Problem, seed: int) -> RankOrders:
    """Run any op whose inputs are there, again and again; every backward is divided or not."""
    choose = random.Random(seed)
    divided = carried_microbatches(problem)
    divided &= np.random.default_rng(seed).random(divided.shape) < choose.choice([0, 0.5, 1])
    graph = build_graph(problem, divided)
    left = {n: {source for source, _ in graph.predecessors(n)} for n in range(graph.num_ops)}
    orders = [[] for _ in range(problem.num_ranks)]
    while left:
        chosen = choose.choice([n for n, waits in left.items() if not waits])
        del left[chosen]
        for waits in left.values():
            waits.discard(chosen)
        orders[graph.rank[chosen]].append(graph.op(chosen))
    return tuple(map(tuple, orders))


def drawn(problem: Problem, seed: int = 1) -> Schedule:
    return schedule_orders(problem, random_orders(problem, seed))


def check(outcomes, *, exact: bool = False) -> None:
    """As without a pipeline, and all replicas with the very same weights."""
    for outcome in outcomes:
        assert outcome.equal if exact else outcome.difference <= TOLERANCE
        assert outcome.losses == pytest.approx(outcome.expected, abs=TOLERANCE)
    assert any(outcome.losses for outcome in outcomes)
    assert len({outcome.losses for outcome in outcomes if outcome.losses}) == 1
    for model_stage in set().union(*(outcome.weights for outcome in outcomes)):
        held = {o.weights[model_stage] for o in outcomes if model_stage in o.weights}
        assert len(held) == 1


@pytest.mark.parametrize("division", Division)
@pytest.mark.parametrize("stage", [EITHER, SUMMED], ids=["no R", "R"])
def test_two_directions_give_the_gradients_of_one_process(pool, stage, division):
    """Four ranks with dropout, one microbatch at a time: bit for bit, for two parts have one sum."""
    problem = two_directions(4, 3, stage)
    schedule = schedule_orders(problem, serial_orders(problem))
    case = FlowCase(schedule=schedule, model="mixed", dropout=0.3, division=division, dtype=torch.float32)
    outcomes = pool.run(4, flow_against_reference, replace(case, dtype=torch.float64))
    check(outcomes, exact=True)
    assert all(outcome.equal for outcome in pool.run(4, flow_against_reference, case))


@pytest.mark.parametrize("division", Division)
@pytest.mark.parametrize("model", ["llama", "running"])
def test_slices_give_the_gradients_of_whole_sequences(pool, model, division):
    case = FlowCase(schedule=drawn(sliced(4)), model=model, division=division)
    check(pool.run(4, flow_against_reference, case))


def test_slices_of_other_lengths(pool):
    case = FlowCase(schedule=drawn(sliced(2)), slice_positions=(1, 3, 2))
    check(pool.run(2, flow_against_reference, case))


def test_directions_of_slices_and_replicas_of_the_pipeline(pool):
    """Groups multiply: two directions of two replicas hold every stage four times."""
    problem = flow([(0, 1), (1, 0)], [2, 1], stage=SUMMED, num_slices=2)
    check(pool.run(4, flow_against_reference, FlowCase(schedule=drawn(problem))))


def test_directions_that_meet_on_a_rank_share_its_module(pool):
    """With an odd number of ranks the middle one runs the same stage of both."""
    case = FlowCase(schedule=drawn(two_directions(3)), model="mixed", dropout=0.2)
    check(pool.run(3, flow_against_reference, case))


@st.composite
def flows(draw) -> Problem:
    """One to three directions over the same ranks in any order, with or without slices and R."""
    num_ranks = draw(st.integers(2, 4))
    more = draw(st.integers(0, 2))
    places = st.permutations([*range(num_ranks), *range(more)])
    count = draw(st.integers(1, 3))
    shares = draw(st.lists(st.integers(1, 2), min_size=count, max_size=count))
    directions = [draw(places) for _ in range(count)]
    stage = draw(st.sampled_from([EITHER, SUMMED]))
    return flow(directions, shares, stage=stage, num_slices=draw(st.integers(1, 3)))


@given(flows(), st.integers(0, 2**32 - 1), st.sampled_from(Division), st.sampled_from(["llama", "running"]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_any_flow_gives_the_gradients_of_one_process(pool, problem, seed, division, model):
    case = FlowCase(schedule=drawn(problem, seed), model=model, division=division, steps=2)
    check(pool.run(problem.num_ranks, flow_against_reference, case))
