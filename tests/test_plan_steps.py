"""How long a step takes: flushes, double buffering and all-reduces, against simulation and the 2BW paper."""

from dataclasses import replace
from fractions import Fraction

import pytest
from builders import EITHER, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.baselines import BASELINES, baseline_orders
from synth.drafts import Draft, WeightPolicy
from synth.errors import BaselineUndefinedError
from synth.ops import OpKind
from synth.placement import PlacementKind
from synth.planner.judging import FLUSHED, UNDIVIDED, _bytes_of_first_microbatches
from synth.planner.steps import (
    buffered_step_ticks,
    flushed_step_ticks,
    least_step_ticks,
    least_undivided_step_ticks,
    microbatch_period_ticks,
    ordered_step_ticks,
)
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import measure, peak_memory_bytes
from synth.timing import schedule_orders


def equal(p, m, forward=10, backward=20, transfer=0):
    stage = StageCosts(F=OpCost(ticks=forward, alloc_bytes=1), BW=OpCost(ticks=backward, free_bytes=1))
    return uniform_problem(p, m, stage, transfer_ticks=transfer)


def one_f_one_b(problem):
    return schedule_orders(problem, baseline_orders("1f1b", problem))


def test_no_replicas_no_sum():
    schedule = one_f_one_b(equal(4, 8))
    assert flushed_step_ticks(schedule, (0, 0, 0, 0)) == measure(schedule).makespan


def test_the_sum_runs_beside_the_cool_down():
    """The last stage is done 3 BW before the first: its sum costs nothing, that of the first all it takes."""
    schedule = one_f_one_b(equal(4, 8))
    makespan = measure(schedule).makespan
    assert flushed_step_ticks(schedule, (0, 0, 0, 60)) == makespan
    assert flushed_step_ticks(schedule, (0, 0, 0, 61)) == makespan + 1
    assert flushed_step_ticks(schedule, (7, 0, 0, 0)) == makespan + 7


def test_the_sums_of_a_rank_queue():
    """Two stages on one rank, both ready late: one sum behind the other."""
    problem = two_by_two(EITHER, stage_to_rank=(0, 1, 1, 0), num_microbatches=2)
    schedule = schedule_orders(problem, baseline_orders("v-zb", problem))
    alone = flushed_step_ticks(schedule, (0, 0, 0, 0))
    both = flushed_step_ticks(schedule, (100, 0, 0, 100))
    ready = {
        stage: max(timed.end for timed in schedule.ranks[0] if timed.op.stage == stage) for stage in (0, 3)
    }
    begun = min(rank[0].start for rank in schedule.ranks)
    assert both == max(ready[0], ready[3] + 100) + 100 - begun > alone


@st.composite
def chains(draw):
    """Unequal stages, one on each rank, with unequal transfers."""
    p = draw(st.integers(1, 4))
    stages = tuple(
        StageCosts(F=OpCost(ticks=draw(st.integers(1, 9))), BW=OpCost(ticks=draw(st.integers(1, 9))))
        for _ in range(p)
    )
    transfers = tuple(tuple(draw(st.integers(0, 6)) if a != b else 0 for b in range(p)) for a in range(p))
    return replace(equal(p, p), stages=stages, transfer_ticks=transfers)


@given(chains())
@settings(max_examples=30)
def test_the_period_is_that_of_1f1b_without_flushes(problem):
    """Measured far from both ends, over a number of microbatches that every cycle's length divides."""
    every = 12
    ends = []
    for count in (20 * every, 21 * every):
        schedule = one_f_one_b(replace(problem, num_microbatches=count))
        ends.append(measure(schedule).makespan)
    assert Fraction(ends[1] - ends[0], every) == microbatch_period_ticks(problem)


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("transfer", [0, 3])
def test_the_period_of_equal_stages(p, transfer):
    """A stage's work and its share of the p - 1 hops both ways."""
    expected = 30 + Fraction(2 * transfer * (p - 1), p)
    assert microbatch_period_ticks(equal(p, p, transfer=transfer)) == expected


