"""Plan against measurement, by hand and by closed form."""

from dataclasses import replace

import pytest

from synth.comparison import compare_with_timeline
from synth.errors import InputError
from synth.ops import OpKind
from synth.timing import schedule_orders
from tests.builders import good_schedule, orders_of
from tests.test_measured import as_measured, late_starts, replace_ticks


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


def test_time_before_an_op_belongs_to_it():
    """Every op of 3 ticks takes its first one to get there: what is compared is the plan."""
    plan = replace_ticks(good_schedule(), 3)
    comparison = compare_with_timeline(plan, late_starts(as_measured(plan), 1000))
    errors = [comparison.makespan.error, comparison.rank_span.error]
    errors += [op.times.error for op in comparison.ops]
    errors += [times.error for row in comparison.ranks for times in (row.span, row.busy)]
    assert errors == pytest.approx([0] * len(errors), abs=1e-9)
