"""Hypothesis strategies: whole valid problems, and complete orders that do not deadlock."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from synth.ops import Op, OpKind, RankOrders
from synth.placement import Placement, PlacementKind, place
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_transfers


@st.composite
def placements(draw, num_ranks: int, *, max_chunks: int = 3) -> Placement:
    """A named placement, or an explicit one with uneven counts; every rank holds a stage."""
    kinds = [PlacementKind.LOOP, PlacementKind.WAVE, PlacementKind.MAP]
    kind = draw(st.sampled_from(kinds + [PlacementKind.V] * (max_chunks > 1)))
    if kind is PlacementKind.V:
        return place(kind, num_ranks, 2 * num_ranks)
    if kind is not PlacementKind.MAP:
        return place(kind, num_ranks, num_ranks * draw(st.integers(1, max_chunks)))
    ranks = st.integers(0, num_ranks - 1)
    more = draw(st.lists(ranks, max_size=num_ranks * (max_chunks - 1)))
    return Placement.explicit(draw(st.permutations([*range(num_ranks), *more])))


@st.composite
def stage_costs(draw, *, max_ticks: int = 6) -> StageCosts:
    """A stage that offers B and W, or BW, or all three, and frees whatever it allocates."""
    ticks, held = st.integers(1, max_ticks), draw(st.integers(0, 4))
    forward = OpCost(ticks=draw(ticks), alloc_bytes=held)
    way = draw(st.sampled_from(("divided", "undivided", "either")))
    costs = {}
    if way != "undivided":
        # Gradients captured at B are freed with the rest at W.
        captured, freed = draw(st.integers(0, 2)), draw(st.integers(0, held))
        costs["B"] = OpCost(ticks=draw(ticks), alloc_bytes=captured, free_bytes=freed)
        costs["W"] = OpCost(ticks=draw(ticks), free_bytes=held - freed + captured)
    if way != "divided":
        costs["BW"] = OpCost(ticks=draw(ticks), free_bytes=held)
    return StageCosts(F=forward, static_bytes=draw(st.integers(0, 5)), **costs)


@st.composite
def transfer_matrices(draw, num_ranks: int, *, max_ticks: int = 4) -> tuple[tuple[int, ...], ...]:
    """One transfer time for all rank pairs, or one for each."""
    ticks = st.integers(0, max_ticks)
    if draw(st.booleans()):
        return uniform_transfers(num_ranks, draw(ticks))
    row = st.tuples(*[ticks] * num_ranks)
    return draw(st.tuples(*[row] * num_ranks))


@st.composite
def problems(
    draw,
    *,
    max_ranks: int = 4,
    max_chunks: int = 3,
    max_microbatches: int = 5,
    max_ticks: int = 6,
    links: tuple[Links, ...] = tuple(Links),
    with_limit: bool = False,
) -> Problem:
    """A valid problem; ``with_limit`` draws a memory limit per rank, which no schedule need meet."""
    num_ranks = draw(st.integers(1, max_ranks))
    placement = draw(placements(num_ranks, max_chunks=max_chunks))
    limit = None
    if with_limit:
        limit = tuple(draw(st.lists(st.integers(0, 60), min_size=num_ranks, max_size=num_ranks)))
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=draw(st.integers(1, max_microbatches)),
        placement=placement,
        stages=tuple(draw(stage_costs(max_ticks=max_ticks)) for _ in placement.stage_to_rank),
        transfer_ticks=draw(transfer_matrices(num_ranks)),
        links=draw(st.sampled_from(links)),
        memory_limit_bytes=limit,
        objective=draw(st.sampled_from(list(Objective))),
    )


def rank_orders(problem: Problem) -> st.SearchStrategy[RankOrders]:
    """Complete orders of a problem that do not deadlock: any order in which its ops could run one by one."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_orders(problem, random.Random(seed)))


@st.composite
def problems_with_orders(draw, **options) -> tuple[Problem, RankOrders]:
    """A problem, as :func:`problems` draws it with these options, and orders of it."""
    problem = draw(problems(**options))
    return problem, draw(rank_orders(problem))


def random_orders(problem: Problem, choice: random.Random) -> RankOrders:
    """Run any op whose inputs are there, again and again, and note the order on every rank."""
    orders: list[list[Op]] = [[] for _ in range(problem.num_ranks)]
    available = [Op(OpKind.F, 0, i) for i in range(problem.num_microbatches)]
    while available:
        op = available.pop(choice.randrange(len(available)))
        orders[problem.stage_to_rank[op.stage]].append(op)
        available += [_choose(problem, enabled, choice) for enabled in _enabled(problem, op)]
    return tuple(map(tuple, orders))


def _enabled(problem: Problem, op: Op) -> list[Op]:
    """The ops whose last input is this one; BW stands for a backward of either form."""
    kind, stage, i = op
    if kind is OpKind.W:
        return []
    if kind is OpKind.F:
        last = stage + 1 == problem.num_stages
        return [Op(OpKind.BW, stage, i) if last else Op(OpKind.F, stage + 1, i)]
    following = [Op(OpKind.BW, stage - 1, i)] if stage > 0 else []
    return following + ([Op(OpKind.W, stage, i)] if kind is OpKind.B else [])


def _choose(problem: Problem, op: Op, choice: random.Random) -> Op:
    """Divide a backward or not, as its stage offers."""
    costs = problem.stages[op.stage]
    divides = costs.must_divide or (costs.can_divide and choice.random() < 0.5)
    return op._replace(kind=OpKind.B) if op.kind is OpKind.BW and divides else op
