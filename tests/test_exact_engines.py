"""Both exact engines: they agree with each other and with trying every order, and keep to their limits."""

from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, orders_of, two_by_two
from exhaustive import best_value
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.bounds import best_bound
from synth.cpsat import SolveParams
from synth.exact.answer import ExactAnswer, FoundOrders, orders_from_starts
from synth.exact.counters import build_counter_model
from synth.exact.milp import finest_slots, solve_counters
from synth.exact.slots import Rounding, Slots, common_ticks, shortest_ticks
from synth.exact.whole_horizon import is_supported, solve_whole_horizon
from synth.memory import smallest_limits_bytes
from synth.ops import OpKind
from synth.placement import PlacementKind
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import Schedule
from synth.search.greedy import greedy_orders
from synth.timing import schedule_orders
from synth.verify import verify_schedule

PARAMS = SolveParams(time_limit_s=30, work_limit=30, workers=1, seed=0)
MOST_OPS = 30
"""Tiny: HiGHS decides every span of the problems drawn in a blink."""


def started(problem: Problem) -> Schedule:
    """A schedule to start from."""
    return schedule_orders(problem, greedy_orders(problem))


def whole(problem: Problem, params: SolveParams = PARAMS) -> tuple[int, ExactAnswer]:
    """The best value by CP-SAT, its schedule verified, and the answer."""
    answer = solve_whole_horizon(problem, params)
    assert answer.found is not None
    schedule = answer.found.schedule(problem)
    assert verify_schedule(schedule) == []
    assert answer.lower_bound <= schedule.value
    return schedule.value, answer


def counted(
    slots: Slots, start: int, params: SolveParams = PARAMS, least: int = 0
) -> tuple[int, ExactAnswer]:
    """The best value by the MILP, at most the one it starts from, its schedule verified, and the answer."""
    answer = solve_counters(slots, start, params, least_ticks=least)
    if answer.found is None:
        return start, answer
    schedule = answer.found.schedule(slots.problem)
    assert verify_schedule(schedule) == []
    assert schedule.value < start
    return schedule.value, answer


@st.composite
def tiny_problems(draw, **options) -> Problem:
    """A problem of a few ops under a limit with little or some room."""
    drawn = {"max_ranks": 3, "max_chunks": 2, "max_microbatches": 4, "max_ticks": 3} | options
    problem = draw(problems(**drawn))
    if draw(st.booleans()):
        more = st.tuples(*[st.integers(0, 6)] * problem.num_ranks)
        least = smallest_limits_bytes(problem)
        problem = problem.with_memory_limit([a + b for a, b in zip(least, draw(more), strict=True)])
    return problem


def num_ops(problem: Problem) -> int:
    """The ops that a problem may run."""
    return problem.num_microbatches * sum(len(costs.offered) for costs in problem.stages)


@settings(max_examples=220, suppress_health_check=list(HealthCheck))
@given(tiny_problems(links=(Links.FREE,)))
def test_the_engines_agree(problem):
    assume(num_ops(problem) <= MOST_OPS)
    value, answer = whole(problem)
    assert answer.is_complete
    assert answer.lower_bound == value
    start = started(problem).value
    slots = finest_slots(problem, start, Rounding.DOWN)
    assert slots is not None
    assert slots.is_exact
    found, answer = counted(slots, start)
    assert answer.is_complete
    assert found == answer.lower_bound == value
    assert best_bound(problem).ticks <= value


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(tiny_problems(max_microbatches=3))
def test_trying_every_order_finds_nothing_better(problem):
    assume(num_ops(problem) <= 18)
    value, answer = whole(problem)
    assert answer.is_complete
    best = best_value(problem)
    if problem.objective is Objective.RANK_SPAN and problem.links is Links.EXCLUSIVE:
        assert value <= best  # there every order is tried with its earliest times only
    else:
        assert value == best


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(tiny_problems(), st.sampled_from(Rounding), st.integers(2, 3))
def test_a_coarse_grid_bounds_from_one_side(problem, rounding, slot_ticks):
    assume(num_ops(problem) <= 30 and slot_ticks <= shortest_ticks(problem))
    value, _ = whole(problem)
    start = started(problem).value
    found, answer = counted(Slots(problem, slot_ticks, rounding), start)
    assert answer.lower_bound <= value <= found
    assert not answer.is_complete or answer.lower_bound == found


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("limit", [None, 2, 3, 4])
@pytest.mark.parametrize(("stage", "microbatches"), [(DIVIDED, 3), (UNDIVIDED, 3), (EITHER, 2)])
def test_two_ranks_by_hand(stage, microbatches, limit, objective):
    problem = two_by_two(stage, num_microbatches=microbatches, objective=objective).with_memory_limit(limit)
    best = best_value(problem)
    assert whole(problem)[0] == best
    assert counted(Slots(problem, 1, Rounding.DOWN), started(problem).value)[0] == best


