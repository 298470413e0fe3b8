"""Flows in documents: directions and slices laid out, inputs as given, and both written back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flow_cases import any_flows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_flows import PROBLEMS, STAGE, SUMMED, random_orders, two_directions, two_slices

from synth.certificate import Certificate, Provenance
from synth.document import (
    ScheduleDocument,
    read_problem,
    read_schedule,
    read_timeline,
    write_problem,
    write_schedule,
    write_timeline,
)
from synth.errors import DocumentError
from synth.feed import Feed
from synth.measured import MeasuredOp, Timeline
from synth.placement import Placement
from synth.problem import OpCost, Problem, StageCosts, uniform_problem
from synth.timing import schedule_orders

GOLDEN = Path(__file__).parent / "golden" / "v1"
COSTS = {"F": {"ticks": 2, "alloc_bytes": 3}, "BW": {"ticks": 3, "free_bytes": 3}}


def document(**changes):
    """The text of a plain chain of two stages, with keys put in or, as None, taken out."""
    tree = {"format": "pipesynth.problem", "version": 1, "num_ranks": 2, "num_microbatches": 4}
    tree |= {"placement": {"kind": "loop"}, "stages": [COSTS, COSTS], **changes}
    return json.dumps({key: value for key, value in tree.items() if value is not None})


def direction(ranks, microbatches):
    return {"placement": {"stage_to_rank": ranks}, "microbatches": microbatches}


def test_golden_directions_and_slices_are_laid_out():
    def stage(forward, backward, **more):
        alloc, free = OpCost(ticks=forward, alloc_bytes=4), OpCost(ticks=backward, free_bytes=4)
        return StageCosts(F=alloc, BW=free, **more)

    summed = OpCost(ticks=5, alloc_bytes=1, free_bytes=1)
    first = stage(1, 2, R=summed, static_bytes=30, weight_bytes=10, weight_versions=2)
    feeds = [
        Feed(inputs=inputs, microbatches=carried, model_stage=model_stage, slice=number)
        for carried, base in (((0, 2), 0), ((1,), 4))
        for inputs, model_stage, number in (
            ((), 0, 0),
            ((base,), 0, 1),
            ((base,), 1, 0),
            ((base + 1, base + 2), 1, 1),
        )
    ]
    assert read_problem((GOLDEN / "problem-directions.json").read_text(encoding="utf-8")) == Problem(
        num_ranks=2,
        num_microbatches=3,
        placement=Placement.explicit((0, 0, 1, 1, 1, 1, 0, 0)),
        stages=(first, stage(2, 4), stage(3, 6), stage(3, 6)) * 2,
        transfer_ticks=((0, 1), (1, 0)),
        feeds=tuple(feeds),
    )


def test_golden_flow_is_written_as_it_is_stored():
    text = (GOLDEN / "problem-flow.json").read_text(encoding="utf-8")
    laid_out = read_problem((GOLDEN / "problem-directions.json").read_text(encoding="utf-8"))
    assert read_problem(text) == laid_out
    assert write_problem(laid_out) == text


def test_directions_and_slices_are_what_the_library_lays_out():
    read = read_problem(
        document(placement=None, directions=[direction([0, 1], [0, 1]), direction([1, 0], [2, 3])])
    )
    plain = StageCosts(F=OpCost(ticks=2, alloc_bytes=3), BW=OpCost(ticks=3, free_bytes=3))
    assert read == two_directions(plain, transfer_ticks=0)
    sliced = read_problem(document(slices=2))
    assert sliced.inputs_by_stage == two_slices().inputs_by_stage
    assert sliced.stages == (plain,) * 4, "one cost for all slices is that of each"


def test_one_slice_and_one_direction_are_a_chain_with_feeds():
    for flow in (
        document(slices=1),
        document(placement=None, directions=[direction([0, 1], [3, 1, 0, 2])]),
        document(stages=[COSTS, {**COSTS, "inputs": [0]}]),
        document(stages=[{**COSTS, "microbatches": [0, 1, 2, 3]}, COSTS]),
        document(stages=[COSTS, {**COSTS, "model_stage": 1}]),
        document(stages=[{**COSTS, "slice": 0}, COSTS]),
    ):
        problem = read_problem(flow)
        assert not problem.is_chain
        assert problem.inputs_by_stage == ((), (0,))
        assert [tuple(problem.microbatches_of(stage)) for stage in (0, 1)] == [(0, 1, 2, 3)] * 2


def test_a_named_placement_of_a_flow_is_written_as_its_map():
    text = write_problem(read_problem(document(slices=2)))
    assert json.loads(text)["placement"] == {"stage_to_rank": [0, 0, 1, 1]}
    assert "directions" not in text
    assert "slices" not in text


def test_what_is_as_usual_is_not_written():
    text = write_problem(uniform_problem(2, 2, STAGE))
    for key in ("inputs", 'microbatches"', "model_stage", "slice", "weight", "R", "directions"):
        assert key not in text.replace("num_microbatches", "")


def test_a_sum_alone_is_written_without_feeds():
    problem = uniform_problem(2, 2, replace(SUMMED, weight_bytes=3, weight_versions=2))
    stage = json.loads(write_problem(problem))["stages"][1]
    assert stage["R"] == {"ticks": 4, "alloc_bytes": 0, "free_bytes": 0}
    assert (stage["weight_bytes"], stage["weight_versions"]) == (3, 2)
    assert "inputs" not in stage
    assert read_problem(write_problem(problem)) == problem


@given(PROBLEMS | any_flows())
def test_a_flow_survives_writing_and_reading(problem):
    assert read_problem(write_problem(problem)) == problem


@settings(max_examples=50)
@given(PROBLEMS | any_flows(), st.integers(0, 2**32))
def test_schedules_and_timelines_of_flows_survive_writing_and_reading(problem, seed):
    schedule = schedule_orders(problem, random_orders(problem, seed))
    certificate = Certificate(
        objective=problem.objective, value=schedule.value, lower_bound=0, bound_from="nothing"
    )
    made = Provenance(method="by chance", created="2026-01-01", tool_version="0")
    text = write_schedule(ScheduleDocument.of(schedule, certificate, made))
    assert read_schedule(text).schedule == schedule
    measured = tuple(tuple(MeasuredOp(*timed) for timed in rank) for rank in schedule.ranks)
    timeline = Timeline(problem=problem, ranks=measured, peak_memory_bytes=None, source="")
    assert read_timeline(write_timeline(timeline)) == timeline


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"microbatch": 2}, "microbatch", "stage 0 does not carry it"),
        ({"op": "R", "microbatch": 1}, "microbatch", "R runs once, as microbatch 0"),
    ],
)
def test_a_measured_op_that_a_flow_lacks_is_refused(change, where, says):
    problem = two_directions()
    schedule = schedule_orders(problem, random_orders(problem, 0))
    measured = tuple(tuple(MeasuredOp(*timed) for timed in rank) for rank in schedule.ranks)
    timeline = Timeline(problem=problem, ranks=measured, peak_memory_bytes=None, source="")
    tree = json.loads(write_timeline(timeline))
    place = next(n for n, op in enumerate(tree["ranks"][0]) if op["stage"] == 0)
    tree["ranks"][0][place] |= change
    with pytest.raises(DocumentError, match=says) as caught:
        read_timeline(json.dumps(tree))
    assert caught.value.path == f"$.ranks[0][{place}].{where}"


def test_a_schedule_with_an_open_direction_is_refused():
    problem = two_directions()
    schedule = schedule_orders(problem, random_orders(problem, 0))
    certificate = Certificate(
        objective=problem.objective, value=schedule.value, lower_bound=0, bound_from="nothing"
    )
    made = Provenance(method="by chance", created="2026-01-01", tool_version="0")
    tree = json.loads(write_schedule(ScheduleDocument.of(schedule, certificate, made)))
    tree["problem"]["placement"] = {"kind": "auto"}
    with pytest.raises(DocumentError, match="give the stage_to_rank the schedule was made for"):
        read_schedule(json.dumps(tree))
