"""The verifier: each rule broken alone, anything at all survived, and agreement with what makes schedules."""

import ast
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, good_schedule, schedule_of, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems, problems_with_orders

import synth.verify
from synth.certificate import Certificate
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem
from synth.rules import Rule
from synth.schedule import Metrics, Schedule, measure, peak_memory_bytes
from synth.timing import schedule_orders
from synth.verify import MISSING_NAMED, Violation, verify_schedule

RANK_0 = "0F0@0 0F1@2 0B0@8 0W0@10 0B1@12 0W1@14"
RANK_1 = "1F0@3 1B0@5 1F1@7 1B1@9 1W0@11 1W1@12"
GOOD = Metrics(makespan=15, rank_span=15, work=10, bubble_ratio=1 / 3, peak_memory_bytes=(4, 3))
CERTIFIED = Certificate(objective=Objective.MAKESPAN, value=15, lower_bound=13, bound_from="hand")


def found(violation: Violation) -> tuple:
    return violation.rule, violation.rank, " ".join(map(str, violation.ops)), violation.amount


def broken(schedule: Schedule, **stated) -> list[tuple]:
    """The violations, short."""
    return [found(violation) for violation in verify_schedule(schedule, **stated)]


def test_good_schedule_has_no_violations():
    assert verify_schedule(good_schedule(), metrics=GOOD, certificate=CERTIFIED) == []


ALONE = [
    # what the ranks list, and the one violation: rule, rank, ops, amount
    pytest.param(RANK_0 + " 0F0@20", RANK_1, ("every_op_once", 0, "0F0", 1), id="twice"),
    pytest.param(RANK_0, RANK_1.replace(" 1W1@12", ""), ("every_op_once", 1, "1W1", 1), id="no W"),
    pytest.param(RANK_0.replace(" 0B1@12", ""), RANK_1, ("every_op_once", 0, "0B1", 1), id="W without B"),
    pytest.param(RANK_0.replace("0F1@2 ", ""), RANK_1, ("every_op_once", 0, "0F1", 1), id="no F"),
    pytest.param(RANK_0 + " 0BW1@20", RANK_1, ("every_op_once", 0, "0BW1", 1), id="kind not offered"),
    pytest.param(RANK_0 + " 2F0@20", RANK_1, ("every_op_once", 0, "2F0", 1), id="absent stage"),
    pytest.param(RANK_0 + " 0F2@20", RANK_1, ("every_op_once", 0, "0F2", 1), id="absent microbatch"),
    pytest.param(
        RANK_0 + " 1W1@20", RANK_1.replace(" 1W1@12", ""), ("op_on_its_rank", 0, "1W1", 1), id="wrong rank"
    ),
    pytest.param(RANK_0.replace("0W1@14", "0W1@14_17"), RANK_1, ("op_duration", 0, "0W1", 2), id="long"),
    pytest.param(RANK_0, RANK_1.replace("1F0@3", "1F0@3_4"), ("op_duration", 1, "1F0", 1), id="short"),
    pytest.param(RANK_0.replace("0W1@14", "0W1@14_12"), RANK_1, ("op_duration", 0, "0W1", 3), id="backwards"),
    pytest.param(
        RANK_0,
        RANK_1.replace("1W0@11 1W1@12", "1W1@12 1W0@11"),
        ("listed_in_order", 1, "1W1 1W0", 1),
        id="listed late",
    ),
    pytest.param(
        RANK_0, RANK_1.replace("1W0@11", "1W0@10"), ("no_overlap_on_rank", 1, "1B1 1W0", 1), id="overlap"
    ),
]


@pytest.mark.parametrize(("rank_0", "rank_1", "expected"), ALONE)
def test_one_rule_broken_alone(rank_0, rank_1, expected):
    assert broken(schedule_of(two_by_two(), rank_0, rank_1)) == [expected]


