"""Cutting stages into chunks and merging them back."""

from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.chunks import cut_every_way, cut_stages, merge_into_ranks
from synth.errors import InputError, InvalidProblemError
from synth.instances import load_instance
from synth.memory import one_f_one_b_bytes
from synth.placement import Placement, PlacementKind
from synth.problem import OpCost, Problem, StageCosts, uniform_problem


def test_published_profile_in_two():
    problem = load_instance("zb-1.5b-m24")
    stage = problem.stages[0]
    assert (stage.F.ticks, stage.B.ticks, stage.W.ticks) == (18522, 18086, 9337)
    cut = cut_stages(problem, 2, PlacementKind.V)
    # Halves to even: 4668.5 is 4668; the backward in one piece, 27423, is 13712.
    assert [cost.ticks for _, cost in cut.problem.stages[0].offered] == [9261, 9043, 4668, 13712]
    assert cut.problem.stage_to_rank == (0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 0)
    assert (cut.rounding_ticks, cut.bytes_scale) == (1, 2)
    assert cut.problem.stages[0].F.alloc_bytes == 2
    assert cut.problem.num_microbatches == 24
    assert cut.problem.transfer_ticks == problem.transfer_ticks


def stage_of(held: int, static: int = 0, freed: int = 0) -> StageCosts:
    return StageCosts(
        F=OpCost(ticks=6, alloc_bytes=held),
        B=OpCost(ticks=6, free_bytes=freed),
        W=OpCost(ticks=6, free_bytes=held - freed),
        static_bytes=static,
    )


@pytest.mark.parametrize(
    ("stage", "chunks", "scale"),
    [
        (stage_of(12, 24, 6), 2, 1),
        (stage_of(12, 24, 6), 3, 1),
        (stage_of(12, 24, 6), 4, 2),
        (stage_of(12, 25, 6), 2, 2),
        (stage_of(3), 2, 2),
        (stage_of(4, 0, 2), 8, 4),
        (stage_of(0), 5, 1),
    ],
)
def test_bytes_are_scaled_by_the_least_that_divides(stage, chunks, scale):
    problem = uniform_problem(2, 3, stage, memory_limit_bytes=77)
    cut = cut_stages(problem, chunks, PlacementKind.LOOP)
    assert cut.bytes_scale == scale
    assert cut.problem.memory_limit_bytes == (77 * scale,) * 2
    for costs in cut.problem.stages:
        assert costs.static_bytes * chunks == stage.static_bytes * scale
        for kind, cost in costs.offered:
            assert cost.alloc_bytes * chunks == stage.cost(kind).alloc_bytes * scale
            assert cost.free_bytes * chunks == stage.cost(kind).free_bytes * scale


@settings(max_examples=100)
@given(problems(max_chunks=1), st.integers(1, 5))
def test_merging_what_was_cut(problem, chunks):
    """All is as it was but for the scale of bytes and the rounding of ticks."""
    problem = problem.with_placement(Placement.explicit(range(problem.num_ranks)))
    cut = cut_stages(problem, chunks, PlacementKind.WAVE)
    assert cut.problem.num_stages == problem.num_ranks * chunks
    merged = merge_into_ranks(cut.problem)
    assert merged.stage_to_rank == problem.stage_to_rank
    for before, after in zip(problem.stages, merged.stages, strict=True):
        assert after.static_bytes == before.static_bytes * cut.bytes_scale
        for (kind, old), (same, new) in zip(before.offered, after.offered, strict=True):
            assert kind is same
            assert new.alloc_bytes == old.alloc_bytes * cut.bytes_scale
            assert new.free_bytes == old.free_bytes * cut.bytes_scale
            assert abs(new.ticks - old.ticks) <= cut.rounding_ticks
    exact = all(cost.ticks % chunks == 0 for costs in problem.stages for _, cost in costs.offered)
    assert (cut.rounding_ticks == 0) == exact


def test_a_tick_is_not_cut_to_nothing():
    stage = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=1))
    cut = cut_stages(uniform_problem(1, 1, stage), 4, PlacementKind.LOOP)
    assert [cost.ticks for _, cost in cut.problem.stages[0].offered] == [1, 1]
    assert cut.rounding_ticks == 3


def test_layers_are_dealt_out_where_they_divide():
    layers = ("a", "b", "c", "d")
    problem = uniform_problem(2, 1, replace(DIVIDED, layers=layers))
    cut = cut_stages(problem, 2, PlacementKind.V).problem
    assert [costs.layers for costs in cut.stages] == [("a", "b"), ("c", "d")] * 2
    assert merge_into_ranks(cut).stages[0].layers == layers
    odd = cut_stages(problem, 3, PlacementKind.LOOP).problem
    assert {costs.layers for costs in odd.stages} == {()}


def test_auto_is_kept_for_the_solver():
    cut = cut_stages(uniform_problem(2, 1, DIVIDED), 2, PlacementKind.AUTO).problem
    assert cut.placement.kind is PlacementKind.AUTO
    assert cut.stage_to_rank == (0, 1, 0, 1)


def test_names_say_so():
    named = replace(uniform_problem(2, 1, DIVIDED), name="n")
    assert cut_stages(named, 2, PlacementKind.V).problem.name == "n in 2 chunks"
    assert cut_stages(named, 1, PlacementKind.LOOP).problem.name == "n"
    assert cut_stages(replace(named, name=""), 2, PlacementKind.V).problem.name == ""


