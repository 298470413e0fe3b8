"""Building blocks by CP-SAT: valid blocks, orders within the limits, None where there is none."""

import pytest
from builders import DIVIDED, UNDIVIDED
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.building_block import block_violations, unroll
from synth.memory import smallest_limits_bytes
from synth.ops import OpKind
from synth.placement import PlacementKind
from synth.problem import Objective, OpCost, StageCosts, uniform_problem
from synth.schedule import fits, measure, peak_memory_bytes
from synth.search.blocks import SolveParams, find_blocks
from synth.timing import schedule_orders
from synth.verify import verify_schedule

UNIT = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), B=OpCost(ticks=1), W=OpCost(ticks=1, free_bytes=1))
PARAMS = SolveParams(time_limit_s=5, work_limit=2, workers=1, seed=0)


def find_block(problem, grid_ticks, slack, params):
    """One block for all microbatches, or None."""
    blocks = find_blocks(problem, grid_ticks, slack, params)
    assert len(blocks) <= 1
    return blocks[0] if blocks else None


def scaled(stage: StageCosts, factor: int) -> StageCosts:
    return StageCosts(
        **{
            str(kind): OpCost(
                ticks=cost.ticks * factor, alloc_bytes=cost.alloc_bytes, free_bytes=cost.free_bytes
            )
            for kind, cost in stage.offered
        }
    )


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("factor", [1, 7])
@pytest.mark.parametrize(
    ("stage", "kind", "chunks", "limit"),
    [
        (DIVIDED, PlacementKind.LOOP, 1, None),
        (DIVIDED, PlacementKind.LOOP, 1, 6),
        (DIVIDED, PlacementKind.V, 2, 9),
        (UNDIVIDED, PlacementKind.LOOP, 1, 8),
        (UNDIVIDED, PlacementKind.WAVE, 3, 20),
    ],
)
def test_a_block_on_its_own_grid_is_a_schedule(stage, kind, chunks, limit, factor, objective):
    problem = uniform_problem(
        3,
        6,
        scaled(stage, factor),
        transfer_ticks=factor,
        kind=kind,
        chunks=chunks,
        memory_limit_bytes=limit,
        objective=objective,
    )
    block = find_block(problem, factor, 0.2, PARAMS)
    assert block is not None
    assert block_violations(block, problem) == []
    assert block.period_ticks >= problem.work_ticks // problem.num_microbatches
    assert block.start_ticks[OpKind.F, 0] in range(block.period_ticks)
    schedule = schedule_orders(problem, unroll([block], problem))
    assert verify_schedule(schedule) == []


@settings(max_examples=25)
@given(problems(max_ranks=3, max_chunks=2), st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.5]), st.data())
def test_orders_of_any_blocks_run_and_fit(problem, grid_ticks, slack, data):
    """Off the grid too: rounding changes times, not what an order holds or whether it can run."""
    more = data.draw(st.integers(0, 12))
    problem = problem.with_memory_limit([least + more for least in smallest_limits_bytes(problem)])
    params = SolveParams(time_limit_s=2, work_limit=0.2, workers=1, seed=0)
    copies = data.draw(st.integers(1, 3))
    blocks = find_blocks(problem, grid_ticks, slack, params, copies)
    assert len(blocks) in (0, copies)
    if blocks:
        orders = unroll(blocks, problem)
        assert fits(problem, peak_memory_bytes(problem, orders))
        assert verify_schedule(schedule_orders(problem, orders)) == []


@pytest.mark.parametrize("num_microbatches", [1, 4, 24])
def test_v_of_four_ranks_in_unit_times(num_microbatches):
    """At eight chunk activations the steady state has no bubble: T is 6, the rank's work."""
    problem = uniform_problem(4, num_microbatches, UNIT, chunks=2, kind=PlacementKind.V, memory_limit_bytes=8)
    block = find_block(problem, 1, 0.0, PARAMS)
    assert block is not None
    assert block.period_ticks == 6
    assert block_violations(block, problem) == []
    schedule = schedule_orders(problem, unroll([block], problem))
    assert max(measure(schedule).peak_memory_bytes) <= 8
    longest = max(op.start for op in block.ops) + 1 + 6 * (num_microbatches - 1)
    assert measure(schedule).makespan <= longest


def test_more_memory_never_makes_a_block_impossible():
    """The least memory of a V of four ranks without slack is 4 of 8 chunk activations."""
    found = {}
    for limit in (2, 3, 4, 5):
        problem = uniform_problem(4, 8, UNIT, chunks=2, kind=PlacementKind.V, memory_limit_bytes=limit)
        found[limit] = find_block(problem, 1, 0.0, PARAMS) is not None
    assert found == {2: False, 3: False, 4: True, 5: True}


def test_two_in_turn_fit_where_one_does_not():
    """F and B take two slots, W one, in a V of eight ranks and 8 chunk activations: one repeats every 12."""
    stage = StageCosts(F=OpCost(ticks=2, alloc_bytes=1), B=OpCost(ticks=2), W=OpCost(ticks=1, free_bytes=1))
    problem = uniform_problem(8, 24, stage, chunks=2, kind=PlacementKind.V, memory_limit_bytes=8)
    params = SolveParams(time_limit_s=60, work_limit=20, workers=1, seed=0)
    assert find_blocks(problem, 1, 0.1, params) == ()
    blocks = find_blocks(problem, 1, 0.1, params, copies=2)
    assert [block.period_ticks for block in blocks] == [22, 22]
    schedule = schedule_orders(problem, unroll(blocks, problem))
    assert verify_schedule(schedule) == []


def test_one_worker_and_one_seed_give_one_block():
    problem = uniform_problem(3, 4, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    assert find_block(problem, 1, 0.1, PARAMS) == find_block(problem, 1, 0.1, PARAMS)


def test_a_limit_that_nothing_fits():
    assert find_block(uniform_problem(2, 4, UNIT, memory_limit_bytes=0), 1, 0.5, PARAMS) is None


def test_what_every_microbatch_leaves_behind_has_no_period():
    leaking = StageCosts(F=OpCost(ticks=1, alloc_bytes=2), BW=OpCost(ticks=1, free_bytes=1))
    assert find_block(uniform_problem(2, 4, leaking, memory_limit_bytes=99), 1, 0.5, PARAMS) is None


def test_waiting_is_told():
    calls = []
    params = SolveParams(time_limit_s=5, work_limit=2, workers=1, seed=0, on_wait=lambda: calls.append(None))
    stage = scaled(DIVIDED, 50)
    problem = uniform_problem(8, 8, stage, transfer_ticks=3, chunks=2, kind=PlacementKind.V)
    find_block(problem.with_memory_limit(16), 1, 0.0, params)
    assert calls


def test_an_interrupt_ends_the_solver():
    def interrupt():
        raise KeyboardInterrupt

    stage = scaled(DIVIDED, 50)
    problem = uniform_problem(8, 8, stage, transfer_ticks=3, chunks=2, kind=PlacementKind.V)
    params = SolveParams(time_limit_s=60, work_limit=60, workers=1, seed=0, on_wait=interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_block(problem.with_memory_limit(16), 1, 0.0, params)
