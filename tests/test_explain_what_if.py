"""What-if answers against the same changes made by hand."""

from dataclasses import replace
from fractions import Fraction

import pytest
from builders import DIVIDED, UNDIVIDED, two_by_two

from synth.baselines import baseline_orders
from synth.explain.what_if import (
    Answer,
    Question,
    balanced_stages,
    retimed_answers,
    search_questions,
    searched_anew,
    searched_answer,
)
from synth.instances import load_instance
from synth.ops import TimedOp
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import Schedule, measure
from synth.search.synthesizer import synthesize
from synth.timing import schedule_orders

TENS = StageCosts(
    F=OpCost(ticks=20, alloc_bytes=2),
    B=OpCost(ticks=30, free_bytes=1),
    W=OpCost(ticks=10, free_bytes=1),
)


def problem_of(objective, links=Links.FREE):
    slow = replace(TENS, F=OpCost(ticks=40, alloc_bytes=2))
    problem = uniform_problem(4, 6, TENS, transfer_ticks=6, objective=objective)
    return replace(problem, stages=(TENS, slow, TENS, TENS), links=links)


def value(problem, orders):
    return measure(schedule_orders(problem, orders)).value(problem.objective)


@pytest.mark.parametrize("links", Links)
@pytest.mark.parametrize("objective", Objective)
def test_retimed_answers_equal_the_changed_problem(objective, links):
    problem = problem_of(objective, links)
    orders = baseline_orders("zb-h1", problem)
    answers = {a.change: a for a in retimed_answers(schedule_orders(problem, orders))}
    assert {answer.before for answer in answers.values()} == {value(problem, orders)}
    halved = replace(problem, transfer_ticks=uniform_transfers(4, 3))
    assert answers["every link twice as fast"].value <= value(halved, orders)
    if objective is Objective.MAKESPAN:
        assert answers["every link twice as fast"].value == value(halved, orders)
        free = replace(problem, transfer_ticks=uniform_transfers(4, 0))
        assert answers["transfers take no time"].value == value(free, orders)
        faster = StageCosts(
            F=OpCost(ticks=36, alloc_bytes=2),
            B=OpCost(ticks=27, free_bytes=1),
            W=OpCost(ticks=9, free_bytes=1),
        )
        assert answers["stage 1 a tenth faster"].value == value(
            replace(problem, stages=(TENS, faster, TENS, TENS)), orders
        )
        mean = replace(TENS, F=OpCost(ticks=25, alloc_bytes=2))
        assert answers["every stage as long as their mean"].value == value(
            replace(problem, stages=(mean,) * 4), orders
        )


def test_equal_stages_have_no_balance_to_gain_and_free_links_no_speed():
    problem = uniform_problem(4, 6, TENS)
    changes = [a.change for a in retimed_answers(schedule_orders(problem, baseline_orders("1f1b", problem)))]
    assert not [change for change in changes if "mean" in change or "link" in change]


def test_at_most_three_links_and_three_stages_are_told_the_best_first():
    problem = load_instance("zb-1.5b-m24")
    answers = retimed_answers(schedule_orders(problem, baseline_orders("zb-h1", problem)))
    stages = [answer.value for answer in answers if answer.change.startswith("stage")]
    assert len(stages) == 3
    assert stages == sorted(stages)
    assert len([answer for answer in answers if answer.change.startswith("the link")]) == 3
    assert all(answer.gain > 0 for answer in answers)


def test_questions_ask_only_what_the_problem_leaves_open():
    assert search_questions(two_by_two(transfer_ticks=0)) == []
    limited = two_by_two(memory_limit_bytes=(4, 6), transfer_ticks=3)
    one_more, unlimited, faster = search_questions(limited)
    assert one_more.problem.memory_limit_bytes == (6, 8)
    assert unlimited.problem.memory_limit_bytes is None
    assert faster.problem.transfer_ticks == uniform_transfers(2, 1)
    assert all(question.only_eases for question in (one_more, unlimited, faster))


def test_balanced_stages_keep_bytes_and_offers():
    problem = problem_of(Objective.MAKESPAN)
    assert [costs.F.ticks for costs in balanced_stages(problem)] == [25] * 4
    mixed = replace(two_by_two(), stages=(DIVIDED, UNDIVIDED))
    assert balanced_stages(mixed) == mixed.stages


def test_more_memory_answers_with_a_proof():
    """1F1B's memory at p=2 in unit times leaves a bubble that twice the memory does not."""
    unit = StageCosts(
        F=OpCost(ticks=1, alloc_bytes=2), B=OpCost(ticks=1, free_bytes=1), W=OpCost(ticks=1, free_bytes=1)
    )
    problem = uniform_problem(2, 4, unit, memory_limit_bytes=4, objective=Objective.RANK_SPAN)
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    unchanged = searched_anew(schedule, synthesize(problem, time_limit=10))
    assert (unchanged.before, unchanged.value) == (schedule.value, 13)
    one_more = search_questions(problem)[0]
    answer = searched_answer(one_more, synthesize(one_more.problem, time_limit=10), unchanged)
    assert (answer.value, answer.lower_bound, answer.how) == (12, 12, "searched anew")
    assert answer.gain == pytest.approx(1 / 13)


def test_what_stays_possible_is_never_lost():
    problem = two_by_two(num_microbatches=1)
    result = synthesize(problem, time_limit=5)
    unchanged = Answer(
        change="", value=Fraction(result.value - 1), before=Fraction(result.value), lower_bound=0
    )
    eased, other = (Question("any", problem, only_eases) for only_eases in (True, False))
    assert searched_answer(eased, result, unchanged).value == result.value - 1
    assert searched_answer(other, result, unchanged).value == result.value


def test_a_schedule_that_holds_too_much_is_no_value_to_keep():
    """Nor is a measured one that beat its planned costs: no answer is below its own bound."""
    problem = uniform_problem(2, 4, TENS, objective=Objective.RANK_SPAN)
    schedule = schedule_orders(problem, baseline_orders("zb-h2", problem))
    limited = replace(schedule, problem=problem.with_memory_limit(4))
    fast = tuple(
        tuple(TimedOp(op, start // 2, end // 2) for op, start, end in rank) for rank in schedule.ranks
    )
    for given in (limited, Schedule(problem, fast)):
        result = synthesize(given.problem, time_limit=10)
        unchanged = searched_anew(given, result)
        assert unchanged.value >= unchanged.lower_bound
        for question in search_questions(given.problem):
            answer = searched_answer(question, synthesize(question.problem, time_limit=10), unchanged)
            assert answer.value >= answer.lower_bound


def test_times_later_than_need_be_are_told_first():
    problem = uniform_problem(2, 4, TENS)
    schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
    first, second = schedule.ranks
    held = tuple(TimedOp(op, 3 * start, 3 * start + end - start) for op, start, end in first)
    stretched = Schedule(problem, (held, second))
    answer = retimed_answers(stretched)[0]
    assert answer.change == "nothing but every op as early as its costs allow"
    assert (answer.value, answer.before) == (schedule.value, stretched.value)