def test_all_violations_are_found():
    """Two at once on one rank, one on the other; the rules come in their order."""
    ranks = RANK_0.replace("0F1@2", "0F1@1"), RANK_1.replace("1F0@3", "1F0@2").replace("1W1@12", "1W1@10")
    assert broken(schedule_of(two_by_two(), *ranks)) == [
        ("listed_in_order", 1, "1W0 1W1", 1),
        ("no_overlap_on_rank", 0, "0F0 0F1", 1),
        ("no_overlap_on_rank", 1, "1B1 1W1", 1),
        ("weight_after_backward", 1, "1B1 1W1", 1),
        ("transfer_time", 1, "0F0 1F0", 1),
    ]


def test_a_long_op_overlaps_all_that_start_within_it():
    late = "1W1@12_30 1F0@15 1B0@20_21 1F1@29"
    overlaps = [
        v for v in verify_schedule(schedule_of(two_by_two(), "", late)) if v.rule == "no_overlap_on_rank"
    ]
    assert [found(violation)[1:] for violation in overlaps] == [
        (1, "1W1 1F0", 15),
        (1, "1W1 1B0", 10),
        (1, "1W1 1F1", 1),
    ]


def test_a_third_list_is_one_too_many():
    schedule = good_schedule()
    assert broken(replace(schedule, ranks=(*schedule.ranks, ()))) == [(Rule.ONE_LIST_PER_RANK, None, "", 1)]


def test_forward_chain():
    schedule = schedule_of(two_by_two(), RANK_0, RANK_1.replace("1F0@3", "1F0@1"))
    (violation,) = verify_schedule(schedule)
    assert found(violation) == (Rule.FORWARD_CHAIN, 1, "0F0 1F0", 1)
    assert violation.times == (2, 1)
    assert str(violation) == "forward_chain: 1F0 starts on rank 1 at 1, 1 tick before 0F0 ends at 2"


def test_backward_chain():
    ranks = "0F0@0 0F1@2 0B0@6 0W0@10 0B1@12 0W1@14"
    assert broken(schedule_of(two_by_two(), ranks, RANK_1)) == [(Rule.BACKWARD_CHAIN, 0, "1B0 0B0", 1)]


def test_backward_after_forward():
    ranks = "1B0@1 1F0@3 1F1@7 1B1@9 1W0@11 1W1@12"
    assert broken(schedule_of(two_by_two(), RANK_0, ranks)) == [
        (Rule.BACKWARD_AFTER_FORWARD, 1, "1F0 1B0", 4)
    ]


def test_weight_after_backward():
    ranks = "0F0@0 0F1@2 0W0@7 0B0@8 0B1@12 0W1@14"
    assert broken(schedule_of(two_by_two(), ranks, RANK_1)) == [(Rule.WEIGHT_AFTER_BACKWARD, 0, "0B0 0W0", 3)]


def test_transfer_time():
    schedule = schedule_of(two_by_two(), RANK_0, RANK_1.replace("1F0@3", "1F0@2"))
    (violation,) = verify_schedule(schedule)
    assert found(violation) == (Rule.TRANSFER_TIME, 1, "0F0 1F0", 1)
    assert str(violation) == (
        "transfer_time: 1F0 starts on rank 1 at 2, 1 tick before the transfer from 0F0 arrives at 3, "
        "1 tick after it ends"
    )


EXCLUSIVE = (
    # Transfers of 4: 0F0's holds the link from 2 to 6, so 0F1's, ready at 4, arrives at 10, not at 8.
    "0F0@0 0F1@2 0B0@14 0W0@16 0B1@20 0W1@22",
    "1F0@6 1B0@8 1F1@10 1B1@12 1W0@14 1W1@15",
)


def test_exclusive_link():
    problem = two_by_two(transfer_ticks=4, links=Links.EXCLUSIVE)
    assert broken(schedule_of(problem, *EXCLUSIVE)) == []
    early = "0F0@0 0F1@2 0B0@16 0W0@18 0B1@20 0W1@22", "1F0@6 1F1@8 1B0@10 1B1@12 1W0@14 1W1@15"
    (violation,) = verify_schedule(schedule_of(problem, *early))
    assert found(violation) == (Rule.EXCLUSIVE_LINK, 1, "0F1 1F1", 2)
    assert violation.times == (10, 8)
    assert str(violation) == (
        "exclusive_link: 1F1 starts on rank 1 at 8, 2 ticks before the transfer from 0F1 arrives at 10, "
        "held up 2 ticks by others on its link"
    )
    assert broken(schedule_of(two_by_two(transfer_ticks=4), *early)) == []


