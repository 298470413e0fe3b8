"""PipeDream's planner against brute force, and its conclusion beside equal widths."""

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.plans.pipedream import LayerProfile, Level, PipeDreamStage, plan_pipedream


def layers_of(*seconds, output=0, weights=0, kept=0):
    return [
        LayerProfile(seconds=s, output_bytes=output, weight_bytes=weights, kept_bytes=kept) for s in seconds
    ]


def brute_force(layers, level):
    """The least of the slowest stage or link over every cut and every replication on one level."""
    n, best = len(layers), float("inf")
    for count in range(1, min(n, level.units) + 1):
        for inner in combinations(range(1, n), count - 1):
            cuts = (0, *inner, n)
            for replicas in product(range(1, level.units + 1), repeat=count):
                if sum(replicas) == level.units:
                    best = min(best, slowest(layers, level, cuts, replicas))
    return best


def slowest(layers, level, cuts, replicas):
    times = [2 * layers[cut - 1].output_bytes / level.bytes_per_s for cut in cuts[1:-1]]
    for first, last, m in zip(cuts[:-1], cuts[1:], replicas, strict=True):
        stage = layers[first:last]
        summed = 2 * (m - 1) * sum(layer.weight_bytes for layer in stage) / level.bytes_per_s
        times.append(max(sum(layer.seconds for layer in stage), summed) / m)
    return max(times)


profiles = st.lists(
    st.builds(
        LayerProfile,
        seconds=st.integers(1, 9).map(float),
        output_bytes=st.integers(0, 5),
        weight_bytes=st.integers(0, 5),
    ),
    min_size=1,
    max_size=5,
)


@given(profiles, st.integers(1, 4))
@settings(max_examples=60)
def test_one_level_is_optimal(layers, units):
    level = Level(units=units, bytes_per_s=2.0)
    plan = plan_pipedream(layers, [level])
    assert plan.period_s == pytest.approx(brute_force(layers, level))
    assert sum(stage.replicas for stage in plan.stages) == units
    cuts = [0, *(stage.last for stage in plan.stages)]
    assert [stage.first for stage in plan.stages] == cuts[:-1]
    assert slowest(layers, level, cuts, [s.replicas for s in plan.stages]) == pytest.approx(plan.period_s)


def test_unequal_replication():
    """Light layers with many weights behind heavy ones with few, as in VGG: only the heavy are replicated."""
    heavy = layers_of(6.0, 6.0, 6.0)
    light = layers_of(6.0, weights=1000)
    plan = plan_pipedream([*heavy, *light], [Level(units=4, bytes_per_s=100.0)])
    assert plan.stages == (
        PipeDreamStage(first=0, last=3, replicas=3),
        PipeDreamStage(first=3, last=4, replicas=1),
    )
    assert plan.period_s == 6.0
    assert plan.versions() == (2, 1)


def test_levels_multiply():
    """Two nodes of two: all four do everything, or with weights to sum each node does a layer."""
    inside, between = Level(units=2, bytes_per_s=10.0), Level(units=2, bytes_per_s=1.0)
    everything = plan_pipedream(layers_of(4.0, 4.0), [inside, between])
    assert everything.stages == (PipeDreamStage(first=0, last=2, replicas=4),)
    assert everything.period_s == 2.0
    straight = plan_pipedream(layers_of(4.0, 4.0, weights=100), [inside, between])
    assert [stage.replicas for stage in straight.stages] == [2, 2]
    assert straight.period_s == 2 * 100 / 10.0 / 2


def test_straight_where_sums_are_dear():
    """A stage for every GPU."""
    plan = plan_pipedream(layers_of(1.0, 1.0, 1.0, 1.0, weights=10**6), [Level(units=4, bytes_per_s=1.0)])
    assert [stage.replicas for stage in plan.stages] == [1, 1, 1, 1]


@pytest.mark.parametrize(("depth", "width"), [(2, 4), (4, 2), (8, 1)])
def test_equal_widths_lose_nothing_on_equal_blocks(depth, width):
    """2BW's conclusion: of a model of equal blocks, equal widths are as good (arXiv 2006.09503)."""
    blocks = layers_of(*[1.0] * 16)
    level = Level(units=8, bytes_per_s=1.0)
    best = plan_pipedream(blocks, [level]).period_s
    cuts = range(0, 17, 16 // depth)
    assert slowest(blocks, level, list(cuts), [width] * depth) == pytest.approx(best)


def test_stashes():
    """Straight over four: p - s versions of a stage's weights and activations."""
    layers = layers_of(1.0, 1.0, 1.0, 1.0, weights=10**6, kept=7)
    plan = plan_pipedream(layers, [Level(units=4, bytes_per_s=1.0)])
    assert plan.versions() == (4, 3, 2, 1)
    assert plan.bytes_by_stage(layers) == tuple(n * (10**6 + 7) for n in (4, 3, 2, 1))
