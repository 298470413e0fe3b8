"""Directions and slices: what is laid out, what the graph makes of it, and that the verifier agrees."""

import random
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidProblemError
from synth.feed import Feed
from synth.flow_memory import flow_needed_bytes, flow_serial_orders
from synth.flows import Direction, as_chain, with_directions, with_slices
from synth.graph import build_graph
from synth.memory import check_feasible, one_f_one_b_bytes, serial_orders
from synth.ops import Op, OpKind
from synth.placement import Placement
from synth.problem import Links, OpCost, StageCosts, uniform_problem
from synth.rules import Rule
from synth.schedule import Schedule, measure, peak_memory_bytes
from synth.timing import schedule_orders
from synth.verify import verify_schedule

STAGE = StageCosts(
    F=OpCost(ticks=2, alloc_bytes=3),
    B=OpCost(ticks=2, free_bytes=1),
    W=OpCost(ticks=1, free_bytes=2),
    BW=OpCost(ticks=3, free_bytes=3),
    static_bytes=10,
)
SUMMED = replace(STAGE, R=OpCost(ticks=4))


def two_directions(stage=SUMMED, num_ranks=2, transfer_ticks=1, per_direction=2):
    """Two pipelines against each other, with so many microbatches each."""
    ahead = tuple(range(num_ranks))
    problem = uniform_problem(num_ranks, 2 * per_direction, stage, transfer_ticks=transfer_ticks)
    return with_directions(
        problem,
        [
            Direction(ahead, tuple(range(per_direction))),
            Direction(ahead[::-1], tuple(range(per_direction, 2 * per_direction))),
        ],
    )


def two_slices(num_ranks=2, num_microbatches=2, transfer_ticks=1):
    """The second slice takes twice as long: it attends to the first."""
    problem = uniform_problem(num_ranks, num_microbatches, STAGE, transfer_ticks=transfer_ticks)
    longer = STAGE.map_costs(lambda _, cost: replace(cost, ticks=2 * cost.ticks))
    return with_slices(problem, [[STAGE, longer]] * num_ranks)


def awaited(problem, op):
    """What an op waits for in the graph, as text with its lag."""
    graph = build_graph(problem)
    number = next(n for n in range(graph.num_ops) if str(graph.op(n)) == op)
    return {(str(graph.op(source)), lag) for source, lag in graph.predecessors(number)}


def test_directions_are_chains_of_their_own():
    problem = two_directions()
    assert problem.stage_to_rank == (0, 1, 1, 0)
    assert problem.inputs_by_stage == ((), (0,), (), (2,))
    assert [problem.microbatches_of(stage) for stage in range(4)] == [(0, 1), (0, 1), (2, 3), (2, 3)]
    assert problem.replicas_by_stage == ((0, 2), (1, 3), (0, 2), (1, 3))
    assert problem.static_bytes_by_rank == (20, 20), "two replicas of the weights"
    assert awaited(problem, "3F2") == {("2F2", 1)}
    assert awaited(problem, "2B3") == {("2F3", 0), ("3B3", 1)}
    assert awaited(problem, "0R0") == {(f"{stage}W{i}", 0) for stage, i in ((0, 0), (0, 1), (2, 2), (2, 3))}


def test_slices_are_a_grid_and_hold_the_weights_once():
    problem = two_slices()
    assert problem.stage_to_rank == (0, 0, 1, 1)
    assert problem.inputs_by_stage == ((), (0,), (0,), (1, 2))
    assert problem.static_bytes_by_rank == (10, 10)
    assert awaited(problem, "3F1") == {("1F1", 1), ("2F1", 0)}
    assert awaited(problem, "0B0") == {("0F0", 0), ("1B0", 0), ("2B0", 1)}
    assert problem.work_ticks_by_rank == (30, 30)


def test_weight_versions_are_held():
    stage = replace(STAGE, weight_bytes=4, weight_versions=3)
    assert uniform_problem(2, 2, stage).static_bytes_by_rank == (18, 18)


def test_every_flow_goes_back_to_its_chain():
    plain = uniform_problem(2, 4, STAGE, transfer_ticks=1)
    assert as_chain(plain) is plain
    assert as_chain(two_directions(STAGE)) == replace(plain, placement=Placement.explicit((0, 1)))
    sliced = as_chain(two_slices())
    assert [costs.F for costs in sliced.stages] == [OpCost(ticks=6, alloc_bytes=6)] * 2
    assert one_f_one_b_bytes(two_slices()) == 12, "two microbatches of two slices of 3 bytes"


def test_stages_that_are_no_lay_out_have_no_chain():
    feeds = tuple(Feed(inputs=(), microbatches=(0, 1), model_stage=stage) for stage in range(2))
    with pytest.raises(InvalidProblemError, match="no directions and slices"):
        as_chain(replace(uniform_problem(2, 2, STAGE), feeds=feeds))


