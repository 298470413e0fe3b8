"""Cuts: against trying every one, and by hand."""

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.chain import Chain
from costmodels.partition import CutRules, balance_ranks, cut_layers, rank_bytes, stage_costs
from synth.errors import InputError
from synth.placement import PlacementKind, place


def chain_of(costs, static=None, glued=(), blocks=None, kept=None, again=None):
    nothing = [0] * len(costs)
    return Chain(
        costs=tuple(costs),
        static_bytes=tuple(static or nothing),
        kept_bytes=tuple(kept or nothing),
        extra_bytes=tuple(again or nothing),
        may_cut_before=tuple(layer not in glued for layer in range(len(costs))),
        blocks=tuple(blocks or [True] * len(costs)),
    )


def rules_of(num_ranks, chunks=1, kind=PlacementKind.LOOP, **given):
    return CutRules(stage_to_rank=place(kind, num_ranks, num_ranks * chunks).stage_to_rank, **given)


def every_cut(chain, rules):
    """All cuts that keep the rules."""
    layers, num_stages = len(chain.costs), len(rules.stage_to_rank)
    starts = [layer for layer in range(1, layers) if chain.may_cut_before[layer]]
    for inner in combinations(starts, num_stages - 1):
        cuts = (0, *inner, layers)
        first, last = sum(chain.blocks[: cuts[1]]), sum(chain.blocks[cuts[-2] :])
        limit = rules.limit_bytes
        if rules.first_blocks not in (None, first) or rules.last_blocks not in (None, last):
            continue
        if limit is None or max(replayed_bytes(chain, rules, cuts)) <= limit:
            yield cuts


def replayed_bytes(chain, rules, cuts):
    """What every rank needs, by playing one microbatch through all layers and back."""
    owner = [
        rank
        for rank, (first, last) in zip(rules.stage_to_rank, pairwise(cuts), strict=True)
        for _ in range(first, last)
    ]
    live = [0] * len(set(rules.stage_to_rank))
    for rank, static, kept in zip(owner, chain.static_bytes, chain.kept_bytes, strict=True):
        live[rank] += static + kept
    peaks = list(live)
    for layer in reversed(range(len(owner))):
        rank = owner[layer]
        peaks[rank] = max(peaks[rank], live[rank] + chain.extra_bytes[layer])
        live[rank] -= chain.kept_bytes[layer]
    return peaks


def rank_costs(chain, rules, cuts):
    taken = [0] * len(set(rules.stage_to_rank))
    for rank, cost in zip(rules.stage_to_rank, stage_costs(chain, cuts), strict=True):
        taken[rank] += cost
    return taken


def test_by_hand():
    """4 5 1 1 1 4 in three stages: 4 and 5 apart, and two of the ones with the 5."""
    chain = chain_of([4, 5, 1, 1, 1, 4])
    cuts = cut_layers(chain, rules_of(3))
    assert cuts == (0, 1, 3, 6)
    assert stage_costs(chain, cuts) == (4, 6, 6)


def test_equal_layers_are_spread_evenly():
    """Of the cuts with the same slowest stage, the one of least squares: 3 3 2 2, not 3 3 3 1."""
    chain = chain_of([1] * 10)
    assert sorted(stage_costs(chain, cut_layers(chain, rules_of(4)))) == [2, 2, 3, 3]


def test_glued_layers_stay_together():
    chain = chain_of([1, 1, 1, 1], glued={3})
    assert cut_layers(chain, rules_of(3)) == (0, 1, 2, 4)


def test_first_and_last_blocks():
    chain = chain_of([1, 2, 2, 2, 2, 2, 3], blocks=[False, True, True, True, True, True, False])
    assert cut_layers(chain, rules_of(3, first_blocks=1, last_blocks=1)) == (0, 2, 5, 7)


def test_memory_moves_a_cut():
    """Fastest is 2 2 | 2 2; the rank that cannot hold the first two takes one."""
    chain = chain_of([2, 2, 2, 2], [9, 2, 1, 1])
    assert cut_layers(chain, rules_of(2)) == (0, 2, 4)
    assert cut_layers(chain, rules_of(2, limit_bytes=10)) == (0, 1, 4)
    assert cut_layers(chain, rules_of(2, limit_bytes=8)) is None


