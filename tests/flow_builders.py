"""Directions and slices to draw from: problems with their orders, complete and without a deadlock."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from synth.feed import Feed
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


class Evicted(NamedTuple):
    """What a stage of a chain evicts: whether by a stage of its own, and who stores which of it."""

    microbatches: tuple[int, ...]
    rank: int
    apart: bool = True


def evicting(num_ranks, num_microbatches, evicted, *, stage=EITHER, ranks=None) -> Problem:
    """A chain some of whose stages, by depth, evict microbatches; without a stage apart one does both."""
    ranks = ranks or range(num_ranks)
    everything = tuple(range(num_microbatches))
    made, before = [], ()  # (costs, rank, feed)
    for depth, rank in enumerate(ranks):
        leaving = evicted.get(depth)
        if leaving is None:
            shares = [everything]
        elif leaving.apart:
            shares = [tuple(i for i in everything if i not in leaving.microbatches), leaving.microbatches]
        else:
            shares = [everything]
        here = []
        for share in filter(None, shares):
            here.append(len(made))
            made.append((stage, rank, Feed(inputs=before, microbatches=share, model_stage=depth)))
        if leaving is not None:
            stored = Feed(inputs=(here[-1],), microbatches=leaving.microbatches, model_stage=depth)
            made.append((replace(stage, R=None), leaving.rank, stored))
        before = tuple(here)
    stages, placed, feeds = zip(*made, strict=True)
    plain = uniform_problem(num_ranks, num_microbatches, stage, transfer_ticks=1)
    placement = Placement.explicit(placed)
    return replace(plain, placement=placement, stages=stages, feeds=feeds)


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
def evictions(draw) -> Problem:
    """Chains of which any stage may evict any of its microbatches to any rank, its own too."""
    num_ranks, num_microbatches = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    some = st.sets(st.integers(0, num_microbatches - 1), min_size=1).map(sorted).map(tuple)
    leaving = st.builds(Evicted, some, st.integers(0, num_ranks - 1), st.booleans())
    evicted = draw(st.dictionaries(st.integers(0, num_ranks - 1), leaving, min_size=1))
    problem = evicting(
        num_ranks,
        num_microbatches,
        evicted,
        stage=draw(st.sampled_from([EITHER, SUMMED])),
        ranks=draw(st.permutations(range(num_ranks))),
    )
    room = draw(st.sampled_from([None, 0, 2, 5]))
    return problem if room is None else problem.with_memory_limit(room)


@st.composite
def evictions_with_orders(draw) -> tuple[Problem, RankOrders]:
    """Such a chain and orders of it."""
    problem = draw(evictions())
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0.5, 1]))
    return problem, random_orders(problem, seed, share)


@st.composite
def flows_with_orders(draw) -> tuple[Problem, RankOrders]:
    """A flow and orders of it."""
    problem = draw(flows())
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0.5, 1]))
    return problem, random_orders(problem, seed, share)
