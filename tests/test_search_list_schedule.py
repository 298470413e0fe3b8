"""Compiled list schedules: complete, in order, within the limit, true to what they state, under any rules."""

from dataclasses import replace

import numpy as np
import pytest
from builders import DIVIDED, two_by_two
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.compiled.list_schedule import OPENING, Rules
from synth.graph import build_graph
from synth.instances import load_instance
from synth.memory import parse_limit
from synth.problem import Links, Objective, OpCost, uniform_problem
from synth.schedule import fits, peak_memory_bytes
from synth.search.list_schedule import ANY_NUMBER, ListScheduler, plain_rules
from synth.timing import schedule_orders
from synth.verify import verify_schedule


@st.composite
def rules(draw, num_stages):
    """Any rules, each stage with its own."""

    def column(values, rows=()):
        size = int(np.prod((*rows, num_stages)))
        return np.array(draw(st.lists(values, min_size=size, max_size=size))).reshape(*rows, num_stages)

    delays = st.floats(0, 1.2)
    return Rules(
        forward_delay=column(delays, (2,)),
        weight_delay=column(delays),
        most_ahead=column(st.integers(1, 5)),
        least_ahead=column(st.integers(0, 5)),
        most_owed=column(st.integers(0, 3)),
    )


@settings(max_examples=200)
@given(problems(max_microbatches=6, links=(Links.FREE,)), st.data())
def test_any_rules(problem, data):
    if data.draw(st.booleans(), "with a limit"):
        limits = data.draw(
            st.lists(st.integers(0, 60), min_size=problem.num_ranks, max_size=problem.num_ranks)
        )
        problem = problem.with_memory_limit(
            [a + b for a, b in zip(limits, problem.static_bytes_by_rank, strict=True)]
        )
    scheduler = ListScheduler(build_graph(problem))
    drawn = data.draw(rules(problem.num_stages))
    found = scheduler.run(drawn)
    if found is None:
        assert problem.memory_limit_bytes is not None or problem.num_stages > 1
        return
    value, mean = found
    orders = scheduler.graph.ids_to_orders(scheduler.ids)
    schedule = schedule_orders(problem, orders)
    assert verify_schedule(schedule) == []
    assert fits(problem, peak_memory_bytes(problem, orders))
    assert mean <= value
    # A rank may wait for a backward longer than its order makes it: times can only come forward.
    assert max(rank[-1].end for rank in schedule.ranks if rank) <= value + max(
        rank[0].start for rank in schedule.ranks if rank
    )
    if problem.objective is Objective.MAKESPAN:
        assert schedule.value <= value
    for order in orders:
        for stage in {op.stage for op in order}:
            forwards = 0
            for op in order:
                if op.stage == stage and op.kind != "W":
                    forwards += 1 if op.kind == "F" else -1
                    assert forwards <= drawn.most_ahead[stage]


def test_cutoff():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=8)
    scheduler = ListScheduler(build_graph(problem))
    plain = plain_rules(4, 1.0)
    value, _ = scheduler.run(plain)
    assert scheduler.run(plain, cutoff=value) is None
    assert scheduler.run(plain, cutoff=value + 1)[0] == value


def test_stuck():
    """Two forwards of the first stage take what the last stage on the same rank needs."""
    problem = two_by_two(stage_to_rank=(0, 1, 0), memory_limit_bytes=(4, 9), num_microbatches=3)
    scheduler = ListScheduler(build_graph(problem))
    assert scheduler.run(plain_rules(3, 1.0)) is None
    assert scheduler.run(plain_rules(3, 1.0, most_in_flight=1)) is not None


def test_delays():
    """With a delay of 0 no op makes a known backward late; before the first one a rule of its own holds."""
    stage = replace(DIVIDED, F=OpCost(ticks=3))
    scheduler = ListScheduler(build_graph(uniform_problem(2, 8, stage, transfer_ticks=1)))

    def first_rank(opening):
        rules = plain_rules(2, 1.0)
        rules.forward_delay[OPENING] = opening
        scheduler.run(rules)
        return " ".join(str(op)[1:] for op in scheduler.graph.ids_to_orders(scheduler.ids)[0][:7])

    assert first_rank(1.0) == "F0 F1 F2 F3 B0 F4 B1"  # B0 comes at 10, in the midst of F3
    assert first_rank(0.0) == "F0 F1 F2 B0 F3 B1 F4"


@pytest.mark.parametrize(
    ("name", "opening", "later", "published"),
    [("zb-14.6b-m48", 0.55, 1.0, 0.0066), ("zb-28.3b-m96", 0.1, 0.75, 0.0038)],
)
def test_beats_the_published_heuristic(name, opening, later, published):
    """Two numbers for all stages do better than ZB-2p (arXiv 2401.10241, table 5)."""
    problem = load_instance(name)
    problem = problem.with_memory_limit(parse_limit("2x", problem))
    scheduler = ListScheduler(build_graph(problem))
    rules = plain_rules(problem.num_stages, later)
    rules.forward_delay[OPENING] = opening
    value, _ = scheduler.run(rules)
    assert 1 - problem.work_ticks / value < published
    schedule = schedule_orders(problem, scheduler.graph.ids_to_orders(scheduler.ids))
    assert schedule.value == value


def test_any_number_is_never_reached():
    rules = plain_rules(3, 1.0, most_in_flight=5)
    assert rules.most_ahead.tolist() == [5, ANY_NUMBER, ANY_NUMBER]
