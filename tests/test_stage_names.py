"""What the stages of flows are called."""

from dataclasses import replace

from test_flows import SUMMED, two_directions, two_slices

from synth.baselines import baseline_problem
from synth.flows import Direction, laid_out_of, lay_out
from synth.placement import Placement
from synth.problem import Problem, uniform_problem, uniform_transfers
from synth.stage_names import how_stages_read, names_of_stages, shape_words


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
    assert laid_out_of(problem) == (2, 1)
    assert shape_words(problem) == "4 stages in 2 directions"
    assert names_of_stages(problem) == [
        f"stage {stage} of direction {way}" for way in (0, 1) for stage in (0, 1)
    ]
    assert how_stages_read(problem) == "stage 3 = stage 1 of direction 1"


def test_slices():
    problem = two_slices()
    assert laid_out_of(problem) == (1, 2)
    assert shape_words(problem) == "4 stages in 2 slices"
    assert names_of_stages(problem)[2] == "stage 1, slice 0"
    assert how_stages_read(problem) == "stage 3 = stage 1, slice 1"


def test_both():
    problem = directions_of_slices()
    assert shape_words(problem) == "8 stages in 2 directions and 2 slices"
    assert how_stages_read(problem) == "stage 7 = stage 1 of direction 1, slice 1"
    assert names_of_stages(problem)[4] == "stage 0 of direction 1, slice 0"


def test_a_chain_needs_no_words():
    problem = uniform_problem(2, 2, SUMMED)
    assert (how_stages_read(problem), shape_words(problem), names_of_stages(problem)) == ("", "2 stages", [])


def test_stages_that_are_no_directions_go_by_their_microbatches():
    """The stages of BPipe carry different microbatches, and run the same way."""
    problem = baseline_problem("bpipe", uniform_problem(5, 6, SUMMED))
    assert laid_out_of(problem) is None
    assert shape_words(problem) == f"{problem.num_stages} stages for 5 of the model"
    assert names_of_stages(problem)[:2] == [
        "stage 0 of the model, microbatches 0, 1, 2, 5",
        "stage 0 of the model, microbatches 3, 4",
    ]
    assert how_stages_read(problem).endswith(" = stage 4 of the model, microbatches 0, 1, 2, 3, …")


def test_a_chain_that_names_its_feeds_needs_no_words():
    flow = lay_out([[SUMMED]] * 2, [Direction((0, 1), (0, 1))])
    problem = replace(uniform_problem(2, 2, SUMMED), feeds=flow.feeds)
    assert (how_stages_read(problem), shape_words(problem)) == ("", "2 stages")
