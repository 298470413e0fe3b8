"""The simulator: the same times as the longest path, deadlocks told, jitter repeatable."""

import ast
from functools import partial
from itertools import pairwise
from pathlib import Path

import networkx
import numpy as np
import pytest
from builders import good_schedule, orders_of, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems_with_orders

import synth.simulate.jitter
from synth.errors import DeadlockError, InputError, InvalidOrdersError
from synth.graph import build_graph, divided_in_orders
from synth.ops import Op, TimedOp
from synth.problem import Links, Objective, OpCost, StageCosts
from synth.schedule import measure
from synth.simulate import JitterResult, replay, replay_with_jitter, simulate_orders
from synth.timing import earliest_starts, schedule_orders
from synth.verify import verify_schedule

GOOD_ORDERS = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")


def test_hand_sized():
    assert simulate_orders(two_by_two(), GOOD_ORDERS) == good_schedule()


def test_shares_no_code_with_timing():
    folder = Path(synth.simulate.__file__).parent
    files = [*folder.glob("*.py"), folder.parent / "compiled" / "event_loop.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "synth.compiled.event_loop" in imported
    assert not imported & {"synth.timing", "synth.graph", "synth.verify", "synth.compiled.longest_path"}


@settings(max_examples=200)
@given(problems_with_orders(), st.data())
def test_agrees_with_timing(drawn, data):
    problem, orders = drawn
    assert simulate_orders(problem, orders) == schedule_orders(problem, orders)
    releases = data.draw(st.tuples(*[st.integers(0, 40)] * problem.num_ranks))
    released = simulate_orders(problem, orders, release_ticks=releases)
    assert released == schedule_orders(problem, orders, release_ticks=releases)
    assert all(rank[0].start >= release for rank, release in zip(released.ranks, releases, strict=True))
    assert verify_schedule(released) == []
    assert replay(released) == released


@settings(max_examples=100)
@given(problems_with_orders(), st.randoms(use_true_random=False))
def test_agrees_with_timing_under_other_ticks(drawn, random):
    problem, orders = drawn
    graph = build_graph(problem, divided_in_orders(problem, orders))
    ids = graph.orders_to_ids(orders)
    ticks = np.array([random.randint(1, 30) for _ in range(graph.num_ops)], dtype=np.int64)
    simulated = simulate_orders(
        problem, orders, ticks={graph.op(n): int(ticks[n]) for n in range(graph.num_ops)}
    )
    starts = earliest_starts(graph, ids, ticks=ticks)
    assert [[timed.start for timed in rank] for rank in simulated.ranks] == [
        starts[numbers].tolist() for numbers in ids
    ]


@settings(max_examples=60)
@given(problems_with_orders(max_microbatches=3, links=(Links.FREE,)))
def test_length_is_the_longest_path(drawn):
    """An edge weighs its first op's ticks and the transfer; an edge to the end the last op's ticks."""
    problem, orders = drawn
    ops = [op for order in orders for op in order]
    ticks = {op: problem.stages[op.stage].cost(op.kind).ticks for op in ops}
    graph = networkx.DiGraph()
    for order in orders:
        graph.add_weighted_edges_from((op, following, ticks[op]) for op, following in pairwise(order))
    for op in ops:
        graph.add_edge(op, "end", weight=ticks[op])
        for other in filter(partial(feeds, op), ops):
            graph.add_edge(op, other, weight=ticks[op] + problem.lag_ticks(op.stage, other.stage))
    longest = networkx.dag_longest_path_length(graph)
    assert longest == measure(simulate_orders(problem, orders)).makespan
    assert longest == measure(schedule_orders(problem, orders)).makespan


def feeds(op: Op, other: Op) -> bool:
    step = other.stage - op.stage
    return op.microbatch == other.microbatch and (op.kind.value, other.kind.value, step) in {
        ("F", "F", 1),
        ("F", "B", 0),
        ("F", "BW", 0),
        ("B", "W", 0),
        ("B", "B", -1),
        ("B", "BW", -1),
        ("BW", "B", -1),
        ("BW", "BW", -1),
    }


def test_links_can_be_overridden():
    problem = two_by_two(transfer_ticks=4)
    orders = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1F1 1B0 1B1 1W0 1W1")
    exclusive = simulate_orders(problem, orders, links=Links.EXCLUSIVE)
    assert exclusive == schedule_orders(two_by_two(transfer_ticks=4, links=Links.EXCLUSIVE), orders)
    # The second transfer is ready at 4 and waits for the first until 6.
    assert exclusive.ranks[1][1] == TimedOp(Op.parse("1F1"), 10, 12)
    assert replay(exclusive, links=Links.FREE) == schedule_orders(problem, orders, release_ticks=(0, 6))


def test_releases_hold_a_rank_back():
    schedule = simulate_orders(two_by_two(), GOOD_ORDERS, release_ticks=(0, 5))
    assert [timed.start for timed in schedule.ranks[1]][:3] == [5, 7, 9]


def test_a_negative_release_shifts_everything():
    schedule = simulate_orders(two_by_two(), GOOD_ORDERS, release_ticks=(-9, -9))
    assert [timed.start + 9 for timed in schedule.ranks[0]] == [
        timed.start for timed in good_schedule().ranks[0]
    ]


DEADLOCKED = orders_of("0F0 0B1 0F1 0W1 0B0 0W0", "1F0 1F1 1B0 1W0 1B1 1W1")


def test_deadlock_names_what_each_rank_waits_for():
    with pytest.raises(DeadlockError) as caught:
        simulate_orders(two_by_two(), DEADLOCKED)
    assert str(caught.value) == (
        "the orders deadlock: rank 0 is at 0B1, which waits for 0F1, 1B1; "
        "rank 1 is at 1F1, which waits for 0F1. Move one of the awaited ops ahead of what its rank does now"
    )
    with pytest.raises(DeadlockError) as by_longest_path:
        schedule_orders(two_by_two(), DEADLOCKED)
    assert by_longest_path.value.waiting == caught.value.waiting


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (("0F0",), "orders are given for 1 ranks; give 2"),
        (("0F0 2F0", ""), "rank 0 runs 2F0, which the problem lacks"),
        (("0F0 0BW0", ""), "rank 0 runs 0BW0, which the problem lacks"),
        (("0F2", ""), "rank 0 runs 0F2, which the problem lacks"),
        (("1F0", ""), "rank 0 runs 1F0, which belongs on rank 1"),
        (("0F0 0F0", ""), "rank 0 runs 0F0 twice"),
        (("0F0 0F1 0B0 0W0 0B1", "1F0"), "neither 0BW1 runs, nor both 0B1 and 0W1"),
        (("0F0 0B0 0W0 0B1", "1F0"), "no rank runs 0F1"),
    ],
)
def test_incomplete_orders_are_refused(ranks, message):
    with pytest.raises(InvalidOrdersError, match=message):
        simulate_orders(two_by_two(), orders_of(*ranks))