@pytest.mark.parametrize("p", [2, 4, 8, 16])
@pytest.mark.parametrize("batches", [1, 2, 4, 32])
def test_what_the_flush_costs(p, batches):
    """The paper's conclusion: (m + p - 1)/m, near 2 with few microbatches, nothing with many (section 5)."""
    m = p * batches
    problem = equal(p, m)
    flushed = flushed_step_ticks(one_f_one_b(problem), (0,) * p)
    buffered = buffered_step_ticks(problem, (0,) * p)
    assert Fraction(flushed, buffered) == Fraction(m + p - 1, m)


@pytest.mark.parametrize(("microbatches", "published"), [(12, 1.6), (48, 1.15)])
def test_the_published_cost_of_the_flush(microbatches, published):
    """2BW beside PipeDream-Flush, 1.6x at a small batch and 15 % at a large one (arXiv 2006.09503).

    On eight equal stages that is a flush after 12 and after 48 microbatches, which it does not tell.
    """
    problem = equal(8, microbatches)
    flushed = flushed_step_ticks(one_f_one_b(problem), (0,) * 8)
    assert flushed / buffered_step_ticks(problem, (0,) * 8) == pytest.approx(published, abs=0.03)


def with_sums(problem, batches, sums):
    """1F1B over batches, each of whose first forwards waits for the sums of the batch before last."""
    m, p = problem.num_microbatches, problem.num_ranks
    schedule_problem = replace(problem, num_microbatches=batches * m)
    orders = baseline_orders("1f1b", schedule_problem)
    ends, summed, free = {}, {}, [0] * p
    left = [list(order) for order in orders]
    while any(left):
        for rank, order in enumerate(left):
            while order:
                start = _ready(order[0], rank, problem, ends, summed)
                if start is None:
                    break
                op = order.pop(0)
                cost = problem.stages[rank].cost(op.kind)
                free[rank] = ends[op.kind, rank, op.microbatch] = max(start, free[rank]) + cost.ticks
                batch, number = divmod(op.microbatch, m)
                if op.kind == "BW" and number == m - 1:
                    before = summed.get((rank, batch - 1), 0)
                    summed[rank, batch] = max(before, free[rank]) + sums[rank]
    return summed


