"""What the stages of flows are called."""

from test_flows import SUMMED, two_directions, two_slices

from synth.flows import Direction, lay_out
from synth.placement import Placement
from synth.problem import Problem, uniform_problem, uniform_transfers
from synth.stage_names import how_stages_read, num_directions, num_slices, shape_words, stage_name


def directions_of_slices() -> Problem:
    """Two model stages, two slices, two directions on two ranks."""
    flow = lay_out([[SUMMED, SUMMED]] * 2, [Direction((0, 1), (0, 2)), Direction((1, 0), (1, 3))])
    return Problem(
        num_ranks=2,
        num_microbatches=4,
        placement=Placement.explicit(flow.stage_to_rank),
        stages=flow.stages,
        transfer_ticks=uniform_transfers(2, 1),
        feeds=flow.feeds,
    )


def test_directions():
    problem = two_directions()
    assert (num_directions(problem), num_slices(problem)) == (2, 1)
    assert shape_words(problem) == "4 stages in 2 directions"
    names = [stage_name(problem, stage) for stage in range(4)]
    assert names == [f"stage {stage} of direction {way}" for way in (0, 1) for stage in (0, 1)]
    assert how_stages_read(problem) == "stage 3 = stage 1 of direction 1"


def test_slices():
    problem = two_slices()
    assert (num_directions(problem), num_slices(problem)) == (1, 2)
    assert shape_words(problem) == "4 stages in 2 slices"
    assert stage_name(problem, 2) == "stage 1, slice 0"
    assert how_stages_read(problem) == "stage 3 = stage 1, slice 1"


def test_both():
    problem = directions_of_slices()
    assert shape_words(problem) == "8 stages in 2 directions and 2 slices"
    assert how_stages_read(problem) == "stage 7 = stage 1 of direction 1, slice 1"
    assert stage_name(problem, 4) == "stage 0 of direction 1, slice 0"


def test_a_chain_needs_no_words():
    for stage in (SUMMED,):
        problem = uniform_problem(2, 2, stage)
        assert how_stages_read(problem) == ""
        assert shape_words(problem) == "2 stages"