UNIT = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), B=OpCost(ticks=1), W=OpCost(ticks=1, free_bytes=1))


@pytest.mark.parametrize(("limit", "idle"), [(4, 11), (5, 8), (6, 5), (7, 4), (8, 3)])
def test_published_frontier_in_unit_times(limit, idle):
    """A V of four ranks and eight microbatches: the idle slots of the published search, proved the least."""
    problem = uniform_problem(4, 8, UNIT, chunks=2, kind=PlacementKind.V, memory_limit_bytes=limit)
    slots = finest_slots(problem, started(problem).value, Rounding.DOWN)
    assert solve_counters(slots, 48 + idle, replace(PARAMS, time_limit_s=60)).lower_bound == 48 + idle


def test_a_later_begin_may_shorten_a_span():
    """Rank 1 waits for the slow rank 0 after its first backward: begun at 18, it does not."""
    slow = StageCosts(F=OpCost(ticks=10), B=OpCost(ticks=1), W=OpCost(ticks=1))
    fast = StageCosts(F=OpCost(ticks=1), B=OpCost(ticks=1), W=OpCost(ticks=7))
    problem = replace(two_by_two(transfer_ticks=0), stages=(slow, fast), objective=Objective.RANK_SPAN)
    orders = orders_of("0F0 0F1 0B0 0W0 0B1 0W1", "1F0 1B0 1F1 1B1 1W0 1W1")
    found = FoundOrders(orders=orders, release_ticks=(0, 18))
    assert schedule_orders(problem, orders).value == 36 - 10
    assert found.schedule(problem).value == 24
    makespan = replace(problem, objective=Objective.MAKESPAN)
    assert found.schedule(makespan) == schedule_orders(makespan, orders)


def test_streams_are_put_in_microbatch_order():
    problem = two_by_two(EITHER, stage_to_rank=(0,), num_microbatches=3)
    starts = {
        (OpKind.F, 0): [4, 0, 2],
        (OpKind.BW, 0): [6],
        (OpKind.B, 0): [12, 9],
        (OpKind.W, 0): [14, 11],
    }
    found = orders_from_starts(problem, starts, 5)
    assert [str(op) for op in found.orders[0]] == ["0F0", "0F1", "0F2", "0BW0", "0B1", "0W1", "0B2", "0W2"]
    assert found.release_ticks == (0,)


def test_a_hint_is_never_lost():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    hint = started(problem)
    answer = solve_whole_horizon(problem, replace(PARAMS, work_limit=0.05), hint=hint)
    assert answer.lower_bound <= hint.value
    assert answer.found is None or answer.found.schedule(problem).value <= hint.value


def test_found_orders_are_handed_on():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    seen = []
    answer = solve_whole_horizon(problem, PARAMS, hint=started(problem), on_found=seen.append)
    values = [found.schedule(problem).value for found in seen]
    assert values[-1] == answer.found.schedule(problem).value == answer.lower_bound
    steps: list[ExactAnswer] = []
    slots = finest_slots(problem, started(problem).value, Rounding.DOWN)
    answer = solve_counters(slots, started(problem).value, PARAMS, on_progress=steps.append)
    assert [step.lower_bound for step in steps] == sorted(step.lower_bound for step in steps)
    assert steps[-1].lower_bound == answer.lower_bound == values[-1]