def _ready(op, rank, problem, ends, summed):
    """When an op's inputs are there, None while they are not."""
    m, p, i = problem.num_microbatches, problem.num_ranks, op.microbatch
    needs = []
    if op.kind == "F":
        needs += [(ends.get(("F", rank - 1, i)), problem.transfer_ticks[rank - 1][rank])] if rank else []
        needs += [(summed.get((rank, i // m - 2)), 0)] if i % m == 0 and i >= 2 * m else []
    else:
        last = rank == p - 1
        needs += [] if last else [(ends.get(("BW", rank + 1, i)), problem.transfer_ticks[rank + 1][rank])]
        needs += [(ends.get(("F", rank, i)), 0)]
    if any(time is None for time, _ in needs):
        return None
    return max((time + lag for time, lag in needs), default=0)


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("share", [0, 1, 3, 6, 9])
def test_double_buffering_hides_the_sum(p, share):
    """Simulated by definition: batch n waits for the summed gradients of batch n - 2."""
    problem, m = equal(p, 2 * p, transfer=0), 2 * p
    sums = (share * m * 30 // 4,) * p
    summed = with_sums(problem, 24, sums)
    measured = Fraction(summed[0, 22] - summed[0, 12], 10)
    assert buffered_step_ticks(problem, sums) == pytest.approx(float(measured), abs=1)


@given(chains(), st.lists(st.integers(0, 200), min_size=4, max_size=4))
@settings(max_examples=40)
def test_no_step_beats_its_bound(problem, sums):
    problem = replace(problem, num_microbatches=2 * problem.num_ranks)
    sums = tuple(sums[: problem.num_ranks])
    least = least_step_ticks(Draft(problem=problem, all_reduce_ticks=sums))
    for name in BASELINES:
        try:
            orders = baseline_orders(name, problem)
        except BaselineUndefinedError:
            continue
        assert flushed_step_ticks(schedule_orders(problem, orders), sums) >= least


@given(problems(), st.lists(st.integers(0, 20), min_size=16, max_size=16))
@settings(max_examples=150)
def test_undivided_schedules_have_a_bound_of_their_own(problem, sums):
    """Any placement, costs that offer a whole backward, or B and W alone, or both."""
    draft = Draft(problem=problem, all_reduce_ticks=tuple(sums[: problem.num_stages]))
    least = least_undivided_step_ticks(draft)
    for name in UNDIVIDED:
        try:
            orders = baseline_orders(name, problem)
        except BaselineUndefinedError:
            continue
        assert flushed_step_ticks(schedule_orders(problem, orders), draft.all_reduce_ticks) >= least


def test_the_bound_of_undivided_schedules_is_1f1bs_bubble():
    """(m + p - 1)(F + BW) where transfers cost nothing; a schedule that divides may be shorter."""
    problem = uniform_problem(4, 8, EITHER)
    draft = Draft(problem=problem, all_reduce_ticks=(0,) * 4)
    assert least_undivided_step_ticks(draft) == (8 + 3) * 5 == measure(one_f_one_b(problem)).makespan
    divided = schedule_orders(problem, baseline_orders("zb-h1", problem))
    assert measure(divided).makespan < 8 * 6 + 3 * 5


def test_undivided_schedules_divide_nothing():
    """All others divide some backward where that may be."""
    wave = uniform_problem(4, 8, EITHER, chunks=2, kind=PlacementKind.WAVE)
    looped = uniform_problem(4, 8, EITHER, chunks=2)
    whole = set()
    for name in FLUSHED:
        for problem in (uniform_problem(4, 8, EITHER), looped, wave):
            try:
                orders = baseline_orders(name, problem)
            except BaselineUndefinedError:
                continue
            if {op.kind for order in orders for op in order} == {OpKind.F, OpKind.BW}:
                whole.add(name)
    assert whole == set(UNDIVIDED)


def test_the_bound_of_double_buffering_is_the_step():
    problem = equal(4, 8, transfer=2)
    draft = Draft(problem=problem, all_reduce_ticks=(5,) * 4, policy=WeightPolicy.DOUBLE_BUFFERED)
    assert least_step_ticks(draft) == buffered_step_ticks(problem, (5,) * 4)


@pytest.mark.parametrize("name", FLUSHED)
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from(PlacementKind), st.data())
@settings(max_examples=25)
def test_few_microbatches_hold_no_more_than_many(name, num_ranks, chunks, kind, data):
    """And the step of orders is that of the schedule they make."""
    if (kind is PlacementKind.V and chunks != 2) or (chunks == 1 and kind is not PlacementKind.LOOP):
        return
    m = data.draw(st.integers(4 * num_ranks + 1, 10 * num_ranks))
    stages = []
    for _ in range(num_ranks * chunks):
        at_b, at_w, forward, backward, weight = (data.draw(st.integers(1, 9)) for _ in range(5))
        stages.append(
            StageCosts(
                F=OpCost(ticks=forward, alloc_bytes=at_b + at_w),
                B=OpCost(ticks=backward, free_bytes=at_b),
                W=OpCost(ticks=weight, free_bytes=at_w),
                BW=OpCost(ticks=backward + weight, free_bytes=at_b + at_w),
            )
        )
    problem = uniform_problem(num_ranks, m, stages[0], chunks=chunks, kind=kind)
    problem = replace(problem, stages=tuple(stages))
    try:
        orders = baseline_orders(name, problem)
    except BaselineUndefinedError:
        return
    least = _bytes_of_first_microbatches(problem, name)
    assert all(few <= all_ for few, all_ in zip(least, peak_memory_bytes(problem, orders), strict=True))
    sums = [data.draw(st.integers(0, 30)) for _ in stages]
    schedule = schedule_orders(problem, orders)
    assert ordered_step_ticks(problem, orders, sums) == flushed_step_ticks(schedule, sums)
