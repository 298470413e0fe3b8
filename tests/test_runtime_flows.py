"""Executed directions and slices against the same steps without a pipeline: losses, gradients, weights."""

import re
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.gradients import Exchange
from runtime.stage import Division
from synth.baselines import BASELINES, baseline_schedule
from synth.errors import BaselineUndefinedError
from synth.memory import serial_orders
from synth.placement import PlacementKind
from synth.problem import uniform_problem
from synth.schedule import Schedule
from synth.timing import schedule_orders
from tests.builders import EITHER, orders_of
from tests.flow_builders import SUMMED, drawn, flow, flows_with_orders, sliced, two_directions
from tests.runtime_flow_cases import FlowCase, flow_against_reference, flow_refused

TOLERANCE = 1e-12
"""In float64: slices and directions add up in another order than one process."""


def check(outcomes, *, exact: bool = False) -> None:
    """As without a pipeline, and all replicas with the very same weights."""
    for outcome in outcomes:
        assert outcome.equal if exact else outcome.difference <= TOLERANCE
        assert outcome.losses == pytest.approx(outcome.expected, abs=TOLERANCE)
    assert any(outcome.losses for outcome in outcomes)
    assert len({outcome.losses for outcome in outcomes if outcome.losses}) == 1
    for model_stage in set().union(*(outcome.weights for outcome in outcomes)):
        held = {o.weights[model_stage] for o in outcomes if model_stage in o.weights}
        assert len(held) == 1


@pytest.mark.parametrize("division", Division)
@pytest.mark.parametrize("stage", [EITHER, SUMMED], ids=["no R", "R"])
def test_two_directions_give_the_gradients_of_one_process(pool, stage, division):
    """Four ranks with dropout, one microbatch at a time: bit for bit, for two parts have one sum."""
    problem = two_directions(4, 3, stage)
    schedule = schedule_orders(problem, serial_orders(problem))
    case = FlowCase(schedule=schedule, model="mixed", dropout=0.3, division=division, dtype=torch.float32)
    outcomes = pool.run(4, flow_against_reference, replace(case, dtype=torch.float64))
    check(outcomes, exact=True)
    assert all(outcome.equal for outcome in pool.run(4, flow_against_reference, case))


@pytest.mark.parametrize("division", Division)
@pytest.mark.parametrize("model", ["llama", "running"])
def test_slices_give_the_gradients_of_whole_sequences(pool, model, division):
    case = FlowCase(schedule=drawn(sliced(4)), model=model, division=division)
    check(pool.run(4, flow_against_reference, case))


def test_slices_of_other_lengths(pool):
    case = FlowCase(schedule=drawn(sliced(2)), slice_positions=(1, 3, 2))
    check(pool.run(2, flow_against_reference, case))


@pytest.mark.parametrize("division", Division)
def test_weight_work_of_a_slice_may_wait_until_buffers_are_used_again(pool, division):
    """The weight work of slice 1 needs what slice 0 kept: its very input, received long before."""
    first = " ".join(f"0F{i} 1F{i} 1BW{i} 0BW{i}" for i in range(3))
    second = " ".join(f"2F{i} 3F{i} 3B{i} 2B{i} 2W{i}" for i in range(3)) + " 3W0 3W1 3W2"
    schedule = schedule_orders(sliced(2, 3, 2), orders_of(first, second))
    check(
        pool.run(2, flow_against_reference, FlowCase(schedule=schedule, model="running", division=division))
    )


@pytest.mark.parametrize("division", Division)
def test_gradient_for_a_slice_may_wait_until_buffers_are_used_again(pool, division):
    """Slice 0 goes back long after slice 1 has handed it its received gradient as it is."""
    rounds = range(4)
    first = [f"0F{i} 1F{i}" for i in rounds] + [f"1B{i} 1W{i}" for i in rounds] + [f"0BW{i}" for i in rounds]
    second = [f"2F{i} 3F{i}" for i in rounds] + [f"3BW{i}" for i in rounds] + [f"2BW{i}" for i in rounds]
    schedule = schedule_orders(sliced(2, 4, 2), orders_of(" ".join(first), " ".join(second)))
    case = FlowCase(schedule=schedule, model="carrying", division=division, slice_positions=(5, 1))
    check(pool.run(2, flow_against_reference, case))


def test_directions_of_slices_and_replicas_of_the_pipeline(pool):
    """Groups multiply: two directions of two replicas hold every stage four times."""
    problem = flow([(0, 1), (1, 0)], [2, 1], stage=SUMMED, num_slices=2)
    check(pool.run(4, flow_against_reference, FlowCase(schedule=drawn(problem))))


