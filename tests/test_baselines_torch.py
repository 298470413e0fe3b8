"""The baselines that PyTorch has too are its orders, op for op."""

from types import SimpleNamespace

import pytest
from torch.distributed.pipelining import schedules as torch_schedules

from synth.baselines import baseline_orders
from synth.export.torch_names import TORCH_LETTERS
from synth.ops import Op
from synth.placement import PlacementKind
from synth.problem import OpCost, StageCosts, uniform_problem

ONE = OpCost(ticks=1)
STAGE = StageCosts(F=ONE, B=ONE, W=ONE, BW=OpCost(ticks=2))
KIND_OF = {letter: kind for kind, letter in TORCH_LETTERS.items()}
RANKS = (1, 2, 3, 4, 6, 8)


def orders_of_torch(class_name, num_ranks, chunks, num_microbatches):
    """What a schedule class computes, without a process group; an overlapped pair is its parts in turn."""
    schedule = object.__new__(getattr(torch_schedules, class_name))
    groups = max(1, num_microbatches // num_ranks)
    vars(schedule).update(
        pp_group_size=num_ranks,
        n_local_stages=chunks,
        microbatches_per_round=num_microbatches // groups,
        _n_microbatches=num_microbatches,
        _num_stages=num_ranks * chunks,
        _stages=[SimpleNamespace()] * chunks,
    )
    rows = (schedule._calculate_single_rank_operations(rank) for rank in range(num_ranks))
    return tuple(tuple(op for action in row if action for op in ops_of(action)) for row in rows)


def ops_of(action):
    for part in action.sub_actions or (action,):
        yield Op(KIND_OF[part.computation_type.value], part.stage_index, part.microbatch_index)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_dualpipe_v(num_ranks):
    for num_microbatches in (2 * num_ranks, 2 * num_ranks + 1, 5 * num_ranks):
        problem = uniform_problem(num_ranks, num_microbatches, STAGE, chunks=2, kind=PlacementKind.V)
        expected = orders_of_torch("ScheduleDualPipeV", num_ranks, 2, num_microbatches)
        assert baseline_orders("dualpipe-v", problem) == expected


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_looped_ones(num_ranks, chunks):
    for num_microbatches in (1, 2, num_ranks, 2 * num_ranks, 3 * num_ranks, 5 * num_ranks):
        problem = uniform_problem(num_ranks, num_microbatches, STAGE, chunks=chunks)
        sizes = num_ranks, chunks, num_microbatches
        assert baseline_orders("looped-bfs", problem) == orders_of_torch("ScheduleLoopedBFS", *sizes)
        expected = orders_of_torch("ScheduleInterleavedZeroBubble", *sizes)
        assert baseline_orders("interleaved-zero-bubble", problem) == expected
        if num_microbatches % num_ranks == 0:
            expected = orders_of_torch("ScheduleInterleaved1F1B", *sizes)
            assert baseline_orders("interleaved-1f1b", problem) == expected


def test_groups_of_more_than_p():
    """Ten microbatches on four ranks are two groups of five."""
    problem = uniform_problem(4, 10, STAGE, chunks=2)
    expected = orders_of_torch("ScheduleInterleavedZeroBubble", 4, 2, 10)
    assert baseline_orders("interleaved-zero-bubble", problem) == expected