def test_a_link_serves_by_the_end_of_producers_not_by_the_listing():
    problem = two_by_two(transfer_ticks=4, links=Links.EXCLUSIVE)
    swapped = EXCLUSIVE[0].replace("0F0@0 0F1@2", "0F1@2 0F0@0")
    assert broken(schedule_of(problem, swapped, EXCLUSIVE[1])) == [(Rule.LISTED_IN_ORDER, 0, "0F1 0F0", 2)]


def test_exclusive_link_leaves_the_transfer_itself_to_transfer_time():
    """1F1 starts before its transfer could arrive even on a free link."""
    problem = two_by_two(transfer_ticks=4, links=Links.EXCLUSIVE)
    ranks = "0F0@0 0F1@2 0B0@17 0W0@19 0B1@21 0W1@23", "1F1@7 1F0@9 1B0@11 1B1@13 1W0@15 1W1@16"
    assert broken(schedule_of(problem, *ranks)) == [(Rule.TRANSFER_TIME, 1, "0F1 1F1", 1)]


def test_memory_limit():
    assert broken(good_schedule(two_by_two(memory_limit_bytes=(4, 3)))) == []
    (violation,) = verify_schedule(good_schedule(two_by_two(memory_limit_bytes=(3, 3))))
    assert found(violation) == (Rule.MEMORY_LIMIT, 0, "0F1", 1)
    assert str(violation) == (
        "memory_limit: rank 0 holds up to 4 bytes, 1 over its limit of 3; "
        "first over it at 0F1, which starts at 2"
    )
    assert broken(good_schedule(two_by_two(memory_limit_bytes=(0, 2)))) == [
        (Rule.MEMORY_LIMIT, 0, "0F0", 4),
        (Rule.MEMORY_LIMIT, 1, "1F1", 1),
    ]


def test_memory_follows_the_times_not_the_listing():
    problem = two_by_two(memory_limit_bytes=(3, 3))
    swapped = RANK_0.replace("0F1@2 0B0@8", "0B0@8 0F1@2")
    assert broken(schedule_of(problem, swapped, RANK_1)) == [
        (Rule.LISTED_IN_ORDER, 0, "0B0 0F1", 6),
        (Rule.MEMORY_LIMIT, 0, "0F1", 1),
    ]


def test_static_bytes_alone_over_the_limit():
    problem = two_by_two(replace(DIVIDED, static_bytes=5), memory_limit_bytes=(4, 8))
    (violation,) = verify_schedule(good_schedule(problem))
    assert found(violation) == (Rule.MEMORY_LIMIT, 0, "", 5)
    assert "its 5 static bytes alone are over it" in str(violation)


@pytest.mark.parametrize(
    ("change", "rank", "amount"),
    [
        ({"makespan": 14}, None, 1),
        ({"rank_span": 17}, None, 2),
        ({"work": 0}, None, 10),
        ({"bubble_ratio": 0.0}, None, pytest.approx(1 / 3)),
        ({"bubble_ratio": math.nan}, None, pytest.approx(math.nan, nan_ok=True)),
        ({"peak_memory_bytes": (4, 1)}, 1, 2),
        ({"peak_memory_bytes": (4,)}, None, 1),
    ],
)
def test_stated_metrics(change, rank, amount):
    assert broken(good_schedule(), metrics=replace(GOOD, **change)) == [
        (Rule.STATED_METRICS, rank, "", amount)
    ]


