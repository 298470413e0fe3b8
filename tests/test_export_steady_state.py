"""The repeating middle of schedules, against closed forms."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.baselines import baseline_orders
from synth.baselines.v_shaped import PERIOD_SLOTS
from synth.building_block import BlockOp, BuildingBlock, unroll_with_starts
from synth.export.steady_state import find_steady_state, ops_of
from synth.ops import OpKind, TimedOp
from synth.placement import PlacementKind
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import Schedule
from synth.timing import schedule_orders
from tests.builders import good_schedule

TICKS = st.integers(1, 50)


def timed(name, problem):
    return schedule_orders(problem, baseline_orders(name, problem))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(forward=TICKS, backward=TICKS, ranks=st.integers(1, 6))
def test_1f1b_repeats_after_one_forward_and_backward(forward, backward, ranks):
    stage = StageCosts(F=OpCost(ticks=forward), BW=OpCost(ticks=backward))
    found = find_steady_state(timed("1f1b", uniform_problem(ranks, 3 * ranks + 3, stage)))
    assert found.period_ticks == forward + backward
    assert found.num_together == 1
    assert found.last == 3 * ranks + 2, "all backwards keep their distance to the end"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(forward=TICKS, backward=TICKS)
def test_gpipe_has_none(forward, backward):
    stage = StageCosts(F=OpCost(ticks=forward), BW=OpCost(ticks=backward))
    assert find_steady_state(timed("gpipe", uniform_problem(3, 12, stage))) is None


@pytest.mark.parametrize("ranks", [4, 6, 8])
def test_v_half_repeats_its_block(ranks):
    one = OpCost(ticks=1)
    stage = StageCosts(F=one, B=one, W=one)
    problem = uniform_problem(ranks, 4 * ranks, stage, chunks=2, kind=PlacementKind.V)
    found = find_steady_state(timed("v-half", problem))
    assert (found.period_ticks, found.num_together) == (PERIOD_SLOTS, 1)


def test_interleaved_1f1b_repeats_in_groups_of_as_many_microbatches_as_ranks():
    stage = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    found = find_steady_state(timed("interleaved-1f1b", uniform_problem(4, 32, stage, chunks=2)))
    assert (found.period_ticks, found.num_together) == (4 * 2 * 3, 4)
    assert len(found.middle) == 4


@settings(max_examples=60, deadline=None, derandomize=True)
@given(period=st.integers(6, 20), jitter=st.integers(1, 3), microbatch=st.integers(0, 11))
def test_an_unrolled_block_repeats_until_an_op_is_moved(period, jitter, microbatch):
    schedule = unrolled(period)
    found = find_steady_state(schedule)
    assert (found.period_ticks, found.num_together) == (period, 1)
    assert (found.first, found.last, found.middle) == (0, 11, (6,))
    moved = moved_later(schedule, microbatch, jitter)
    left = find_steady_state(moved)
    assert left is None or not left.first <= microbatch <= left.last


def test_the_ops_of_a_block_are_those_of_its_microbatches():
    ranks = ops_of(good_schedule(), (1,))
    assert [[str(timed.op) for timed in rank] for rank in ranks] == [
        ["0F1", "0B1", "0W1"],
        ["1F1", "1B1", "1W1"],
    ]


def test_too_few_microbatches_have_none():
    assert find_steady_state(good_schedule()) is None


def unrolled(period):
    """A block of two stages on two ranks, laid down twelve times."""
    one = OpCost(ticks=1)
    problem = uniform_problem(2, 12, StageCosts(F=one, B=one, W=one))
    starts = {OpKind.F: (0, 1), OpKind.B: (4, 2), OpKind.W: (5, 3)}
    ops = tuple(BlockOp(kind, stage, row[stage]) for kind, row in starts.items() for stage in (0, 1))
    placed = unroll_with_starts(BuildingBlock(period_ticks=period, ops=ops), problem)
    return Schedule(problem, tuple(tuple(TimedOp(op, at, at + 1) for at, op in rank) for rank in placed))


def moved_later(schedule, microbatch, ticks):
    """One W of one microbatch runs a little longer."""

    def move(timed):
        moves = timed.op == (OpKind.W, 0, microbatch)
        return timed._replace(end=timed.end + ticks) if moves else timed

    return replace(schedule, ranks=tuple(tuple(map(move, rank)) for rank in schedule.ranks))
