"""Named placements, and the counts each of them needs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidProblemError
from synth.placement import Placement, PlacementKind, place


@pytest.mark.parametrize(
    ("kind", "num_ranks", "num_stages", "ranks"),
    [
        ("loop", 4, 4, "0123"),
        ("loop", 4, 8, "01230123"),
        ("v", 4, 8, "01233210"),
        ("v", 1, 2, "00"),
        ("wave", 4, 4, "0123"),
        ("wave", 4, 12, "012332100123"),
        ("auto", 3, 6, "012012"),
    ],
)
def test_named_maps(kind, num_ranks, num_stages, ranks):
    placement = place(PlacementKind(kind), num_ranks, num_stages)
    assert placement.kind == kind
    assert placement.stage_to_rank == tuple(map(int, ranks))


@given(st.integers(1, 9), st.integers(1, 6))
def test_every_rank_holds_as_many_stages(num_ranks, chunks):
    for kind in (PlacementKind.LOOP, PlacementKind.WAVE):
        ranks = place(kind, num_ranks, num_ranks * chunks).stage_to_rank
        assert [ranks.count(rank) for rank in range(num_ranks)] == [chunks] * num_ranks


@given(st.integers(1, 9), st.integers(1, 6))
def test_a_wave_turns_without_a_transfer(num_ranks, chunks):
    ranks = place(PlacementKind.WAVE, num_ranks, num_ranks * chunks).stage_to_rank
    assert all(abs(a - b) <= 1 for a, b in pairwise(ranks))


def test_a_v_is_a_wave_of_two():
    wave = place(PlacementKind.WAVE, 5, 10).stage_to_rank
    assert place(PlacementKind.V, 5, 10).stage_to_rank == wave


@pytest.mark.parametrize(
    ("kind", "num_ranks", "num_stages", "message"),
    [
        ("loop", 4, 7, r"7 long with 4 ranks: loop placement needs a multiple of the ranks; use 4 or 8"),
        ("wave", 4, 3, r"3 long with 4 ranks: wave placement needs a multiple of the ranks; use 4, or"),
        ("auto", 4, 3, r"3 long with 4 ranks: every rank holds a stage; use 4 stages or more"),
        ("v", 4, 4, r"v placement needs exactly two stages per rank; use 8, or wave for more"),
        ("v", 4, 12, r"v placement needs exactly two stages per rank; use 8, or wave for more"),
    ],
)
def test_counts_that_do_not_fit(kind, num_ranks, num_stages, message):
    with pytest.raises(InvalidProblemError, match=message):
        place(PlacementKind(kind), num_ranks, num_stages)


def test_auto_takes_any_number_of_stages():
    assert place(PlacementKind.AUTO, 2, 5).stage_to_rank == (0, 1, 0, 1, 0)


def test_explicit_maps_are_kept():
    assert Placement.explicit([1, 0, 0]) == Placement(kind=PlacementKind.MAP, stage_to_rank=(1, 0, 0))
