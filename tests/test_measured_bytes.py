"""Bytes of a measured step: what was put into a made-up one comes back, and what chance adds does not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.baselines import baseline_orders
from synth.measured import HeldBytes
from synth.measured_bytes import limit_is_of_other_bytes
from synth.measured_costs import caveats, measured_problem
from synth.ops import OpKind
from synth.problem import OpCost, PlacementKind, StageCosts, uniform_problem
from synth.schedule import peak_memory_bytes
from synth.timing import schedule_orders
from tests.test_measured import as_measured

DIVIDED = StageCosts(
    F=OpCost(ticks=2, alloc_bytes=110, free_bytes=10),
    B=OpCost(ticks=2, alloc_bytes=40, free_bytes=70),
    W=OpCost(ticks=1, alloc_bytes=5, free_bytes=75),
    static_bytes=1000,
)
WHOLE = StageCosts(
    F=OpCost(ticks=2, alloc_bytes=110, free_bytes=10),
    BW=OpCost(ticks=3, alloc_bytes=30, free_bytes=130),
    static_bytes=1000,
)
NOMINAL = StageCosts(
    F=OpCost(ticks=2, alloc_bytes=2),
    B=OpCost(ticks=2, free_bytes=1),
    W=OpCost(ticks=1, free_bytes=1),
    BW=OpCost(ticks=3, free_bytes=2),
)


def held_by(problem, orders, gradient_bytes=0):
    """What ranks hold whose ops do as the problem says; the first W or BW of a stage brings its gradients."""
    found = []
    for static, order in zip(problem.static_bytes_by_rank, orders, strict=True):
        live, most, after, brought = static, [], [], set()
        for op in order:
            cost = problem.stages[op.stage].cost(op.kind)
            brings = op.kind in (OpKind.W, OpKind.BW) and op.stage not in brought
            extra = gradient_bytes if brings else 0
            brought |= {op.stage} if brings else set()
            most.append(live + cost.alloc_bytes + extra)
            live += cost.alloc_bytes - cost.free_bytes + extra
            after.append(live)
        found.append(HeldBytes(start_bytes=static, most_bytes=tuple(most), after_bytes=tuple(after)))
    return tuple(found)


def timeline_of(problem, orders, *, known=None, gradient_bytes=0):
    """A step of a problem that knows other costs than those that it ran with."""
    held = held_by(problem, orders, gradient_bytes)
    made = as_measured(schedule_orders(problem, orders))
    peaks = tuple(max(rank.most_bytes) for rank in held)
    return replace(made, problem=known or problem, peak_memory_bytes=peaks, held_bytes=held)


@pytest.mark.parametrize(("stage", "name"), [(DIVIDED, "zb-h1"), (WHOLE, "1f1b"), (DIVIDED, "zb-h2")])
def test_bytes_of_a_step_come_back(stage, name):
    problem = uniform_problem(3, 6, stage)
    orders = baseline_orders(name, problem)
    nominal = replace(problem, stages=tuple(forms_of(stage, NOMINAL) for _ in problem.stages))
    assert measured_problem(timeline_of(problem, orders, known=nominal)).stages == problem.stages


def forms_of(stage, costs):
    """The forms of the backward that a stage offers, at other costs."""
    offered = {kind.value: costs.cost(kind) for kind, _ in stage.offered}
    return StageCosts(F=costs.F, B=offered.get("B"), W=offered.get("W"), BW=offered.get("BW"))


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from(("zb-h1", "gpipe", "v-half", "1f1b-v")))
@settings(deadline=None)
def test_orders_that_ran_come_to_the_peaks_that_were_measured(gradient_bytes, num_microbatches, name):
    """Whatever a rank held besides; but for gradients that come behind its peak."""
    kind, chunks = (PlacementKind.V, 2) if "v" in name else (PlacementKind.LOOP, 1)
    stage = replace(DIVIDED, BW=WHOLE.BW)
    problem = uniform_problem(2, num_microbatches, stage, chunks=chunks, kind=kind)
    orders = baseline_orders(name, problem)
    timeline = timeline_of(problem, orders, gradient_bytes=gradient_bytes)
    timeline = replace(timeline, peak_memory_bytes=tuple(peak + 77 for peak in timeline.peak_memory_bytes))
    measured = measured_problem(timeline)
    for rank, (peak, measured_peak) in enumerate(
        zip(peak_memory_bytes(measured, orders), timeline.peak_memory_bytes, strict=True)
    ):
        later = gradient_bytes * len(problem.stages_by_rank[rank])
        assert measured_peak <= peak <= measured_peak + later
    for costs in measured.stages:
        assert costs.F.alloc_bytes - costs.F.free_bytes == 100


def test_first_weight_gradients_are_no_part_of_an_op():
    problem = uniform_problem(2, 4, DIVIDED)
    timeline = timeline_of(problem, baseline_orders("zb-h1", problem), gradient_bytes=500)
    measured = measured_problem(timeline)
    assert [replace(costs, static_bytes=1000) for costs in measured.stages] == [DIVIDED] * 2
    assert {costs.static_bytes for costs in measured.stages} == {1500}


@pytest.mark.parametrize(("ran", "planned"), [("zb-h1", "2bp-gpipe"), ("2bp-gpipe", "zb-h1")])
def test_peak_of_another_order_follows(ran, planned):
    """With gradients throughout, whenever they came."""
    problem = uniform_problem(2, 6, DIVIDED)
    timeline = timeline_of(problem, baseline_orders(ran, problem), gradient_bytes=300)
    others = baseline_orders(planned, problem)
    expected = tuple(peak + 300 for peak in peak_memory_bytes(problem, others))
    assert peak_memory_bytes(measured_problem(timeline), others) == expected


def test_backward_that_ran_whole_says_nothing_of_what_b_frees():
    problem = uniform_problem(2, 4, WHOLE)
    known = replace(problem, stages=(NOMINAL,) * 2)
    for costs in measured_problem(timeline_of(problem, baseline_orders("1f1b", problem), known=known)).stages:
        assert (costs.F, costs.BW.free_bytes) == (WHOLE.F, WHOLE.BW.free_bytes)
        assert costs.B.alloc_bytes == costs.B.free_bytes == WHOLE.BW.alloc_bytes
        assert costs.W.free_bytes - costs.W.alloc_bytes == 100


def test_backward_that_did_not_run_keeps_bytes_like_the_measured():
    problem = uniform_problem(2, 4, WHOLE)
    known = replace(problem, stages=(replace(DIVIDED, BW=NOMINAL.BW),) * 2)
    for costs in measured_problem(timeline_of(problem, baseline_orders("1f1b", problem), known=known)).stages:
        assert (costs.F, costs.BW.free_bytes) == (WHOLE.F, WHOLE.BW.free_bytes)
        for kind in (OpKind.B, OpKind.W):
            assert costs.cost(kind).alloc_bytes == DIVIDED.cost(kind).alloc_bytes
            assert costs.cost(kind).free_bytes == DIVIDED.cost(kind).free_bytes


def test_static_bytes_are_shared_as_before():
    problem = uniform_problem(1, 2, WHOLE, chunks=3)
    orders = baseline_orders("gpipe", problem)
    for before, after in (
        ((1, 1, 2), (750, 750, 1500)),
        ((0, 0, 0), (1000, 1000, 1000)),
        ((0, 5, 0), (0, 3000, 0)),
    ):
        stages = tuple(replace(WHOLE, static_bytes=each) for each in before)
        measured = measured_problem(timeline_of(problem, orders, known=replace(problem, stages=stages)))
        assert tuple(costs.static_bytes for costs in measured.stages) == after


def test_limit_below_what_the_run_held_is_left_out_and_said_so():
    problem = uniform_problem(2, 4, WHOLE)
    orders = baseline_orders("1f1b", problem)
    kept, left_out = problem.with_memory_limit(1200), problem.with_memory_limit(8)
    assert not limit_is_of_other_bytes(timeline_of(problem, orders, known=kept))
    assert measured_problem(timeline_of(problem, orders, known=kept)).memory_limit_bytes == (1200, 1200)
    assert caveats(timeline_of(problem, orders, known=kept)) == ()
    timeline = timeline_of(problem, orders, known=left_out)
    assert measured_problem(timeline).memory_limit_bytes is None
    (said,) = caveats(timeline)
    assert "the problem's memory limit is left out" in said


def test_without_them_bytes_stay_and_the_caveat_says_so():
    problem = uniform_problem(2, 4, WHOLE)
    timeline = replace(timeline_of(problem, baseline_orders("1f1b", problem)), held_bytes=None)
    assert measured_problem(timeline).stages == problem.stages
    assert caveats(timeline) == ("the timeline does not say what ops hold, so bytes stay as they were",)
