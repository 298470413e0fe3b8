"""Tuned list schedules: within the limits, never worse with more samples, repeatable."""

from itertools import pairwise

import pytest
from builders import DIVIDED, UNDIVIDED, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.graph import build_graph
from synth.instances import load_instance
from synth.memory import parse_limit, smallest_limits_bytes
from synth.placement import PlacementKind
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem
from synth.schedule import fits, peak_memory_bytes
from synth.search.tuning import RuleSearch
from synth.timing import schedule_orders
from synth.verify import verify_schedule


def tuned(problem, samples, seed=0):
    """The orders and stated values of so many samples, best first."""
    graph = build_graph(problem)
    search = RuleSearch(graph, seed)
    search.run(samples)
    return [(value, graph.ids_to_orders(ids)) for value, ids in search.best]


@settings(max_examples=60)
@given(problems(max_microbatches=5, links=(Links.FREE,)), st.integers(0, 2**31 - 1), st.data())
def test_any_problem(problem, seed, data):
    if data.draw(st.booleans(), "with a limit"):
        more = data.draw(st.tuples(*[st.integers(0, 20)] * problem.num_ranks))
        least = smallest_limits_bytes(problem)
        problem = problem.with_memory_limit([a + b for a, b in zip(least, more, strict=True)])
    found = tuned(problem, 100, seed)
    values = [value for value, _ in found]
    assert values == sorted(set(values))
    for value, orders in found:
        schedule = schedule_orders(problem, orders)
        assert verify_schedule(schedule) == []
        assert fits(problem, peak_memory_bytes(problem, orders))
        if problem.objective is Objective.MAKESPAN:
            assert schedule.value <= value
    assert tuned(problem, 100, seed) == found


def test_more_samples_are_no_worse():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=8)
    search = RuleSearch(build_graph(problem), seed=1)
    values = []
    for _ in range(5):
        search.run(100)
        values.append(search.best[0][0])
    assert all(a >= b for a, b in pairwise(values))


@pytest.mark.parametrize(("limit", "idle"), [(8, 23), (10, 17), (12, 11)])
def test_published_frontier_of_the_v(limit, idle):
    """As good as the adaptive search over V-shaped blocks, in unit times (arXiv 2405.15362)."""
    unit = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), B=OpCost(ticks=1), W=OpCost(ticks=1, free_bytes=1))
    problem = uniform_problem(
        8,
        24,
        unit,
        chunks=2,
        kind=PlacementKind.V,
        objective=Objective.RANK_SPAN,
        memory_limit_bytes=limit,
    )
    assert tuned(problem, 4000)[0][0] <= problem.work_ticks + idle


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("zb-1.5b-m32", 0.0039),
        ("zb-6.2b-m24", 0.0029),
        ("zb-14.6b-m128", 0.0028),
        ("zb-28.3b-m128", 0.0029),
    ],
)
def test_better_than_the_published_heuristic(name, published):
    """ZB-2p of arXiv 2401.10241, table 5, in a hundred samples."""
    problem = load_instance(name)
    problem = problem.with_memory_limit(parse_limit("2x", problem))
    value, orders = tuned(problem, 100)[0]
    assert 1 - problem.work_ticks / value < published
    assert schedule_orders(problem, orders).value == value


def test_nothing_fits():
    """Where every list schedule gets stuck there is nothing to offer."""
    assert tuned(two_by_two(UNDIVIDED, memory_limit_bytes=(1, 1)), 50) == []
