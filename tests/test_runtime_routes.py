"""The way of microbatches through directions, slices and storage, and flows that are not executed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.routes import Routes, storing_stages
from synth.errors import InputError
from synth.feed import Feed
from synth.flows import computing_stages
from synth.placement import Placement
from synth.problem import uniform_problem
from tests.builders import EITHER
from tests.flow_builders import Evicted, evicting, evictions, flow, flows, sliced, two_directions


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


def with_store(problem, rank, **feed):
    """One stage more, which stores."""
    placement = Placement.explicit((*problem.stage_to_rank, rank))
    stages, feeds = (*problem.stages, EITHER), (*problem.feeds, Feed(**feed))
    return replace(problem, placement=placement, stages=stages, feeds=feeds)


EVICTING = evicting(2, 2, {0: Evicted((0,), 1, apart=False)})


@given(st.one_of(evictions(), flows()))
def test_what_stores_is_what_does_not_compute(problem):
    stages = set(range(problem.num_stages))
    assert storing_stages(problem) == stages - set(computing_stages(problem))
    routes = Routes(problem)
    for rank, held in enumerate(problem.stages_by_rank):
        assert routes.computing_on(rank) == tuple(sorted(set(held) - routes.storing))


def test_who_stores_holds_no_weights():
    routes = Routes(evicting(2, 3, {0: Evicted((0, 2), 1)}))
    assert [routes.model_stage(stage) for stage in range(4)] == [0, 0, 0, 1]
    assert (routes.storing, routes.evicting, routes.stored_for(2)) == ({2}, {1}, (1,))
    assert [routes.source(3, microbatch) for microbatch in range(3)] == [1, 0, 1]
    assert routes.target(1, 0) == 3
    assert (routes.holders(0), routes.held_by(1)) == ((0,), (1,))


def test_what_a_rank_stores_for_itself_stays():
    assert not Routes(evicting(2, 2, {0: Evicted((0,), 0)})).evicting


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
    "a stage twice": (
        replace(
            uniform_problem(2, 1, EITHER),
            feeds=(Feed(inputs=(), microbatches=(0,), model_stage=0),) * 2,
        ),
        "microbatch 0 does not pass each of 1 stages of the model in each of 1 slices just once",
    ),
    "storage of slices": (
        with_store(sliced(2, 1, 2), 1, inputs=(0,), microbatches=(0,), model_stage=0),
        "stage 4 stores what another keeps, and there are sequence slices, .* give a schedule with the one",
    ),
    "storage of storage": (
        with_store(EVICTING, 1, inputs=(1,), microbatches=(0,), model_stage=0),
        r"stage 3 stores microbatch 0 and is fed by stage 1 and not by stage 0, which computes it: feed",
    ),
    "storage twice": (
        with_store(EVICTING, 1, inputs=(0,), microbatches=(0, 1), model_stage=0),
        "stages 1 and 3 both store what stage 0 keeps of microbatch 0: give a schedule in which one does",
    ),
    "a stage fed by storage": (
        refeed(EVICTING, 2, inputs=(1,)),
        "stage 2 is fed by stage 1 and not by stage 0: the runtime feeds",
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
