"""Problems: what is derived from them, and what cannot be one."""

from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, two_by_two
from hypothesis import given, settings
from strategies import problems

from synth.errors import InvalidProblemError
from synth.ops import PASSES, OpKind
from synth.placement import Placement, PlacementKind
from synth.problem import LARGEST_SUM, OpCost, Problem, StageCosts, uniform_problem, uniform_transfers

CHEAP_WHOLE = replace(EITHER, BW=OpCost(ticks=1, free_bytes=2))
CHEAP_HALVES = replace(EITHER, BW=OpCost(ticks=9, free_bytes=2))


def test_offered_kinds():
    assert [kind for kind, _ in DIVIDED.offered] == [OpKind.F, OpKind.B, OpKind.W]
    assert [kind for kind, _ in UNDIVIDED.offered] == [OpKind.F, OpKind.BW]
    assert [kind for kind, _ in EITHER.offered] == list(PASSES)


@pytest.mark.parametrize(
    ("costs", "can", "must", "least"),
    [
        (DIVIDED, True, True, 3),
        (UNDIVIDED, False, False, 3),
        (EITHER, True, False, 3),
        (CHEAP_WHOLE, True, False, 1),
        (CHEAP_HALVES, True, False, 3),
    ],
)
def test_ways_of_the_backward(costs, can, must, least):
    assert (costs.can_divide, costs.must_divide, costs.least_backward_ticks) == (can, must, least)


def test_derived_values():
    stages = (replace(DIVIDED, static_bytes=7), UNDIVIDED, replace(CHEAP_WHOLE, static_bytes=1))
    problem = Problem(
        num_ranks=2,
        num_microbatches=10,
        placement=Placement.explicit((1, 0, 1)),
        stages=stages,
        transfer_ticks=((99, 3), (4, 99)),
    )
    assert problem.num_stages == 3
    assert problem.stages_by_rank == ((1,), (0, 2))
    assert problem.static_bytes_by_rank == (0, 8)
    assert problem.work_ticks_by_rank == (50, 80)
    assert problem.work_ticks == 80
    # The diagonal is ignored.
    assert [problem.lag_ticks(*pair) for pair in ((0, 1), (1, 2), (2, 1), (0, 2))] == [4, 3, 4, 0]


def test_uniform_problem():
    problem = uniform_problem(
        2, 3, DIVIDED, transfer_ticks=5, chunks=2, kind=PlacementKind.V, memory_limit_bytes=9, name="n"
    )
    assert problem.stage_to_rank == (0, 1, 1, 0)
    assert problem.transfer_ticks == ((0, 5), (5, 0)) == uniform_transfers(2, 5)
    assert problem.memory_limit_bytes == (9, 9)
    assert problem.with_memory_limit(None).memory_limit_bytes is None
    assert problem.with_memory_limit(4).memory_limit_bytes == (4, 4)
    assert problem.with_memory_limit([4, 5]).memory_limit_bytes == (4, 5)


@settings(max_examples=100)
@given(problems(with_limit=True))
def test_problems_are_values(problem):
    assert replace(problem) == problem
    assert hash(replace(problem)) == hash(problem)
    assert sum(map(len, problem.stages_by_rank)) == problem.num_stages
    assert problem.with_placement(problem.placement) == problem


GOOD = two_by_two()
ONE = OpCost(ticks=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_ranks": 0}, r"num_ranks is 0: give an integer ≥ 1"),
        ({"num_microbatches": 0}, r"num_microbatches is 0: give an integer ≥ 1"),
        ({"tick_seconds": 0.0}, r"tick_seconds is 0.0: give a finite length above 0"),
        ({"tick_seconds": float("nan")}, r"tick_seconds is nan"),
        ({"tick_seconds": float("inf")}, r"tick_seconds is inf"),
        ({"memory_limit_bytes": (1,)}, r"memory_limit_bytes is 1 long: give one integer, or one for each of"),
        ({"memory_limit_bytes": (1, -1)}, r"memory_limit_bytes\[1\] is -1: give an integer ≥ 0"),
        ({"memory_limit_bytes": (2**62, 1)}, r"memory_limit_bytes\[0\] is 4611686018427387904"),
        (
            {"placement": Placement.explicit((0,))},
            r"stage_to_rank is 1 long: give one rank for each of the 2",
        ),
        ({"placement": Placement.explicit((0, 2))}, r"stage_to_rank\[1\] is 2: give a rank from 0 to 1"),
        ({"placement": Placement.explicit((0, -1))}, r"stage_to_rank\[1\] is -1: give a rank from 0 to 1"),
        (
            {"placement": Placement.explicit((1, 1))},
            r"rank 0 holds no stage; give it one, or lower num_ranks",
        ),
        ({"transfer_ticks": ((0, 1),)}, r"ticks_by_rank_pair is 1 long: give 2 rows"),
        ({"transfer_ticks": ((0, 1), (1,))}, r"ticks_by_rank_pair\[1\] is 1 long: give 2 entries"),
        ({"transfer_ticks": ((0, -1), (1, 0))}, r"ticks_by_rank_pair\[0\]\[1\] is -1: give an integer ≥ 0"),
        ({"stages": (StageCosts(F=ONE), DIVIDED)}, r"stages\[0\] is given F: a stage gives B and W, or BW"),
        ({"stages": (DIVIDED, StageCosts(F=ONE, B=ONE))}, r"stages\[1\] is given F, B: a stage gives"),
        ({"stages": (DIVIDED, StageCosts(F=ONE, W=ONE, BW=ONE))}, r"stages\[1\] is given F, W, BW"),
        ({"stages": (StageCosts(F=OpCost(ticks=0), BW=ONE), DIVIDED)}, r"stages\[0\].F.ticks is 0"),
        (
            {"stages": (DIVIDED, StageCosts(F=OpCost(ticks=1, alloc_bytes=-1), BW=ONE))},
            r"stages\[1\].F.alloc_bytes is -1: give an integer ≥ 0",
        ),
        (
            {"stages": (DIVIDED, StageCosts(F=ONE, BW=OpCost(ticks=1, free_bytes=-2)))},
            r"stages\[1\].BW.free_bytes is -2: give an integer ≥ 0",
        ),
        ({"stages": (DIVIDED, replace(DIVIDED, static_bytes=-1))}, r"stages\[1\].static_bytes is -1"),
        (
            {"stages": (DIVIDED, StageCosts(F=OpCost(ticks=LARGEST_SUM // 2), BW=ONE))},
            r"ticks per microbatch over 2 microbatches: sums must stay below 2\*\*62; use a larger tick",
        ),
        (
            {"stages": (DIVIDED, StageCosts(F=OpCost(ticks=1, alloc_bytes=LARGEST_SUM // 2), BW=ONE))},
            r"bytes per microbatch over 2 microbatches: sums must stay below 2\*\*62; use a larger memory",
        ),
    ],
)
def test_what_is_no_problem(change, message):
    with pytest.raises(InvalidProblemError, match=message):
        replace(GOOD, **change)
