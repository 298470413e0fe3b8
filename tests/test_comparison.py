"""Plan against measurement, by hand and by closed form."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from synth.comparison import compare_with_timeline
from synth.errors import InputError
from synth.measured_costs import measured_problem
from synth.ops import Op, OpKind
from synth.problem import Links
from synth.schedule import measure
from synth.timing import schedule_orders
from tests.builders import good_schedule, orders_of
from tests.strategies import problems_with_orders
from tests.test_measured import as_measured


def test_step_that_ran_as_planned_has_no_error():
    plan = good_schedule()
    comparison = compare_with_timeline(plan, as_measured(plan, begin_ns=5_000))
    assert (comparison.makespan.planned_s, comparison.makespan.measured_s) == pytest.approx((15e-6, 15e-6))
    assert comparison.rank_span.error == pytest.approx(0, abs=1e-9)
    assert [row.busy.measured_s for row in comparison.ranks] == pytest.approx([10e-6, 10e-6])
    assert [row.planned_peak_bytes for row in comparison.ranks] == [4, 3]
    assert {row.measured_peak_bytes for row in comparison.ranks} == {None}
    assert [(op.stage, op.kind, op.count) for op in comparison.ops] == [
        (stage, kind, 2) for stage in (0, 1) for kind in (OpKind.B, OpKind.F, OpKind.W)
    ]


def test_error_is_the_plan_over_what_it_took():
    """Every op takes twice its time and the whole step twice the makespan."""
    plan = good_schedule()
    timeline = replace(as_measured(plan, tick_ns=2000), peak_memory_bytes=(7, 8))
    comparison = compare_with_timeline(plan, timeline)
    errors = [comparison.makespan.error, comparison.rank_span.error]
    errors += [op.times.error for op in comparison.ops]
    errors += [times.error for row in comparison.ranks for times in (row.span, row.busy)]
    assert errors == pytest.approx([-0.5] * len(errors))
    assert [row.measured_peak_bytes for row in comparison.ranks] == [7, 8]


def test_timeline_of_other_orders_is_refused():
    plan = good_schedule()
    other = schedule_orders(plan.problem, orders_of("0F0 0F1 0B0 0B1 0W0 0W1", "1F0 1B0 1F1 1B1 1W0 1W1"))
    with pytest.raises(InputError, match="another schedule: op 3 of rank 0 is 0B1 there, 0W0 here"):
        compare_with_timeline(plan, as_measured(other))
    full = as_measured(plan)
    short = replace(full, ranks=(full.ranks[0], full.ranks[1][:-1]))
    with pytest.raises(InputError, match=r"its ranks ran \[6, 5\] ops, not \[6, 6\]"):
        compare_with_timeline(plan, short)


@given(problems_with_orders(links=(Links.FREE,)))
@settings(deadline=None)
def test_costs_measured_of_a_replay_replay_to_the_same(drawn):
    """Where every op took its time, the measured costs give the makespan again."""
    problem, orders = drawn
    plan = schedule_orders(problem, orders)
    measured = measured_problem(as_measured(plan, begin_ns=99))
    ran = {(op.stage, op.kind) for order in orders for op in order}
    for stage, costs in enumerate(problem.stages):
        for kind, cost in costs.offered:
            if (stage, kind) in ran:
                assert measured.stages[stage].cost(kind) == cost
    assert measure(schedule_orders(measured, orders)).makespan == measure(plan).makespan


def test_transfer_is_what_a_waiting_rank_waited():
    """Rank 1 is idle before its F0 alone, 5 ticks behind 0F0; rank 0 before its B0 alone, 7 behind 1B0."""
    plan = good_schedule()
    timeline = as_measured(plan)
    first, *others = timeline.ranks[1]
    early = first._replace(start_ns=7000, end_ns=8000)
    busy = [ran._replace(start_ns=ran.start_ns + 3000, end_ns=ran.end_ns + 3000) for ran in others]
    moved = [
        ran._replace(start_ns=ran.start_ns + 9000, end_ns=ran.end_ns + 9000) for ran in timeline.ranks[0]
    ]
    early_ends = replace(timeline, ranks=((*timeline.ranks[0][:2], *moved[2:]), (early, *busy)))
    matrix = measured_problem(early_ends).transfer_ticks
    assert matrix[0][1] == 5
    assert matrix[1][0] == 7


def test_op_takes_the_median_of_its_stage():
    plan = good_schedule()
    timeline = as_measured(plan)
    slow = tuple(
        ran._replace(end_ns=ran.end_ns + 3000) if ran.op == Op(OpKind.W, 0, 1) else ran
        for ran in timeline.ranks[0]
    )
    measured = measured_problem(replace(timeline, ranks=(slow, timeline.ranks[1]), source="a step"))
    assert measured.stages[0].W.ticks == round((1 + 4) / 2)
    assert measured.stages[1].W.ticks == 1
    assert measured.source == "measured: a step"