@pytest.mark.parametrize(
    ("feeds", "where"),
    [
        ([Feed(inputs=(), microbatches=(0, 1), model_stage=0)], "feeds"),
        ([{"inputs": (0,)}, {}], r"stages\[0\].inputs"),
        ([{}, {"inputs": (1,)}], r"stages\[1\].inputs"),
        ([{}, {"inputs": (0, 0)}], r"stages\[1\].inputs"),
        ([{"microbatches": ()}, {}], r"stages\[0\].microbatches"),
        ([{"microbatches": (1, 0)}, {}], r"stages\[0\].microbatches"),
        ([{}, {"microbatches": (0, 2)}], r"stages\[1\].microbatches"),
        ([{"microbatches": (0,)}, {"microbatches": (0,)}], "num_microbatches"),
        ([{"slice": -1}, {}], r"stages\[0\].slice"),
    ],
)
def test_wrong_feeds_are_refused_by_their_place(feeds, where):
    usual = {"inputs": (), "microbatches": (0, 1), "model_stage": 0}
    given_feeds = tuple(feed if isinstance(feed, Feed) else Feed(**{**usual, **feed}) for feed in feeds)
    with pytest.raises(InvalidProblemError, match=where):
        replace(uniform_problem(2, 2, STAGE), feeds=given_feeds)


def test_directions_do_not_share_a_microbatch():
    shared = [Direction((0, 1), (0, 1)), Direction((1, 0), (1, 2))]
    with pytest.raises(InvalidProblemError, match="which direction 0 carries too"):
        with_directions(uniform_problem(2, 3, STAGE), shared)


PROBLEMS = st.one_of(
    st.builds(
        two_directions,
        stage=st.sampled_from([STAGE, SUMMED]),
        num_ranks=st.integers(1, 3),
        transfer_ticks=st.integers(0, 3),
        per_direction=st.integers(1, 3),
    ),
    st.builds(
        two_slices,
        num_ranks=st.integers(1, 3),
        num_microbatches=st.integers(1, 3),
        transfer_ticks=st.integers(0, 3),
    ),
)


def random_orders(problem, seed):
    """Orders drawn op by op from those that could go on: they never deadlock."""
    graph = build_graph(problem)
    choose = random.Random(seed)
    left = {n: {source for source, _ in graph.predecessors(n)} for n in range(graph.num_ops)}
    orders = [[] for _ in range(problem.num_ranks)]
    while left:
        chosen = choose.choice([n for n, waits in left.items() if not waits])
        del left[chosen]
        for waits in left.values():
            waits.discard(chosen)
        orders[graph.rank[chosen]].append(graph.op(chosen))
    return tuple(map(tuple, orders))


@given(PROBLEMS, st.integers(0, 2**32), st.sampled_from(Links))
def test_timed_flows_are_valid_and_as_early_as_can_be(problem, seed, links):
    problem = replace(problem, links=links)
    schedule = schedule_orders(problem, random_orders(problem, seed))
    assert not verify_schedule(schedule, metrics=measure(schedule))
    for rank, listed in enumerate(schedule.ranks):
        for place, timed in enumerate(listed):
            if timed.start == 0:
                continue
            sooner = timed._replace(start=timed.start - 1, end=timed.end - 1)
            ranks = list(schedule.ranks)
            ranks[rank] = (*listed[:place], sooner, *listed[place + 1 :])
            assert verify_schedule(Schedule(problem, tuple(ranks))), f"{timed} could start sooner"


def test_a_sum_of_gradients_waits_for_the_replicas():
    problem = two_directions()
    schedule = schedule_orders(problem, serial_orders(problem))
    ranks = tuple(
        tuple(
            timed._replace(start=timed.start - 5, end=timed.end - 5) if timed.op.kind is OpKind.R else timed
            for timed in listed
        )
        for listed in schedule.ranks
    )
    broken = {violation.rule for violation in verify_schedule(Schedule(problem, ranks))}
    assert Rule.REDUCE_AFTER_WEIGHTS in broken


@pytest.mark.parametrize(
    ("op", "says"),
    [
        (Op(OpKind.F, 0, 2), "stage 0 does not carry that microbatch"),
        (Op(OpKind.R, 0, 1), "R runs once, as microbatch 0"),
    ],
)
def test_ops_that_a_flow_lacks_are_named(op, says):
    problem = two_directions()
    schedule = schedule_orders(problem, serial_orders(problem))
    end = schedule.ranks[0][-1].end
    more = schedule.ranks[0][-1]._replace(op=op, start=end, end=end + 2)
    violations = verify_schedule(Schedule(problem, ((*schedule.ranks[0], more), *schedule.ranks[1:])))
    assert any(says in violation.message for violation in violations)


def test_a_missing_sum_is_told():
    problem = two_directions()
    schedule = schedule_orders(problem, serial_orders(problem))
    kept = tuple(tuple(t for t in listed if str(t.op) != "3R0") for listed in schedule.ranks)
    messages = [violation.message for violation in verify_schedule(Schedule(problem, kept))]
    assert messages == ["no rank lists 3R0; it belongs on rank 0"]


@given(PROBLEMS)
def test_one_microbatch_at_a_time_is_what_flows_need(problem):
    orders = flow_serial_orders(problem)
    assert len(set(chain.from_iterable(orders))) == build_graph(problem).num_ops + sum(
        costs.can_divide and not costs.must_divide and -len(problem.microbatches_of(stage))
        for stage, costs in enumerate(problem.stages)
    ), "undivided backwards are one op for two"
    peaks = peak_memory_bytes(problem, orders)
    assert flow_needed_bytes(problem) == peaks, "alloc at F and free behind it: nothing needs less"
    check_feasible(problem.with_memory_limit(peaks))
