"""Free placements: as well balanced as any map, within the limits, and never a map twice."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.errors import InfeasibleError
from synth.free_maps import LARGEST_MODEL, free_maps, open_placements, placement_name
from synth.memory import feasible_placements
from synth.placement import Placement, PlacementKind, place
from synth.problem import OpCost, Problem, StageCosts, uniform_problem, uniform_transfers


def stage(ticks: int, held: int = 2) -> StageCosts:
    return StageCosts(
        F=OpCost(ticks=ticks, alloc_bytes=held), B=OpCost(ticks=ticks), W=OpCost(ticks=ticks, free_bytes=held)
    )


def left_open(num_ranks: int, *stages: StageCosts, transfer_ticks: int = 1) -> Problem:
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=4,
        placement=place(PlacementKind.AUTO, num_ranks, len(stages)),
        stages=stages,
        transfer_ticks=uniform_transfers(num_ranks, transfer_ticks),
    )


def all_maps(problem: Problem) -> list[Problem]:
    maps = product(range(problem.num_ranks), repeat=problem.num_stages)
    full = (stage_to_rank for stage_to_rank in maps if len(set(stage_to_rank)) == problem.num_ranks)
    return [problem.with_placement(Placement.explicit(stage_to_rank)) for stage_to_rank in full]


def test_a_v_holds_the_least_where_all_stages_are_equal():
    """Every rank's lifespans add up to the same only if stage s sits beside stage 2p-1-s."""
    problem = left_open(4, *[stage(1)] * 8)
    assert (0, 1, 2, 3, 3, 2, 1, 0) in free_maps(problem)
    assert (0, 0, 1, 1, 2, 2, 3, 3) in free_maps(problem)


@settings(max_examples=40)
@given(st.integers(2, 3), st.lists(st.integers(1, 30), min_size=3, max_size=6), st.integers(0, 5))
def test_the_first_map_is_balanced_best(num_ranks, ticks, transfer):
    problem = left_open(num_ranks, *map(stage, ticks), transfer_ticks=transfer)
    first = problem.with_placement(Placement.explicit(free_maps(problem, 20)[0]))
    assert first.work_ticks == min(placed.work_ticks for placed in all_maps(problem))


@settings(max_examples=60)
@given(problems(max_ranks=3, max_chunks=2, with_limit=True))
def test_maps_are_whole_and_missing_only_where_nothing_fits(problem):
    auto = place(PlacementKind.AUTO, problem.num_ranks, problem.num_stages)
    problem = problem.with_placement(auto)
    maps = free_maps(problem, 20)
    assert len(set(maps)) == len(maps)
    assert all(set(stage_to_rank) == set(range(problem.num_ranks)) for stage_to_rank in maps)
    if not maps and problem.num_ranks > 1:
        with pytest.raises(InfeasibleError):
            feasible_placements(all_maps(problem))


def test_the_heavy_stage_goes_where_there_is_memory():
    problem = left_open(2, stage(1, held=9), stage(1, held=1)).with_memory_limit([2, 9])
    assert free_maps(problem) == [(1, 0)]
    (placed,) = feasible_placements(open_placements(problem))
    assert placed.stage_to_rank == (1, 0)


def test_neighbours_go_where_the_link_is_fast():
    problem = left_open(3, *[stage(100)] * 3)
    slow = ((0, 50, 1), (50, 0, 1), (1, 1, 0))
    maps = free_maps(replace(problem, transfer_ticks=slow))
    assert maps[0] in ((0, 2, 1), (1, 2, 0))


def test_costs_of_any_size():
    tera = 10**12
    problem = left_open(2, stage(tera, held=tera), stage(1), stage(tera, held=tera), stage(1))
    placed = problem.with_placement(Placement.explicit(free_maps(problem)[0]))
    assert placed.work_ticks // tera == 4 * 3


def test_where_there_is_nothing_to_choose():
    assert free_maps(left_open(1, stage(1), stage(2))) == []
    assert free_maps(uniform_problem(16, 2, stage(1), chunks=LARGEST_MODEL // 16**2 + 1)) == []
    loop = uniform_problem(3, 2, stage(1))
    assert open_placements(loop) == (loop,)
    assert open_placements(replace(loop, placement=place(PlacementKind.AUTO, 3, 3))) == (loop,)


def test_names():
    problem = left_open(2, *[stage(1)] * 4)
    names = [placement_name(placed) for placed in open_placements(problem)]
    assert names == ["loop", "wave", "0-0-1-1"]
