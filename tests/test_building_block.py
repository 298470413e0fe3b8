"""Building blocks: unrolling, what is wrong with a block, and the memory bound by lifespans."""

import pytest

from synth.building_block import BlockOp, BuildingBlock, block_violations, lifespan_peak_bytes, unroll
from synth.errors import InputError, InvalidOrdersError
from synth.ops import OpKind
from synth.problem import OpCost, Problem, StageCosts, uniform_problem
from synth.schedule import measure, peak_memory_bytes
from synth.timing import schedule_orders

UNIT = StageCosts(
    F=OpCost(ticks=1, alloc_bytes=1),
    B=OpCost(ticks=1),
    W=OpCost(ticks=1, free_bytes=1),
    BW=OpCost(ticks=2, free_bytes=1),
)


def one_f_one_b(num_ranks: int, *, divided: bool) -> BuildingBlock:
    """1F1B as a block on unit times: forwards down, backwards (B+W = 2) up, one microbatch per 3."""
    ops = []
    for rank in range(num_ranks):
        backward = num_ranks + 2 * (num_ranks - 1 - rank)
        ops.append(BlockOp(OpKind.F, rank, rank))
        ops.append(BlockOp(OpKind.B if divided else OpKind.BW, rank, backward))
        if divided:
            ops.append(BlockOp(OpKind.W, rank, backward + 1))
    return BuildingBlock(period_ticks=3, ops=tuple(ops))


def problem_of(num_ranks: int, num_microbatches: int, transfer_ticks: int = 0) -> Problem:
    return uniform_problem(num_ranks, num_microbatches, UNIT, transfer_ticks=transfer_ticks)


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("num_microbatches", [1, 2, 9, 16])
def test_unrolled_block_is_a_schedule_within_its_lifespan_bound(num_ranks, num_microbatches, divided):
    problem = problem_of(num_ranks, num_microbatches)
    block = one_f_one_b(num_ranks, divided=divided)
    assert block_violations(block, problem) == []
    orders = unroll([block], problem)
    makespan = measure(schedule_orders(problem, orders)).makespan
    last = 3 * (num_microbatches + num_ranks - 1)
    # Divided, the gradient leaves at the end of B: squeezing then takes a tick per hop out of the grid.
    assert makespan == last if not divided else makespan <= last
    bound = lifespan_peak_bytes(block, problem)
    assert bound == tuple(min(num_ranks - r, num_microbatches) for r in range(num_ranks))
    assert peak_memory_bytes(problem, orders) == bound


def test_lifespan_bound_counts_static_bytes_and_what_backward_allocates():
    stage = StageCosts(
        F=OpCost(ticks=1, alloc_bytes=4),
        B=OpCost(ticks=1, alloc_bytes=2, free_bytes=1),
        W=OpCost(ticks=1, free_bytes=5),
        static_bytes=100,
    )
    problem = uniform_problem(2, 8, stage)
    # Lifespans are 6 and 3: two and one microbatches, each at most 4 + 2 bytes.
    assert lifespan_peak_bytes(one_f_one_b(2, divided=True), problem) == (112, 106)


def test_violations_name_the_op_and_the_ticks():
    block = one_f_one_b(2, divided=True)
    assert block_violations(block, problem_of(2, 4, transfer_ticks=5)) == [
        "1F starts at 1, 5 ticks before 0F is there",
        "0B starts at 4, 4 ticks before 1B is there",
    ]
    tight = BuildingBlock(period_ticks=2, ops=block.ops)
    assert "on rank 0 0F@0 and 0B@4 overlap by 1 ticks when repeated every 2" in block_violations(
        tight, problem_of(2, 4)
    )
    assert block_violations(BuildingBlock(period_ticks=3, ops=block.ops[:-1]), problem_of(2, 4)) == [
        "stage 1 has B, F; it needs F, B and W, or F and BW"
    ]
    assert block_violations(block, problem_of(1, 4)) == [
        "1F is in the block, but the problem does not offer it",
        "1B is in the block, but the problem does not offer it",
        "1W is in the block, but the problem does not offer it",
    ]


def test_equal_starts_never_deadlock():
    """All starts equal is the weakest block: ties alone must then follow the chains."""
    for num_ranks in (1, 2, 3, 5):
        problem = problem_of(num_ranks, 4)
        kinds = (OpKind.F, OpKind.B, OpKind.W)
        block = BuildingBlock(
            period_ticks=1, ops=tuple(BlockOp(k, s, 0) for k in kinds for s in range(num_ranks))
        )
        assert schedule_orders(problem, unroll([block], problem)).value > 0


def test_bad_blocks_are_refused():
    with pytest.raises(InputError, match="repeats every 0 ticks: give at least 1"):
        BuildingBlock(period_ticks=0, ops=())
    with pytest.raises(InputError, match="0F stands twice"):
        BuildingBlock(period_ticks=1, ops=(BlockOp(OpKind.F, 0, 0), BlockOp(OpKind.F, 0, 3)))
    with pytest.raises(InvalidOrdersError, match=r"the building block has 1F, but .* stages are 0 to 0"):
        unroll([one_f_one_b(2, divided=False)], problem_of(1, 2))
