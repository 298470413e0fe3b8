"""Directions and slices to draw from: problems with their orders, complete and without a deadlock."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from synth.flows import Direction, lay_out, with_slices
from synth.graph import build_graph, carried_microbatches
from synth.ops import RankOrders
from synth.placement import Placement
from synth.problem import OpCost, Problem, uniform_problem
from synth.schedule import Schedule
from synth.timing import schedule_orders
from tests.builders import EITHER

SUMMED = replace(EITHER, R=OpCost(ticks=4))


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


def random_orders(problem: Problem, seed: int, share: float = 0.5) -> RankOrders:
    """Run any op whose inputs are there, again and again; about that share of the backwards is divided."""
    choose = random.Random(seed)
    divided = carried_microbatches(problem)
    divided &= np.random.default_rng(seed).random(divided.shape) < share
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


@st.composite
def flows_with_orders(draw) -> tuple[Problem, RankOrders]:
    """A flow and orders of it."""
    problem = draw(flows())
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0.5, 1]))
    return problem, random_orders(problem, seed, share)
