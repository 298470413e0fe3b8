"""A document's steady state, repeated: the same plan as a document of so many batches."""

import random
from dataclasses import replace
from itertools import islice

import pytest

from runtime.communication import global_order, plan_rank
from runtime.rolling import UnderWay, check_updates, plan_rolling, replayed, roll
from synth.baselines import baseline_orders
from synth.errors import InputError
from synth.ops import OpKind
from synth.problem import OpCost, Problem, StageCosts, uniform_problem
from tests.builders import DIVIDED, EITHER, UNDIVIDED, orders_of, two_by_two


def unequal(num_ranks: int, num_microbatches: int, stage: StageCosts, seed: int) -> Problem:
    """Stages and transfers of all kinds of lengths."""
    draw = random.Random(seed)
    problem = uniform_problem(num_ranks, num_microbatches, stage, transfer_ticks=1)
    stages = tuple(
        replace(stage, **{kind: OpCost(ticks=draw.randint(1, 9)) for kind, _ in stage.offered})
        for _ in range(num_ranks)
    )
    ticks = tuple(tuple(draw.randint(0, 6) for _ in range(num_ranks)) for _ in range(num_ranks))
    return replace(problem, stages=stages, transfer_ticks=ticks)


def rolled(problem: Problem, m: int):
    return roll(problem, baseline_orders("1f1b", problem), m)


def test_steady_state_of_two_ranks():
    """The picture in the module."""
    first, second = rolled(uniform_problem(2, 6, UNDIVIDED), 3).orders
    text = ["0F0 0F1 0BW0 0F2 0BW1", "0F3 0BW2 0F4 0BW3 0F5 0BW4", "0BW2"]
    assert (first.first, first.steady, first.rest) == orders_of(*text)
    assert second.rest == ()
    assert " ".join(map(str, islice(first.ops(3, 10**9), 11, 17))) == "0F6 0BW5 0F7 0BW6 0F8 0BW7"


@pytest.mark.parametrize("batches", [1, 2, 5])
@pytest.mark.parametrize("stage", [UNDIVIDED, DIVIDED, EITHER])
@pytest.mark.parametrize(("num_ranks", "m"), [(1, 1), (2, 2), (3, 5), (4, 4), (4, 3), (5, 8)])
def test_plan_is_that_of_a_document_of_so_many_batches(num_ranks, m, stage, batches):
    for seed in range(3):
        short = unequal(num_ranks, 2 * m, stage, seed)
        whole = replace(short, num_microbatches=batches * m)
        orders = baseline_orders("1f1b", whole)
        rolling = rolled(short, m)
        assert list(replayed(rolling, batches)) == global_order(whole, orders)
        for rank in range(num_ranks):
            wanted = [replace(step, sums=()) for step in plan_rank(whole, orders, rank)]
            found = [replace(step, sums=()) for step in plan_rolling(rolling, rank, batches, m)]
            assert found == wanted


@pytest.mark.parametrize("stage", [UNDIVIDED, DIVIDED])
def test_updates_end_with_the_last_backward_of_a_batch_or_of_each_microbatch(stage):
    problem = uniform_problem(3, 8, stage)
    kind = OpKind.BW if stage is UNDIVIDED else OpKind.W
    for rank, unit in ((r, u) for r in range(3) for u in (1, 4)):
        ends = [step.op for step in plan_rolling(rolled(problem, 4), rank, 3, unit) if step.sums]
        assert [(op.kind, op.microbatch) for op in ends] == [(kind, i) for i in range(unit - 1, 12, unit)]


def test_document_of_more_batches_rolls_alike():
    problem = uniform_problem(3, 8, EITHER)
    assert rolled(replace(problem, num_microbatches=20), 4).orders == rolled(problem, 4).orders


def test_plan_of_a_long_run_begins_at_once():
    """Nothing is planned ahead: this would be a trillion ops."""
    steps = islice(plan_rolling(rolled(uniform_problem(4, 16, EITHER), 8), 0, 10**10, 8), 1001)
    assert [str(step.op) for step in steps][-2:] == ["0F501", "0BW498"]


def test_a_replay_forgets_what_is_through():
    """The second microbatch of the third batch, all of it, then the fourth in part."""
    rolling = rolled(uniform_problem(3, 8, EITHER), 4)
    ends, of_one = UnderWay(rolling), [op for op in rolling.one_batch if op.microbatch == 1]
    for count, op in enumerate(of_one):
        assert len(ends) == count
        ends[op._replace(microbatch=9)] = 5
    assert not ends
    ends[of_one[0]._replace(microbatch=13)] = 5
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("microbatches", "m", "message"),
    [
        (4, 4, r"4 microbatches, which is not two or more batches of 4: give a schedule of 8"),
        (9, 4, r"9 microbatches, which is not two or more batches of 4"),
        (8, 2, r"rank 0's order does not repeat itself from the second batch of 2 microbatches on"),
    ],
)
def test_documents_without_a_steady_state_are_refused(microbatches, m, message):
    with pytest.raises(InputError, match=message):
        rolled(uniform_problem(4, microbatches, UNDIVIDED), m)


def test_flushed_document_of_two_batches_repeats_its_flush():
    """Not wrong, only slow: batch after batch with the pipeline empty between."""
    orders = orders_of("0F0 0F1 0BW0 0BW1 0F2 0F3 0BW2 0BW3", "1F0 1BW0 1F1 1BW1 1F2 1BW2 1F3 1BW3")
    rolling = roll(two_by_two(UNDIVIDED, num_microbatches=4), orders, 2)
    assert rolling.orders[0].rest == ()


def test_order_that_changes_from_batch_to_batch_is_refused():
    orders = orders_of(
        "0F0 0F1 0BW0 0BW1 0F2 0F3 0BW2 0BW3 0F4 0F5 0BW5 0BW4",
        "1F0 1BW0 1F1 1BW1 1F2 1BW2 1F3 1BW3 1F4 1F5 1BW5 1BW4",
    )
    with pytest.raises(InputError, match="rank 0's order does not repeat itself"):
        roll(two_by_two(UNDIVIDED, num_microbatches=6), orders, 2)


def test_gradients_of_two_updates_are_not_mixed():
    problem = two_by_two(DIVIDED, num_microbatches=4)
    late = orders_of(
        "0F0 0F1 0B0 0W0 0B1 0F2 0F3 0B2 0W1 0W2 0B3 0W3", "1F0 1B0 1W0 1F1 1B1 1W1 1F2 1B2 1W2 1F3 1B3 1W3"
    )
    with pytest.raises(InputError, match="0W1 comes after a backward of microbatch 2 or later"):
        check_updates(problem, late, 2)
    check_updates(problem, late, 4)