@pytest.mark.parametrize("objective", Objective)
def test_no_jitter_gives_the_replay(objective):
    schedule = good_schedule(two_by_two(objective=objective))
    result = replay_with_jitter(schedule, sigma=0, samples=3, seed=0)
    assert result == JitterResult(objective, (schedule.value,) * 3)


def test_jitter_is_repeatable_and_varies():
    stage = StageCosts(F=OpCost(ticks=2000), BW=OpCost(ticks=3000))
    orders = orders_of("0F0 0F1 0BW0 0BW1", "1F0 1BW0 1F1 1BW1")
    schedule = schedule_orders(two_by_two(stage), orders)
    first = replay_with_jitter(schedule, sigma=0.2, samples=50, seed=1)
    assert first == replay_with_jitter(schedule, sigma=0.2, samples=50, seed=1)
    assert first != replay_with_jitter(schedule, sigma=0.2, samples=50, seed=2)
    assert min(first.values) <= first.p50 <= first.p95 <= first.max
    assert min(first.values) < first.mean < first.max


@settings(max_examples=100)
@given(problems_with_orders(max_ticks=500), st.sampled_from([0.05, 0.3, 2.0]), st.integers(0, 9))
def test_samples_are_what_replays_one_by_one_are(drawn, sigma, seed):
    """The same noise op by op, each sample an event by event replay with those ticks."""
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    ops = [op for order in orders for op in order]
    planned = np.array([problem.stages[op.stage].cost(op.kind).ticks for op in ops])
    noise = np.maximum(-1, sigma * np.random.default_rng(seed).standard_normal((4, len(ops))))
    releases = [rank[0].start for rank in schedule.ranks]
    values = []
    for row in noise:
        ticks = np.maximum(1, planned + np.rint(planned * row)).astype(int).tolist()
        again = simulate_orders(
            problem, orders, release_ticks=releases, ticks=dict(zip(ops, ticks, strict=True))
        )
        values.append(again.value)
    result = replay_with_jitter(schedule, sigma=sigma, samples=4, seed=seed)
    assert result == JitterResult(problem.objective, tuple(values))


def test_samples_in_blocks_are_the_same(monkeypatch):
    whole = replay_with_jitter(good_schedule(), sigma=1, samples=7, seed=5)
    monkeypatch.setattr(synth.simulate.jitter, "LARGEST_BLOCK", 3 * len(GOOD_ORDERS[0]) * 2)
    assert replay_with_jitter(good_schedule(), sigma=1, samples=7, seed=5) == whole


@pytest.mark.parametrize("ticks", [2**53 + 1, 2**58])
def test_jitter_of_times_near_the_largest(ticks):
    """No rounding without noise, and no overflow with noise beyond what sums of 62 bits leave room for."""
    stage = StageCosts(F=OpCost(ticks=ticks), BW=OpCost(ticks=ticks))
    orders = orders_of("0F0 0BW0", "1F0 1BW0")
    schedule = schedule_orders(two_by_two(stage, num_microbatches=1), orders)
    still = replay_with_jitter(schedule, sigma=0, samples=2, seed=1)
    assert still.values == (schedule.value,) * 2
    noisy = replay_with_jitter(schedule, sigma=10, samples=200, seed=1)
    assert min(noisy.values) > 0
    assert noisy.max > 20 * ticks


def test_huge_jitter_still_takes_a_tick_per_op():
    result = replay_with_jitter(good_schedule(), sigma=10, samples=20, seed=0)
    assert min(result.values) >= 6


def test_percentiles_are_samples():
    result = JitterResult(Objective.MAKESPAN, tuple(range(100, 0, -1)))
    assert (result.mean, result.p50, result.p95, result.max) == (50.5, 50, 95, 100)
    assert JitterResult(Objective.MAKESPAN, (7,)).p50 == 7


@pytest.mark.parametrize("bad", [{"sigma": -0.1}, {"sigma": float("nan")}, {"samples": 0}])
def test_bad_jitter_arguments(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        replay_with_jitter(good_schedule(), **{"sigma": 0.1, "samples": 1, "seed": 0} | bad)


def test_bad_ticks_and_releases():
    with pytest.raises(InputError, match="ticks of 0F0 is 0: give an integer ≥ 1"):
        simulate_orders(two_by_two(), GOOD_ORDERS, ticks={GOOD_ORDERS[0][0]: 0})
    with pytest.raises(InputError, match="release_ticks is 1 long: give 2"):
        simulate_orders(two_by_two(), GOOD_ORDERS, release_ticks=(0,))
