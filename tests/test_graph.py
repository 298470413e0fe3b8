"""The op graph: the edges that FORMATS.md names and no others, numbers there and back."""

import numpy as np
import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, orders_of, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems, problems_with_orders

from synth.errors import InvalidOrdersError
from synth.graph import KINDS, build_graph, divided_backwards, divided_in_orders
from synth.ops import Op, OpKind
from synth.problem import Problem


def edges(graph) -> set[tuple[str, str, int]]:
    return {
        (str(graph.op(source)), str(graph.op(n)), lag)
        for n in range(graph.num_ops)
        for source, lag in graph.predecessors(n)
    }


def expected_edges(problem: Problem, divided) -> set[tuple[str, str, int]]:
    """Word for word from FORMATS.md, Dependencies."""
    found = set()
    for i in range(problem.num_microbatches):
        backward = [f"{s}{'B' if divided[s, i] else 'BW'}{i}" for s in range(problem.num_stages)]
        for s in range(problem.num_stages):
            found.add((f"{s}F{i}", backward[s], 0))
            if s > 0:
                found.add((f"{s - 1}F{i}", f"{s}F{i}", problem.lag_ticks(s - 1, s)))
                found.add((backward[s], backward[s - 1], problem.lag_ticks(s, s - 1)))
            if divided[s, i]:
                found.add((f"{s}B{i}", f"{s}W{i}", 0))
    return found


def test_lags_only_between_ranks():
    problem = two_by_two(stage_to_rank=(0, 1, 1), transfer_ticks=4, num_microbatches=1)
    assert edges(build_graph(problem)) == {
        ("0F0", "1F0", 4),
        ("1F0", "2F0", 0),
        ("0F0", "0B0", 0),
        ("1F0", "1B0", 0),
        ("2F0", "2B0", 0),
        ("2B0", "1B0", 0),
        ("1B0", "0B0", 4),
        ("0B0", "0W0", 0),
        ("1B0", "1W0", 0),
        ("2B0", "2W0", 0),
    }


@settings(max_examples=100)
@given(problems_with_orders())
def test_edges_and_columns_with_any_mix_of_backwards(drawn):
    problem, orders = drawn
    divided = divided_in_orders(problem, orders)
    graph = build_graph(problem, divided)
    assert edges(graph) == expected_edges(problem, divided)
    assert {graph.op(n) for n in range(graph.num_ops)} == {op for order in orders for op in order}
    for n in range(graph.num_ops):
        op = graph.op(n)
        cost = problem.stages[op.stage].cost(op.kind)
        assert (graph.ticks[n], graph.alloc_bytes[n], graph.free_bytes[n]) == (
            cost.ticks,
            cost.alloc_bytes,
            cost.free_bytes,
        )
        assert graph.rank[n] == problem.stage_to_rank[op.stage]
        assert graph.ids[KINDS.index(op.kind), op.stage, op.microbatch] == n
    assert (graph.ids >= 0).sum() == graph.num_ops
    assert graph.ids_to_orders(graph.orders_to_ids(orders)) == orders


@settings(max_examples=50)
@given(problems(), st.data())
def test_divides_by_default_whatever_can_be(problem, data):
    divided = divided_backwards(problem)
    for s, costs in enumerate(problem.stages):
        assert (divided[s] == costs.can_divide).all()
    graph = build_graph(problem)
    assert edges(graph) == edges(build_graph(problem, divided))
    s = data.draw(st.integers(0, problem.num_stages - 1))
    i = data.draw(st.integers(0, problem.num_microbatches - 1))
    assert (graph.ids[KINDS.index(OpKind.BW), s, i] < 0) == problem.stages[s].can_divide


@pytest.mark.parametrize(
    ("stage", "divide", "message"),
    [
        (DIVIDED, False, "stage 0 runs BW, which its costs do not offer"),
        (UNDIVIDED, True, "stage 0 runs B, which its costs do not offer"),
    ],
)
def test_a_form_that_is_not_offered(stage, divide, message):
    with pytest.raises(InvalidOrdersError, match=message):
        build_graph(two_by_two(stage), np.full((2, 2), divide))


GOOD = ("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1F1 1B0 1B1 1W0 1W1")


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ((GOOD[0].replace("0F1", "0F2"), GOOD[1]), "rank 0 runs 0F2, which the problem lacks"),
        ((GOOD[0].replace("0F1", "2F1"), GOOD[1]), "rank 0 runs 2F1, which the problem lacks"),
        ((GOOD[0].replace("0B0 0W0", "0BW0"), GOOD[1]), "rank 0 runs 0BW0, which the problem lacks"),
        ((GOOD[0] + " 1F0", GOOD[1]), "rank 0 runs 1F0, which belongs on rank 1"),
        ((GOOD[0] + " 0F1", GOOD[1]), "rank 0 runs 0F1 twice"),
        ((GOOD[0], GOOD[1].removesuffix(" 1W1")), "no rank runs 1W1; it belongs on rank 1"),
        ((GOOD[0], ""), "no rank runs 1F0; it belongs on rank 1"),
    ],
)
def test_orders_that_are_not_the_problem_s(ranks, message):
    graph = build_graph(two_by_two(EITHER))
    with pytest.raises(InvalidOrdersError, match=message):
        graph.orders_to_ids(orders_of(*ranks))


def test_which_backwards_orders_divide():
    orders = orders_of("0F0 0F1 0B0 0W0 0BW1", "1F0 1BW0 1F1 1B1 1W1")
    problem = two_by_two(EITHER)
    assert divided_in_orders(problem, orders).tolist() == [[True, False], [False, True]]
    assert (
        Op.parse("0BW1")
        in build_graph(problem, divided_in_orders(problem, orders)).ids_to_orders(
            build_graph(problem, divided_in_orders(problem, orders)).orders_to_ids(orders)
        )[0]
    )
