"""Costs of a measured step, by hand and by closed form: what was put into a made-up step comes back."""

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synth.flows import Direction, with_directions
from synth.measured_costs import caveats, measured_problem, with_time_before
from synth.ops import Op, OpKind
from synth.problem import Links, OpCost, StageCosts, uniform_problem
from synth.schedule import measure
from synth.timeline import transfers
from synth.timing import schedule_orders
from tests.builders import good_schedule, orders_of
from tests.strategies import problems_with_orders
from tests.test_measured import as_measured, late_starts, replace_ticks


def ran_kinds(orders):
    return {(op.stage, op.kind) for order in orders for op in order}


@given(problems_with_orders(links=(Links.FREE,)))
@settings(deadline=None)
def test_costs_measured_of_a_replay_replay_to_the_same(drawn):
    """Where every op took its time, the measured costs give the makespan again."""
    problem, orders = drawn
    plan = schedule_orders(problem, orders)
    measured = measured_problem(as_measured(plan, begin_ns=99))
    for stage, kind in ran_kinds(orders):
        assert measured.stages[stage].cost(kind) == problem.stages[stage].cost(kind)
    assert measure(schedule_orders(measured, orders)).makespan == measure(plan).makespan


@given(problems_with_orders(links=(Links.FREE,)), st.integers(0, 2000))
@settings(deadline=None)
def test_time_to_get_to_an_op_comes_back_as_its_own(drawn, late_ns):
    """Every op starts late in its time, of three ticks or more: times, transfers and makespan are the plan's.

    On a rank all of whose ops but the first await messages, nothing says for sure what it waits for.
    """
    plan = replace_ticks(schedule_orders(*drawn), 3)
    timeline = late_starts(as_measured(plan, begin_ns=10**6), late_ns)
    plain = with_time_before(as_measured(plan, begin_ns=10**6))
    consumers = {transfer.consumer for transfer in transfers(plan)}
    assume(all(any(op not in consumers for op, _, _ in rank[1:]) for rank in plan.ranks))
    assert with_time_before(timeline).ranks == plain.ranks
    measured = measured_problem(timeline)
    assert measured.transfer_ticks == plan.problem.transfer_ticks
    assert measure(schedule_orders(measured, plan.orders)).makespan == measure(plan).makespan


def test_gaps_are_those_of_a_stage_and_kind():
    """Before every F of stage 0 its rank takes 1 us, before every W of stage 1 another takes 2."""
    plan = replace_ticks(good_schedule(), 4)
    gaps_ns = {(0, OpKind.F): 1000, (1, OpKind.W): 2000}
    timeline = as_measured(plan, begin_ns=10**6)
    ranks = tuple(
        tuple(
            ran._replace(start_ns=ran.start_ns + gaps_ns.get((ran.op.stage, ran.op.kind), 0)) for ran in rank
        )
        for rank in timeline.ranks
    )
    measured = measured_problem(replace(timeline, ranks=ranks))
    assert measured.stages[0].F.ticks == plan.problem.stages[0].F.ticks
    assert measured.stages[1].W.ticks == plan.problem.stages[1].W.ticks


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


def test_op_takes_the_mean_of_its_stage():
    """So that what a step takes in all is kept: one of four W of a tick takes 9."""
    stage = StageCosts(F=OpCost(ticks=1), B=OpCost(ticks=1), W=OpCost(ticks=1))
    problem = uniform_problem(1, 4, stage)
    plan = schedule_orders(problem, orders_of("0F0 0B0 0F1 0B1 0F2 0B2 0F3 0B3 0W0 0W1 0W2 0W3"))
    timeline = as_measured(plan)
    *others, last = timeline.ranks[0]
    slow = replace(timeline, ranks=((*others, last._replace(end_ns=last.end_ns + 8000)),), source="a step")
    measured = measured_problem(slow)
    assert measured.stages[0].W.ticks == 3
    assert measured.source == "measured: a step"


def test_form_of_the_backward_that_did_not_run_keeps_its_ratio():
    stage = StageCosts(F=OpCost(ticks=10), B=OpCost(ticks=12), W=OpCost(ticks=6), BW=OpCost(ticks=20))
    problem = uniform_problem(1, 2, stage)
    whole = as_measured(schedule_orders(problem, orders_of("0F0 0BW0 0F1 0BW1")), tick_ns=500)
    parts = as_measured(schedule_orders(problem, orders_of("0F0 0B0 0W0 0F1 0B1 0W1")), tick_ns=500)
    for timeline in (whole, parts):
        (measured,) = measured_problem(timeline).stages
        assert [cost.ticks for _, cost in measured.offered] == [5, 6, 3, 10]
    assert caveats(whole)[0].startswith("0B, 0W did not run")
    assert caveats(parts)[0].startswith("0BW did not run")


def test_rank_that_waits_for_a_sum_is_not_on_its_way_to_it():
    """R awaits the other rank's weight gradients, 10 ticks long: its wait is no part of its time."""
    fast, slow = (StageCosts(F=OpCost(ticks=3), BW=OpCost(ticks=t), R=OpCost(ticks=3)) for t in (4, 10))
    chain = replace(uniform_problem(2, 3, fast), stages=(fast, slow))
    problem = with_directions(chain, [Direction((0, 1), (0, 2)), Direction((1, 0), (1,))])
    orders = orders_of("0F0 3F1 3BW1 0F2 3R0 0BW0 0BW2 0R0", "2F1 1F0 1BW0 1F2 1BW2 2BW1 2R0 1R0")
    plan = schedule_orders(problem, orders)
    *_, before, summed = plan.ranks[0][:5]
    assert summed.start - before.end == 32 - 19
    measured = measured_problem(late_starts(as_measured(plan, begin_ns=10**6), 1000))
    assert [stage.R.ticks for stage in measured.stages] == [3] * 4


def test_time_before_the_first_op_is_its_kinds():
    plan = replace_ticks(good_schedule(), 3)
    timeline = late_starts(as_measured(plan, begin_ns=10**6), 1000)
    assert with_time_before(timeline).ranks[0][0].start_ns == 10**6
    assert timeline.ranks[0][0].op == Op(OpKind.F, 0, 0)
