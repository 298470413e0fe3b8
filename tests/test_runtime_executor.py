"""Executed schedules against the same steps without a pipeline: losses and every gradient."""

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from runtime.stage import Division
from synth.baselines import BASELINES, baseline_orders
from synth.errors import BaselineUndefinedError
from synth.ops import OpKind
from synth.placement import PlacementKind
from synth.problem import uniform_problem
from synth.schedule import Schedule
from synth.search.synthesizer import synthesize
from synth.timing import schedule_orders
from tests.builders import EITHER, orders_of, two_by_two
from tests.runtime_cases import Case, against_reference
from tests.strategies import problems_with_orders, random_orders


def baseline(name: str, num_ranks: int, num_microbatches: int) -> Schedule:
    """A baseline on equal stages, with as many chunks as it needs."""
    for chunks, kind in ((1, PlacementKind.LOOP), (2, PlacementKind.LOOP), (2, PlacementKind.V)):
        problem = uniform_problem(
            num_ranks, num_microbatches, EITHER, chunks=chunks, kind=kind, transfer_ticks=1
        )
        try:
            return schedule_orders(problem, baseline_orders(name, problem))
        except BaselineUndefinedError as error:
            reason = str(error)
    raise AssertionError(reason)


def sums_in_order(schedule: Schedule) -> bool:
    """Whether every stage adds up its gradients in the order of the microbatches, as the reference does."""
    streams: dict[tuple[int, bool], list[int]] = {}
    for order in schedule.orders:
        for op in order:
            for is_weight, kinds in ((True, (OpKind.W, OpKind.BW)), (False, (OpKind.B, OpKind.BW))):
                if op.kind in kinds:
                    streams.setdefault((op.stage, is_weight), []).append(op.microbatch)
    return all(a < b for stream in streams.values() for a, b in pairwise(stream))


def check(outcomes, *, exact: bool, tolerance: float = 0.0) -> None:
    for outcome in outcomes:
        assert outcome.equal if exact else outcome.difference <= tolerance
    last = [outcome for outcome in outcomes if outcome.losses]
    assert last
    for outcome in last:
        assert outcome.losses == (
            outcome.expected if exact else pytest.approx(outcome.expected, abs=tolerance)
        )


@pytest.mark.parametrize("division", Division)
@pytest.mark.parametrize("name", [name for name in BASELINES if BASELINES[name].reshape is None])
def test_baseline_gives_the_gradients_of_one_process(pool, name, division):
    """Four ranks with dropout, bit for bit but where backwards run from the last microbatch to the first."""
    schedule = baseline(name, 4, 8)
    exact = sums_in_order(schedule)
    assert exact == (name != "looped-bfs")
    outcomes = pool.run(4, against_reference, Case(schedule=schedule, division=division, dropout=0.3))
    check(outcomes, exact=exact, tolerance=1e-5)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_other_numbers_of_ranks(pool, num_ranks):
    schedule = baseline("v-zb", num_ranks, 5) if num_ranks > 1 else baseline("1f1b", 1, 3)
    check(pool.run(num_ranks, against_reference, Case(schedule=schedule, steps=3)), exact=True)


@pytest.mark.parametrize("chunks", [1, 2])
def test_synthesized_schedule_gives_the_gradients_of_one_process(pool, chunks):
    kind = PlacementKind.V if chunks == 2 else PlacementKind.LOOP
    problem = uniform_problem(3, 4, EITHER, chunks=chunks, kind=kind, transfer_ticks=1)
    schedule = synthesize(problem, time_limit=3, workers=1).schedule
    check(
        pool.run(3, against_reference, Case(schedule=schedule)), exact=sums_in_order(schedule), tolerance=1e-6
    )


@given(problems_with_orders(max_ranks=4, max_chunks=3, max_microbatches=4))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
def test_any_order_gives_the_gradients_of_one_process(pool, drawn):
    """Any order that can run, any placement; sums in another order differ by rounding, here of float64."""
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    case = Case(schedule=schedule, dropout=0.2, dtype=torch.float64, steps=1)
    outcomes = pool.run(problem.num_ranks, against_reference, case)
    check(outcomes, exact=False, tolerance=1e-12)
    if sums_in_order(schedule):
        check(outcomes, exact=True)


@pytest.mark.parametrize("division", [None, Division.NATIVE])
def test_stages_that_hand_through_share_or_hold_nothing(pool, division):
    """Several of them side by side on one rank; a buffer that is given back too early would show."""
    problem = uniform_problem(2, 6, EITHER, chunks=4, kind=PlacementKind.WAVE)
    schedule = schedule_orders(problem, random_orders(problem, random.Random(5)))
    case = Case(schedule=schedule, model="odd", dtype=torch.float64, division=division)
    check(pool.run(2, against_reference, case), exact=False, tolerance=1e-12)


@pytest.mark.parametrize("division", Division)
def test_activation_checkpointing_changes_nothing(pool, division):
    case = Case(schedule=baseline("zb-h1", 2, 4), model="recomputed", dropout=0.3, division=division)
    check(pool.run(2, against_reference, case), exact=True)


def test_undivided_stages(pool):
    schedule = schedule_orders(two_by_two(EITHER), orders_of("0F0 0F1 0BW0 0B1 0W1", "1F0 1BW0 1F1 1B1 1W1"))
    check(pool.run(2, against_reference, Case(schedule=schedule)), exact=True)


@pytest.mark.parametrize("division", Division)
def test_mixed_precision_is_that_of_one_process(pool, division):
    """Deferring norms keep their result in float32 where torch's round to bfloat16, a part in 256."""
    case = Case(schedule=baseline("zb-h1", 2, 4), autocast=torch.bfloat16, division=division)
    exact = division is Division.NATIVE
    check(pool.run(2, against_reference, case), exact=exact, tolerance=1 / 256)


@pytest.mark.parametrize("division", Division)
def test_replicas_share_their_gradients(pool, division):
    """Two replicas of two ranks, each with half of the batch; the sum over replicas has another order."""
    case = Case(
        schedule=baseline("zb-h1", 2, 3), division=division, dropout=0.3, dtype=torch.float64, steps=3
    )
    check(pool.run(4, against_reference, case), exact=False, tolerance=1e-12)


def test_receive_buffers_are_used_again(pool):
    """No more than what 1F1B holds at once and what is on its way, however many microbatches there are."""
    few = pool.run(2, against_reference, Case(schedule=baseline("1f1b", 2, 6), steps=1))
    many = pool.run(2, against_reference, Case(schedule=baseline("1f1b", 2, 24), steps=2))
    assert [o.buffers_made for o in many] == [o.buffers_made for o in few]
    assert max(o.buffers_made for o in many) <= 3