def test_no_time_proves_nothing():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    slots = Slots(problem, 1, Rounding.DOWN)
    answer = solve_counters(slots, 1000, replace(PARAMS, time_limit_s=0), least_ticks=17)
    assert (answer.found, answer.lower_bound, answer.is_complete) == (None, 17, False)


def test_an_interrupt_leaves_highs():
    def interrupt():
        raise KeyboardInterrupt

    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, chunks=2, kind=PlacementKind.V)
    problem = problem.with_memory_limit(12)
    slots = Slots(problem, 1, Rounding.DOWN)
    with pytest.raises(KeyboardInterrupt):
        solve_counters(slots, 400, replace(PARAMS, on_wait=interrupt))


def test_grids():
    problem = uniform_problem(2, 3, EITHER, transfer_ticks=4)
    assert common_ticks(problem) == 1
    assert common_ticks(uniform_problem(2, 3, StageCosts(F=OpCost(ticks=6), BW=OpCost(ticks=9)))) == 3
    down, up = (Slots(uniform_problem(2, 3, LONG, transfer_ticks=4), 5, way) for way in Rounding)
    assert (down.length(OpKind.BW, 0), up.length(OpKind.BW, 0)) == (1, 2)
    assert (down.wait(OpKind.BW, 1, 0), up.wait(OpKind.BW, 1, 0)) == (2, 3)
    assert (down.fewest(12), up.fewest(12)) == (2, 3)
    assert not down.is_exact
    assert down.least_ticks(4) == 20
    spans = replace(down, problem=replace(down.problem, objective=Objective.RANK_SPAN))
    assert spans.least_ticks(4) == 16


LONG = StageCosts(F=OpCost(ticks=5), BW=OpCost(ticks=7))


def test_too_large_for_any_grid():
    problem = uniform_problem(4, 1000, DIVIDED)
    assert finest_slots(problem, 20_000, Rounding.DOWN) is None
    long = uniform_problem(2, 2, StageCosts(F=OpCost(ticks=10**9 + 7), BW=OpCost(ticks=10**9 + 9)))
    slots = finest_slots(long, 12 * 10**9, Rounding.DOWN, most_counters=200)
    assert slots.slot_ticks == 240_000_000
    assert not slots.is_exact


def test_times_beyond_the_solvers_integers_are_left_out():
    stage = StageCosts(F=OpCost(ticks=10**15 + 1), BW=OpCost(ticks=10**15))
    assert not is_supported(uniform_problem(2, 8, stage))
    assert is_supported(uniform_problem(2, 8, replace(stage, F=OpCost(ticks=10**15))))


def test_bytes_of_a_real_machine():
    """Rows are scaled, and what comes back still fits to the byte."""
    stage = StageCosts(
        F=OpCost(ticks=2, alloc_bytes=3_000_000_019),
        B=OpCost(ticks=2, free_bytes=1_400_000_003),
        W=OpCost(ticks=1, free_bytes=1_600_000_016),
    )
    problem = uniform_problem(2, 4, stage, transfer_ticks=1, memory_limit_bytes=7_600_000_041)
    value, _ = whole(problem)
    found, answer = counted(Slots(problem, 1, Rounding.DOWN), started(problem).value)
    assert found == answer.lower_bound == value


def test_the_counter_model_is_small():
    """No microbatch has a variable of its own: one counter for each stream and slot, less those known."""
    problem = uniform_problem(2, 4, DIVIDED, transfer_ticks=1)
    slots = Slots(problem, 1, Rounding.DOWN)
    model = build_counter_model(slots, 30)
    assert len(model.lp.variables()) <= 6 * 30
    assert build_counter_model(slots, 23).lp.numConstraints() < model.lp.numConstraints()