def test_directions_of_slices_may_recompute_and_share_the_update(pool):
    """Every rank that holds a stage updates a share of it."""
    problem = flow([(0, 1), (1, 0)], [2, 1], num_slices=2)
    case = FlowCase(schedule=drawn(problem), recompute=True, exchange=Exchange.REDUCE_SCATTER)
    check(pool.run(4, flow_against_reference, case))


def test_a_chain_may_say_when_its_gradients_are_summed(pool):
    """Over the replicas of the pipeline alone; the reference adds up each replica's first."""
    problem = uniform_problem(2, 3, SUMMED, transfer_ticks=1)
    case = FlowCase(schedule=schedule_orders(problem, serial_orders(problem)), model="mixed", dropout=0.3)
    check(pool.run(4, flow_against_reference, case), exact=True)


def test_directions_that_meet_on_a_rank_share_its_module(pool):
    """With an odd number of ranks the middle one runs the same stage of both."""
    case = FlowCase(schedule=drawn(two_directions(3)), model="mixed", dropout=0.2)
    check(pool.run(3, flow_against_reference, case))


LONGER = EITHER.map_costs(
    lambda _, cost: replace(
        cost, ticks=8 * cost.ticks, alloc_bytes=8 * cost.alloc_bytes, free_bytes=8 * cost.free_bytes
    )
)
"""Long enough to be cut into slices."""


@pytest.mark.parametrize("division", Division)
@pytest.mark.parametrize("name", ["chimera", "chimera-asymmetric", "dualpipe", "seq1f1b"])
def test_baselines_of_flows_give_the_gradients_of_one_process(pool, name, division):
    schedule = baseline_schedule(name, uniform_problem(4, 8, LONGER, transfer_ticks=1))
    case = FlowCase(schedule=schedule, division=division, steps=2)
    check(pool.run(4, flow_against_reference, case), exact=name != "seq1f1b")


def on_few_ranks(name: str, num_ranks: int) -> Schedule | None:
    """A baseline with as many chunks as it needs, where it exists for so many ranks."""
    for chunks, kind in ((1, PlacementKind.LOOP), (2, PlacementKind.LOOP), (2, PlacementKind.V)):
        problem = uniform_problem(
            num_ranks, 2 * num_ranks, LONGER, chunks=chunks, kind=kind, transfer_ticks=1
        )
        with suppress(BaselineUndefinedError):
            return baseline_schedule(name, problem)
    return None


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_on_two_and_three_ranks(pool, name):
    """With dropout, bit for bit but for slices and where backwards run from the last microbatch on."""
    schedules = [on_few_ranks(name, 2), on_few_ranks(name, 3)]
    assert schedules[0] is not None
    for schedule in filter(None, schedules):
        model = "llama" if name == "seq1f1b" else "mixed"
        case = FlowCase(schedule=schedule, model=model, dropout=0.3, steps=2)
        outcomes = pool.run(schedule.problem.num_ranks, flow_against_reference, case)
        check(outcomes, exact=name not in ("seq1f1b", "looped-bfs"))


@given(flows_with_orders(), st.sampled_from(Division), st.sampled_from(["llama", "running", "carrying"]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_any_flow_gives_the_gradients_of_one_process(pool, drawn_flow, division, model):
    problem, orders = drawn_flow
    case = FlowCase(schedule=schedule_orders(problem, orders), model=model, division=division, steps=2)
    check(pool.run(problem.num_ranks, flow_against_reference, case))


REFUSALS = {
    "no slices": (
        FlowCase(schedule=drawn(sliced()), model="mixed"),
        r"part \d of stage \d of the model has no forward_slice, which sequence slices need: give it one",
    ),
    "lengths": (
        FlowCase(schedule=drawn(sliced()), slice_positions=(3, 4)),
        r"a microbatch, \(2, 6\) of int64, cannot be cut into slices of 3, 4 positions: .* give 3 numbers",
    ),
    "lengths without slices": (
        FlowCase(schedule=drawn(two_directions()), slice_positions=(3, 3)),
        "slices of 3, 3 positions are given for a schedule without slices: leave them out",
    ),
    "target": (FlowCase(schedule=drawn(sliced())), "a microbatch of the target is .*: give 6 positions"),
    "weights": (
        FlowCase(schedule=drawn(two_directions())),
        "the weights of stage 0 of the model on rank 1 are not those on rank 0, its replica: start both",
    ),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_cannot_be_run_is_refused_by_all(pool, fault):
    case, says = REFUSALS[fault]
    answers = pool.run(2, flow_refused, case, fault)
    assert {name for name, _ in answers} <= {"InputError", "PeerError"}
    assert "InputError" in {name for name, _ in answers}
    for _, text in answers:
        assert re.search(says, text), text
