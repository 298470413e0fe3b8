"""Flows beyond directions and slices, and orders of flows."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st
from test_flows import PROBLEMS, STAGE, SUMMED

from synth.feed import Feed
from synth.graph import build_graph, carried_microbatches
from synth.ops import Op, RankOrders
from synth.placement import Placement
from synth.problem import Links, Problem, uniform_problem, uniform_transfers


@st.composite
def any_flows(draw, *, max_ranks: int = 3) -> Problem:
    """Stages fed by any before them, carrying any microbatches, on any ranks, some of them replicas."""
    stages, microbatches = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    num_ranks = draw(st.integers(1, min(stages, max_ranks)))
    choose = random.Random(draw(st.integers(0, 2**32)))
    feeds = [
        Feed(
            inputs=tuple(sorted(choose.sample(range(stage), choose.randint(0, stage)))),
            microbatches=tuple(sorted(choose.sample(range(microbatches), choose.randint(1, microbatches)))),
            model_stage=choose.randint(0, stages),
            slice=choose.randint(0, 2),
        )
        for stage in range(stages)
    ]
    feeds[0] = replace(feeds[0], microbatches=tuple(range(microbatches)))
    ranks = [*range(num_ranks), *(choose.randrange(num_ranks) for _ in range(stages - num_ranks))]
    choose.shuffle(ranks)
    costs = replace(choose.choice([STAGE, SUMMED]), weight_bytes=choose.randint(0, 3))
    plain = uniform_problem(1, microbatches, costs, chunks=stages)
    return replace(
        plain,
        num_ranks=num_ranks,
        feeds=tuple(feeds),
        placement=Placement.explicit(tuple(ranks)),
        transfer_ticks=uniform_transfers(num_ranks, draw(st.integers(0, 3))),
        links=draw(st.sampled_from(Links)),
    )


def mixed_orders(problem: Problem, seed: int) -> RankOrders:
    """Orders drawn op by op from those that could go on, some backwards divided and some not."""
    choose = random.Random(seed)
    divided = carried_microbatches(problem)
    for place in zip(*divided.nonzero(), strict=True):
        divided[place] = problem.stages[place[0]].can_divide and choose.random() < 0.5
    graph = build_graph(problem, divided)
    left = {n: {source for source, _ in graph.predecessors(n)} for n in range(graph.num_ops)}
    orders: list[list[Op]] = [[] for _ in range(problem.num_ranks)]
    while left:
        chosen = choose.choice([n for n, waits in left.items() if not waits])
        del left[chosen]
        for waits in left.values():
            waits.discard(chosen)
        orders[graph.rank[chosen]].append(graph.op(chosen))
    return tuple(map(tuple, orders))


@st.composite
def flows_with_orders(draw) -> tuple[Problem, RankOrders]:
    """Directions or slices, and orders of them."""
    problem = replace(draw(PROBLEMS), links=draw(st.sampled_from(Links)))
    return problem, mixed_orders(problem, draw(st.integers(0, 2**32)))