def test_stated_bubble_ratio_is_of_the_problems_objective():
    schedule = schedule_of(
        two_by_two(objective=Objective.RANK_SPAN), RANK_0, RANK_1.replace("1W1@12", "1W1@15")
    )
    stated = Metrics(makespan=16, rank_span=15, work=10, bubble_ratio=1 - 10 / 15, peak_memory_bytes=(4, 3))
    assert broken(schedule, metrics=stated) == []


@pytest.mark.parametrize(
    ("change", "amount"),
    [
        ({"objective": Objective.RANK_SPAN}, 1),
        ({"value": 14}, 1),
        ({"value": 18}, 3),
        ({"lower_bound": 16}, 1),
        ({"lower_bound": -2}, 2),
    ],
)
def test_stated_certificate(change, amount):
    assert broken(good_schedule(), certificate=replace(CERTIFIED, **change)) == [
        (Rule.STATED_CERTIFICATE, None, "", amount)
    ]


def test_a_backward_is_divided_or_not():
    problem = two_by_two(EITHER)
    assert broken(good_schedule(problem)) == []
    either_way = schedule_of(problem, "0F0@0 0F1@2 0BW0@8 0B1@12 0W1@14", RANK_1)
    assert broken(either_way) == []
    both = schedule_of(problem, RANK_0 + " 0BW1@15", RANK_1)
    assert broken(both) == [(Rule.EVERY_OP_ONCE, 0, "0B1 0W1 0BW1", 1)]
    neither = schedule_of(problem, "0F0@0 0F1@2 0BW0@8", RANK_1)
    (violation,) = verify_schedule(neither)
    assert str(violation) == "every_op_once: no rank lists 0BW1 (or B and W); it belongs on rank 0"


def test_undivided_chain():
    problem = two_by_two(UNDIVIDED)
    ranks = "0F0@0 0F1@2 0BW0@9 0BW1@14", "1F0@3 1BW0@5 1F1@8 1BW1@10"
    assert broken(schedule_of(problem, *ranks)) == []
    early = ranks[0].replace("0BW0@9", "0BW0@8")
    assert broken(schedule_of(problem, early, ranks[1])) == [(Rule.TRANSFER_TIME, 0, "1BW0 0BW0", 1)]


def test_empty_schedule_misses_everything():
    violations = verify_schedule(Schedule(two_by_two(), ()), metrics=GOOD, certificate=CERTIFIED)
    assert [v.rule for v in violations].count(Rule.EVERY_OP_ONCE) == 12
    assert {v.rule for v in violations} == {
        Rule.ONE_LIST_PER_RANK,
        Rule.EVERY_OP_ONCE,
        Rule.STATED_METRICS,
        Rule.STATED_CERTIFICATE,
    }


def test_any_number_of_missing_microbatches_is_answered():
    problem = two_by_two(num_microbatches=10**12)
    violations = verify_schedule(Schedule(problem, good_schedule().ranks))
    assert len(violations) == 6 * (MISSING_NAMED + 1)
    assert sum(violation.amount for violation in violations) == 6 * (10**12 - 2)


OPS = st.builds(Op, st.sampled_from(OpKind), st.integers(-2, 4), st.integers(-2, 4))
TIMES = st.integers(-9, 30)
LISTS = st.lists(st.lists(st.builds(TimedOp, OPS, TIMES, TIMES), max_size=12), max_size=5)
ANY_METRICS = st.builds(Metrics, TIMES, TIMES, TIMES, st.floats(), st.lists(TIMES, max_size=5).map(tuple))
ANY_CERTIFICATE = st.builds(
    Certificate,
    objective=st.sampled_from(Objective),
    value=TIMES,
    lower_bound=TIMES,
    bound_from=st.just(""),
)


@settings(max_examples=200)
@given(problems(with_limit=True), LISTS, ANY_METRICS, ANY_CERTIFICATE)
def test_never_raises_and_always_finds_it(problem, lists, metrics, certificate):
    schedule = Schedule(problem, tuple(map(tuple, lists)))
    violations = verify_schedule(schedule, metrics=metrics, certificate=certificate)
    again = verify_schedule(schedule, metrics=metrics, certificate=certificate)
    assert list(map(str, violations)) == list(map(str, again))
    assert all(violation.amount > 0 or math.isnan(violation.amount) for violation in violations)
    assert all(str(violation).startswith(f"{violation.rule}: ") for violation in violations)