@pytest.mark.parametrize(
    ("problem", "chunks", "kind", "error", "message"),
    [
        (
            uniform_problem(2, 1, DIVIDED, chunks=2),
            2,
            "v",
            InputError,
            "--chunks 2 is given with 4 stages on 2 ranks: only a problem with one stage per rank can be cut",
        ),
        (uniform_problem(2, 1, DIVIDED), 0, "loop", InputError, "--chunks is 0: give an integer ≥ 1"),
        (uniform_problem(2, 1, DIVIDED), 3, "v", InvalidProblemError, "v placement needs exactly two stages"),
        (uniform_problem(2, 1, DIVIDED), 1, "v", InvalidProblemError, "v placement needs exactly two stages"),
    ],
)
def test_what_cannot_be_cut(problem, chunks, kind, error, message):
    with pytest.raises(error, match=message):
        cut_stages(problem, chunks, PlacementKind(kind))


@settings(max_examples=80)
@given(problems(max_chunks=1, with_limit=True), st.sampled_from([None, "loop", "v", "wave", "auto"]))
def test_every_way_of_cutting_is_exact_and_compares(problem, kind):
    """Merged again, every cut is the same problem, ``ticks_scale`` and ``bytes_scale`` times as fine."""
    problem = problem.with_placement(Placement.explicit(range(problem.num_ranks)))
    cuts = cut_every_way(problem, None if kind is None else PlacementKind(kind))
    chunks = [cut.num_stages // problem.num_ranks for cut in cuts.problems]
    assert chunks == ([2] if kind == "v" else [1, 2, 4])
    assert cuts.ticks_scale in (1, 2, 4)
    limits = [limit * cuts.bytes_scale for limit in problem.memory_limit_bytes]
    for cut in cuts.problems:
        assert cut.placement.kind == (kind or ("map" if cut.num_stages == problem.num_ranks else "loop"))
        assert cut.tick_seconds * cuts.ticks_scale == problem.tick_seconds
        assert list(cut.memory_limit_bytes) == limits
        assert one_f_one_b_bytes(cut) == one_f_one_b_bytes(problem) * cuts.bytes_scale
        for before, after in zip(problem.stages, merge_into_ranks(cut).stages, strict=True):
            assert after.static_bytes == before.static_bytes * cuts.bytes_scale
            for (_, old), (_, new) in zip(before.offered, after.offered, strict=True):
                assert new.ticks == old.ticks * cuts.ticks_scale
                assert new.alloc_bytes == old.alloc_bytes * cuts.bytes_scale
                assert new.free_bytes == old.free_bytes * cuts.bytes_scale
        for old, new in zip(problem.transfer_ticks, cut.transfer_ticks, strict=True):
            assert [ticks * cuts.ticks_scale for ticks in old] == list(new)


def test_units_stay_where_all_divides():
    stage = replace(stage_of(8, 0, 4), F=OpCost(ticks=4, alloc_bytes=8), B=OpCost(ticks=8, free_bytes=4))
    stage = replace(stage, W=OpCost(ticks=4, free_bytes=4))
    cuts = cut_every_way(uniform_problem(2, 3, stage), PlacementKind.AUTO)
    assert (cuts.ticks_scale, cuts.bytes_scale) == (1, 1)


def test_only_whole_ranks_are_cut_every_way():
    with pytest.raises(InputError, match="--chunks auto is given with 4 stages on 2 ranks: only a problem"):
        cut_every_way(uniform_problem(2, 1, DIVIDED, chunks=2), None)


def merged_stage(*stages: StageCosts) -> StageCosts:
    problem = Problem(
        num_ranks=1,
        num_microbatches=1,
        placement=Placement.explicit((0,) * len(stages)),
        stages=stages,
        transfer_ticks=((0,),),
        memory_limit_bytes=(0,),
    )
    merged = merge_into_ranks(problem)
    assert merged.memory_limit_bytes is None
    return merged.stages[0]


@pytest.mark.parametrize(
    ("stages", "kinds", "ticks"),
    [
        ((DIVIDED, DIVIDED), "F B W", [4, 4, 2]),
        ((EITHER, EITHER), "F B W BW", [4, 4, 2, 6]),
        ((DIVIDED, EITHER), "F B W", [4, 4, 2]),
        ((UNDIVIDED, EITHER), "F BW", [4, 6]),
        ((UNDIVIDED, DIVIDED), "F BW", [4, 6]),
    ],
)
def test_a_merged_stage_offers_what_all_parts_do(stages, kinds, ticks):
    merged = merged_stage(*stages)
    assert [str(kind) for kind, _ in merged.offered] == kinds.split()
    assert [cost.ticks for _, cost in merged.offered] == ticks
    assert merged.F.alloc_bytes == 4
    assert sum(cost.free_bytes for kind, cost in merged.offered if kind != "BW") in (0, 4)


def test_uneven_counts_merge_as_evenly_as_can_be():
    problem = Problem(
        num_ranks=2,
        num_microbatches=1,
        placement=Placement.explicit((1, 0, 1, 0, 1)),
        stages=(DIVIDED,) * 5,
        transfer_ticks=((0, 0), (0, 0)),
    )
    assert [costs.F.ticks for costs in merge_into_ranks(problem).stages] == [6, 4]


def test_merging_one_stage_per_rank_keeps_the_placement():
    problem = uniform_problem(3, 4, EITHER, memory_limit_bytes=9)
    turned = problem.with_placement(Placement.explicit((2, 0, 1)))
    assert merge_into_ranks(turned) == replace(turned, memory_limit_bytes=None)
