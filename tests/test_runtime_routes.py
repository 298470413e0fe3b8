"""The way of microbatches through directions and slices, and flows that the runtime does not execute."""

from dataclasses import replace

import pytest

from runtime.routes import Routes
from synth.errors import InputError
from synth.feed import Feed
from synth.placement import Placement
from synth.problem import uniform_problem
from tests.builders import EITHER
from tests.flow_builders import flow, sliced, two_directions


def test_a_chain_is_its_own_model():
    routes = Routes(uniform_problem(2, 3, EITHER, chunks=2))
    assert (routes.num_model_stages, routes.num_slices) == (4, 1)
    assert [routes.source(stage, 0) for stage in range(4)] == [None, 0, 1, 2]
    assert [routes.target(stage, 0) for stage in range(4)] == [1, 2, 3, None]
    assert [routes.holders(stage) for stage in range(4)] == [(0,), (1,), (0,), (1,)]
    assert routes.held_by(1) == (1, 3)


def test_directions_hold_every_stage_of_the_model_twice():
    routes = Routes(two_directions(2, 1))
    assert [routes.model_stage(stage) for stage in range(4)] == [0, 1, 0, 1]
    assert [routes.source(stage, stage // 2) for stage in range(4)] == [None, 0, None, 2]
    assert routes.holders(0) == routes.holders(1) == (0, 1)


def test_slices_pass_side_by_side():
    routes = Routes(sliced(2, 1, 3))
    assert (routes.num_model_stages, routes.num_slices) == (2, 3)
    assert [routes.slice_of(stage) for stage in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [routes.target(stage, 0) for stage in range(6)] == [3, 4, 5, None, None, None]


def refeed(problem, stage, **changes):
    feeds = list(problem.feeds)
    feeds[stage] = replace(feeds[stage], **changes)
    return replace(problem, feeds=tuple(feeds))


BEYOND = {
    "slices apart": (
        replace(sliced(2, 1, 2), placement=Placement.explicit((0, 1, 1, 0))),
        "slice 1 of a microbatch is on rank 1 as stage 1 and slice 0 on rank 0 as stage 0, .* on one rank",
    ),
    "a stage skipped": (
        refeed(flow([(0, 1, 2)], [1]), 2, inputs=(0, 1)),
        "stage 2 is fed by stages 0, 1 and not by stage 1: the runtime feeds",
    ),
    "a stage without its input": (
        refeed(flow([(0, 1)], [1]), 1, inputs=()),
        "stage 1 is fed by no stage and not by stage 0",
    ),
    "a stage of storage": (
        replace(
            uniform_problem(2, 1, EITHER),
            feeds=tuple(Feed(inputs=(0,) * stage, microbatches=(0,), model_stage=0) for stage in (0, 1)),
        ),
        "microbatch 0 does not pass each of 1 stages of the model in each of 1 slices just once",
    ),
    "a stage that a microbatch leaves out": (
        refeed(flow([(0, 1)], [2]), 1, microbatches=(1,)),
        "microbatch 0 does not pass each of 2 stages",
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_other_flows_are_refused(name):
    problem, says = BEYOND[name]
    with pytest.raises(InputError, match=says):
        Routes(problem)