@settings(max_examples=200)
@given(problems_with_orders())
def test_agrees_with_timing_and_metrics(drawn):
    schedule = schedule_orders(*drawn)
    metrics = measure(schedule)
    certificate = Certificate(
        objective=schedule.problem.objective, value=schedule.value, lower_bound=0, bound_from=""
    )
    assert verify_schedule(schedule, metrics=metrics, certificate=certificate) == []


@settings(max_examples=150)
@given(problems_with_orders())
def test_memory_limit_is_sharp(drawn):
    problem, orders = drawn
    peaks = peak_memory_bytes(problem, orders)
    fitting = schedule_orders(problem.with_memory_limit(peaks), orders)
    assert verify_schedule(fitting) == []
    for rank, peak in enumerate(peaks):
        if peak:
            less = tuple(p - (r == rank) for r, p in enumerate(peaks))
            (violation,) = verify_schedule(replace(fitting, problem=problem.with_memory_limit(less)))
            assert (violation.rule, violation.rank, violation.amount) == (Rule.MEMORY_LIMIT, rank, 1)


@settings(max_examples=200)
@given(problems_with_orders(), st.randoms(use_true_random=False))
def test_in_a_tight_schedule_no_op_can_start_earlier(drawn, random):
    schedule = schedule_orders(*drawn)
    rank = random.randrange(len(schedule.ranks))
    place = random.randrange(len(schedule.ranks[rank]))
    op, start, end = schedule.ranks[rank][place]
    if start == 0:
        return
    listed = list(schedule.ranks[rank])
    listed[place] = TimedOp(op, start - 1, end - 1)
    ranks = (*schedule.ranks[:rank], tuple(listed), *schedule.ranks[rank + 1 :])
    violations = verify_schedule(Schedule(schedule.problem, ranks))
    early = [violation for violation in violations if violation.ops[-1] == op]
    assert early
    assert all(violation.amount >= 1 for violation in early)


@settings(max_examples=150)
@given(problems_with_orders(links=(Links.FREE,)))
def test_exclusive_links_refuse_exactly_what_they_delay(drawn):
    free, orders = drawn
    exclusive = replace(free, links=Links.EXCLUSIVE)
    ranks = schedule_orders(free, orders).ranks
    rules = {violation.rule for violation in verify_schedule(Schedule(exclusive, ranks))}
    delayed = schedule_orders(exclusive, orders).ranks != ranks
    assert rules == ({Rule.EXCLUSIVE_LINK} if delayed else set())


def test_shares_no_code_with_what_makes_schedules():
    tree = ast.parse(Path(synth.verify.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {module for module in modules if module.startswith("synth")}
    assert ours <= {f"synth.{name}" for name in ("certificate", "ops", "problem", "rules", "schedule")}


def test_work_grows_in_step_with_the_ops():
    """Counted in lines run, which no machine's speed changes."""
    stage = StageCosts(
        F=OpCost(ticks=1, alloc_bytes=2), B=OpCost(ticks=1, free_bytes=1), W=OpCost(ticks=1, free_bytes=1)
    )

    def lines(num_microbatches):
        problem = replace(
            uniform_problem(4, num_microbatches, stage, transfer_ticks=1, memory_limit_bytes=10**6),
            links=Links.EXCLUSIVE,
        )
        kinds = (OpKind.F, OpKind.B, OpKind.W)
        orders = tuple(
            tuple(Op(kind, s, i) for kind in kinds for i in range(num_microbatches)) for s in range(4)
        )
        schedule = schedule_orders(problem, orders)
        metrics = measure(schedule)
        count = 0

        def trace(_, event, __):
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert verify_schedule(schedule, metrics=metrics) == []
        finally:
            sys.settrace(before)
        return count

    assert lines(400) < 2.2 * lines(200)