def test_what_is_computed_again_finds_later_layers_gone():
    """2 + 2 + 2 kept, and 4 more in the first layer: its stage needs 6, not 10: 4 are gone by then."""
    chain, rules = chain_of([1, 1, 1, 1], kept=[2, 2, 2, 2], again=[4, 0, 0, 0]), rules_of(2, first_blocks=3)
    assert rank_bytes(chain, rules, (0, 3, 4)) == (6, 2)
    assert cut_layers(chain, replace(rules, limit_bytes=6)) == (0, 3, 4)
    assert cut_layers(chain, replace(rules, limit_bytes=5)) is None


def test_memory_is_that_of_all_stages_of_a_rank():
    """In a V, rank 0 has the first and the last stage: with 6 + 6 bytes one of them must shrink."""
    chain = chain_of([1] * 8, [3, 3, 1, 1, 1, 1, 3, 3])
    rules = rules_of(2, 2, PlacementKind.V, limit_bytes=9)
    assert cut_layers(chain, rules_of(2, 2, PlacementKind.V)) == (0, 2, 4, 6, 8)
    cuts = cut_layers(chain, rules)
    assert max(rank_bytes(chain, rules, cuts)) <= 9
    assert (
        max(stage_costs(chain, cuts)) == min(max(stage_costs(chain, c)) for c in every_cut(chain, rules)) == 3
    )


def test_ranks_are_balanced_too():
    """In a V the first rank has the costly last layer: 3 + 4 against 2 + 2 becomes 5 against 6, by moving
    layers from the first stage to the second and the third."""
    chain, rules = chain_of([1] * 9 + [2]), rules_of(2, 2, PlacementKind.V)
    before = (0, 3, 5, 7, 10)
    after = balance_ranks(chain, rules, before)
    assert rank_costs(chain, rules, before) == [7, 4]
    assert sorted(rank_costs(chain, rules, after)) == [5, 6]
    assert max(stage_costs(chain, after)) <= max(stage_costs(chain, before)) == 4


def test_balance_keeps_rules_and_memory():
    chain = chain_of([1] * 9 + [2], [5, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    rules = rules_of(2, 2, PlacementKind.V, limit_bytes=5, first_blocks=3)
    after = balance_ranks(chain, rules, (0, 3, 5, 7, 10))
    assert after[1] == 3
    assert after in list(every_cut(chain, rules))


@pytest.mark.parametrize(
    ("num_ranks", "given", "message"),
    [
        (5, {}, "5 stages are asked of a model that can be cut into 4 parts"),
        (2, {"first_blocks": 9}, "no cut has the blocks asked for"),
        (2, {"first_blocks": 2, "last_blocks": 3, "limit_bytes": 0}, "no cut has the blocks asked for"),
    ],
)
def test_impossible_cuts_are_refused(num_ranks, given, message):
    with pytest.raises(InputError, match=message):
        cut_layers(chain_of([1, 1, 1, 1]), rules_of(num_ranks, **given))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_as_good_as_trying_every_cut(data):
    layers = data.draw(st.integers(2, 9))
    num_ranks = data.draw(st.integers(1, min(3, layers)))
    chunks = data.draw(st.integers(1, layers // num_ranks))
    kind = data.draw(st.sampled_from([PlacementKind.LOOP, PlacementKind.WAVE]))
    amounts = st.lists(st.integers(0, 9), min_size=layers, max_size=layers)
    glued = data.draw(st.sets(st.integers(1, layers - 1), max_size=1))
    costs, static, kept, again = (data.draw(amounts) for _ in range(4))
    chain = chain_of(costs, static, glued, kept=kept, again=again)
    limit = data.draw(st.none() | st.integers(0, 9 * layers))
    first = data.draw(st.none() | st.integers(0, 3)) if num_ranks * chunks > 1 else None
    rules = rules_of(num_ranks, chunks, kind, limit_bytes=limit, first_blocks=first)
    ways = list(every_cut(chain, rules))
    try:
        found = cut_layers(chain, rules)
    except InputError:
        assert not ways
        return
    if found is None:
        assert not ways
        return
    assert found in ways
    best = min(max(stage_costs(chain, way)) for way in ways)
    assert max(stage_costs(chain, found)) == best
    slowest = [max(rank_costs(chain, rules, way)) for way in ways if max(stage_costs(chain, way)) == best]
    assert min(slowest) <= max(rank_costs(chain, rules, found)) <= max(slowest)
    if chunks == 1:
        squares = [
            sum(c * c for c in stage_costs(chain, way))
            for way in ways
            if max(stage_costs(chain, way)) == best
        ]
        assert sum(c * c for c in stage_costs(chain, found)) == min(squares)
