"""Grids checked by eye: every picture here was drawn by hand."""

from builders import good_schedule, schedule_of, two_by_two

from synth.baselines import baseline_orders
from synth.grid import render_grid
from synth.placement import Placement
from synth.problem import OpCost, Problem, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import Schedule
from synth.timing import schedule_orders

UNIT = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), BW=OpCost(ticks=2, free_bytes=1))


def picture(*lines):
    return "\n".join(lines)


def test_1f1b_of_unit_times():
    problem = uniform_problem(num_ranks=4, num_microbatches=4, stage=UNIT)
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    assert render_grid(schedule) == picture(  # (m + p - 1)(F + BW) = 21 slots
        " rank 0  F0  F1  F2  F3  .   .   .   .   .   .   BW0---- .   BW1---- .   BW2---- .   BW3----",
        " rank 1  .   F0  F1  F2  .   .   .   .   BW0---- F3  BW1---- .   BW2---- .   BW3---- .   .",
        " rank 2  .   .   F0  F1  .   .   BW0---- F2  BW1---- F3  BW2---- .   BW3---- .   .   .   .",
        " rank 3  .   .   .   F0  BW0---- F1  BW1---- F2  BW2---- F3  BW3---- .   .   .   .   .   .",
    )


def v_schedule():
    """Stages 0 and 3 on rank 0, 1 and 2 on rank 1, one microbatch, F 1 and BW 2 ticks, no transfers."""
    problem = two_by_two(UNIT, transfer_ticks=0, num_microbatches=1, stage_to_rank=(0, 1, 1, 0))
    return schedule_of(problem, "0F0@0 3F0@3 3BW0@4 0BW0@10", "1F0@1 2F0@2 2BW0@6 1BW0@8")


def test_ops_show_their_stage_where_a_rank_holds_several():
    assert render_grid(v_schedule()) == picture(
        " rank 0  0F0  .    .    3F0  3BW0----- .    .    .    .    0BW0-----",
        " rank 1  .    1F0  2F0  .    .    .    2BW0----- 1BW0----- .    .",
    )


def test_cut_off_after_some_slots():
    assert render_grid(v_schedule(), last_slot=5) == picture(
        " rank 0  0F0  .    .    3F0  3BW0- …",
        " rank 1  .    1F0  2F0  .    . …",
    )


def test_grid_that_ends_at_the_last_slot_is_whole():
    assert render_grid(v_schedule(), last_slot=12) == render_grid(v_schedule())
    assert " …" not in render_grid(v_schedule(), last_slot=99)


def test_cut_off_at_a_width():
    whole = render_grid(v_schedule())
    width = max(map(len, whole.splitlines()))
    assert render_grid(v_schedule(), columns=width) == whole
    for columns in range(16, width):
        lines = render_grid(v_schedule(), columns=columns).splitlines()
        assert max(map(len, lines)) <= columns
        assert all(line.endswith(" …") for line in lines)
    assert render_grid(v_schedule(), columns=34) == render_grid(v_schedule(), last_slot=4)
    assert render_grid(v_schedule(), columns=36) == render_grid(v_schedule(), last_slot=5)


def test_no_width_is_too_narrow_for_one_slot():
    assert render_grid(v_schedule(), columns=1) == picture(" rank 0  0F0 …", " rank 1  . …")


def test_slots_of_several_ticks():
    """Times divided by 2 and rounded: F of rank 1 starts at 3, which is drawn at slot 2."""
    assert render_grid(good_schedule(), slot_ticks=2) == picture(
        " rank 0  F0 F1 .  .  B0 W0 B1 W1",
        " rank 1  .  .  F0 B0 F1 B1 W1 .",
    )


def test_time_begins_at_the_first_start():
    later = tuple(
        tuple(timed._replace(start=timed.start + 1000, end=timed.end + 1000) for timed in rank)
        for rank in good_schedule().ranks
    )
    assert render_grid(Schedule(good_schedule().problem, later)) == render_grid(good_schedule())


def test_slots_beyond_the_cut_take_no_memory():
    problem = two_by_two(StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=10**15)), num_microbatches=1)
    schedule = schedule_of(problem, f"0F0@0 0BW0@{10**15 + 3}", "1F0@2 1BW0@3")
    assert render_grid(schedule, last_slot=4) == picture(
        " rank 0  F0  .   .   . …", " rank 1  .   .   F0  BW0- …"
    )


def test_rank_without_ops_and_schedule_without_ops():
    problem = good_schedule().problem
    assert render_grid(Schedule(problem, (good_schedule().ranks[0][:1], ()))) == picture(
        " rank 0  F0---", " rank 1  .  ."
    )
    assert render_grid(Schedule(problem, ((), ()))) == picture(" rank 0  ", " rank 1  ")


def test_a_hundred_ranks_stay_aligned():
    problem = Problem(
        num_ranks=101,
        num_microbatches=1,
        placement=Placement.explicit(range(101)),
        stages=(UNIT,) * 101,
        transfer_ticks=uniform_transfers(101, 0),
    )
    schedule = schedule_orders(problem, baseline_orders("gpipe", problem))
    lines = render_grid(schedule, last_slot=1).splitlines()
    assert lines[9:11] == ["  rank 9  .  …", " rank 10  .  …"] or {line.index(".") for line in lines[1:]} == {
        10
    }
