"""Crossing lines: none waits for another, memory is kept to, unit times come near the published frontier."""

import json
from pathlib import Path

import pytest
from flow_builders import two_directions
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import BaselineUndefinedError
from synth.ops import OpKind
from synth.placement import PlacementKind
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import fits, peak_memory_bytes
from synth.search.crossing_lines import crossing_lines, entry_slots, run_lengths
from synth.timing import schedule_orders
from synth.verify import verify_schedule

PUBLISHED = json.loads((Path(__file__).parent / "data" / "published.json").read_text(encoding="utf-8"))
FRONTIER = PUBLISHED["adaptive_v"]["unit_costs"]["points"]


def v_problem(num_ranks, num_microbatches, ticks=1, limit=None, **options):
    stage = StageCosts(
        F=OpCost(ticks=ticks, alloc_bytes=1), B=OpCost(ticks=ticks), W=OpCost(ticks=1, free_bytes=1)
    )
    return uniform_problem(
        num_ranks,
        num_microbatches,
        stage,
        chunks=2,
        kind=PlacementKind.V,
        memory_limit_bytes=limit,
        **options,
    )


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 10))
def test_lines_never_meet_and_nothing_is_later_than_its_slot(num_ranks, num_microbatches, run_length):
    """A free slot takes two weight gradients of a tick, so with forwards of two ticks no line waits."""
    problem = v_problem(num_ranks, num_microbatches, ticks=2)
    schedule = schedule_orders(problem, crossing_lines(problem, run_length))
    entries = entry_slots(num_ranks, num_microbatches, run_length)
    for rank in schedule.ranks:
        slots = []
        for timed in rank:
            if timed.op.kind is not OpKind.W:
                on_its_way = (
                    timed.op.stage if timed.op.kind is OpKind.F else 4 * num_ranks - 1 - timed.op.stage
                )
                slots.append(entries[timed.op.microbatch] + on_its_way)
                assert timed.start <= 2 * slots[-1]
        assert sorted(set(slots)) == slots
    assert verify_schedule(schedule) == []


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 10), st.integers(2, 20), st.integers(1, 3))
def test_keeps_to_the_memory_limit_or_says_no(num_ranks, num_microbatches, run_length, limit, ticks):
    problem = v_problem(num_ranks, num_microbatches, ticks, limit)
    try:
        orders = crossing_lines(problem, run_length)
    except BaselineUndefinedError:
        assert limit < 2 * num_ranks + 4
        return
    assert fits(problem, peak_memory_bytes(problem, orders))
    assert verify_schedule(schedule_orders(problem, orders)) == []


@pytest.mark.parametrize("point", [point for point in FRONTIER if point["k"] == point["p"]], ids=str)
def test_unit_times_at_half_of_1f1b_s_memory(point):
    """An idle slot above the published frontier for five ranks at most, however many microbatches."""
    num_ranks = point["p"]
    for num_microbatches in (2 * num_ranks, 3 * num_ranks + 1):
        problem = v_problem(num_ranks, num_microbatches, limit=point["k"])
        orders = crossing_lines(problem, run_lengths(num_ranks)[0])
        idle = schedule_orders(problem, orders).value - problem.work_ticks
        assert point["bubble_units"] <= idle <= point["bubble_units"] + num_ranks // 5


def test_refuses_what_is_no_v_and_what_it_cannot_divide():
    loop = uniform_problem(4, 4, v_problem(4, 4).stages[0], chunks=2)
    with pytest.raises(BaselineUndefinedError, match="in a V"):
        crossing_lines(loop, 1)
    both_ways = two_directions(4)  # the same ranks as a V, and no chain
    with pytest.raises(BaselineUndefinedError, match="chain"):
        crossing_lines(both_ways, 1)
    whole = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    problem = uniform_problem(4, 4, whole, chunks=2, kind=PlacementKind.V)
    with pytest.raises(BaselineUndefinedError, match="divide"):
        crossing_lines(problem, 1)
