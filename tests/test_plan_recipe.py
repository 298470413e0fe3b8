"""Shapes, their bounds and their problems; what double buffering holds, by the 2BW paper's formulas."""

import pickle
from dataclasses import replace

import pytest
from models import core_training, gpt
from plan_cases import MIB, everything, fleet_of, recipe_of, with_limit

from costmodels.layers import model_layers
from costmodels.optimizer_state import static_bytes
from costmodels.plans.recipe import PlanRecipe
from costmodels.plans.seats import SeatOrder
from costmodels.plans.shapes import Shape, Space
from costmodels.training import Recompute
from synth.baselines import baseline_orders
from synth.drafts import WeightPolicy
from synth.errors import InputError
from synth.planner.steps import least_step_ticks
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import peak_memory_bytes


def test_a_key_is_its_shape():
    recipe = recipe_of(8)
    assert len(set(recipe.keys)) == len(recipe.keys) > 200
    assert all(Shape.of(key).key == key for key in recipe.keys)


def test_what_the_space_holds():
    """All GPUs, everything divides, tensor peers in a node, double buffers with p microbatches or more."""
    for key in recipe_of(8, batch=16).keys:
        shape = Shape.of(key)
        count = 16 // shape.dp // shape.microbatch
        assert shape.pp * shape.dp * shape.tp == 8
        assert count * shape.dp * shape.microbatch == 16
        assert shape.tp in (1, 2, 4)
        if shape.weights is WeightPolicy.DOUBLE_BUFFERED:
            assert shape.chunks == 1
            assert count >= shape.pp


def test_the_space_by_hand():
    """Two GPUs, four sequences, one chunk, no recomputation, flushed: (pp, dp, tp, microbatch)."""
    recipe = recipe_of(2, batch=4, chunks=(1,), recompute=(Recompute.NONE,), weights=(WeightPolicy.FLUSH,))
    shapes = [Shape.of(key) for key in recipe.keys]
    assert [(s.pp, s.dp, s.tp, s.microbatch) for s in shapes] == [
        *[(1, 2, 1, 1), (1, 2, 1, 2)],
        *[(2, 1, 1, 1), (2, 1, 1, 2), (2, 1, 1, 4)],
        *[(1, 1, 2, 1), (1, 1, 2, 2), (1, 1, 2, 4)],
    ]


def test_degrees_can_be_fixed():
    recipe = recipe_of(8, batch=16, pp=(4,), microbatch=(2, 4), seats=(SeatOrder.REPLICAS,))
    shapes = [Shape.of(key) for key in recipe.keys]
    assert {s.pp for s in shapes} == {4}
    assert {s.microbatch for s in shapes} == {2, 4}
    assert {s.seats for s in shapes} == {SeatOrder.REPLICAS}


@pytest.mark.parametrize("limit_mib", [4096, 150, 110])
def test_an_outline_is_a_bound(limit_mib):
    """Never above what laying out proves, and refused only what cannot be laid out or does not fit."""
    recipe = recipe_of(4, limit_mib=limit_mib, chunks=(1, 2))
    refused = 0
    for key, verdict in everything(recipe).items():
        outline = recipe.outline(key)
        refused += bool(outline.refusal)
        if outline.refusal:
            assert verdict.step_ticks is None
        elif not verdict.refusal:
            assert outline.least_ticks <= least_step_ticks(recipe.draft(key)) == verdict.least_ticks
    assert bool(refused) == (limit_mib < 4096)


def test_a_draft_says_where_its_ranks_are():
    """On two nodes of four: neighbouring stages are near, or neighbouring replicas."""
    shape = Shape(pp=4, dp=2, tp=1, microbatch=1)
    recipe = recipe_of(8)
    near = recipe.draft(shape.key)
    far = recipe.draft(replace(shape, seats=SeatOrder.REPLICAS).key)
    assert len({near.problem.transfer_ticks[a][a + 1] for a in range(3)}) == 1
    assert (
        far.problem.transfer_ticks[1][2]
        > far.problem.transfer_ticks[0][1]
        == near.problem.transfer_ticks[0][1]
    )
    assert max(far.all_reduce_ticks) < min(near.all_reduce_ticks)
    assert "neighbours replicas" in far.problem.source


def test_one_replica_sums_nothing():
    assert recipe_of(4).draft(Shape(pp=4, dp=1, tp=1, microbatch=1).key).all_reduce_ticks == (0,) * 4


def test_a_recipe_travels():
    recipe = recipe_of(4)
    recipe.outline(recipe.keys[0])
    there = pickle.loads(pickle.dumps(recipe))
    assert there.keys == recipe.keys
    assert there.fingerprint == recipe.fingerprint != with_limit(recipe, 77).fingerprint
    assert there.outline(recipe.keys[3]) == recipe.outline(recipe.keys[3])


def test_a_recipe_stays_in_its_process():
    """Sent again, it is the one that was there, with what it has computed."""
    sent = pickle.dumps(recipe_of(4))
    assert pickle.loads(sent) is pickle.loads(sent)


def test_a_plan_does_not_hang_on_neighbours():
    recipe, shape = recipe_of(8), Shape(pp=4, dp=2, tp=1, microbatch=1)
    assert recipe.plan(shape) is recipe.plan(replace(shape, seats=SeatOrder.REPLICAS))


@pytest.mark.parametrize(("limit_mib", "binds"), [(4096, False), (105, True)])
def test_the_memory_of_all_ranks_bounds_a_step(limit_mib, binds):
    """Where little fits at once, a step is longer than its work and one microbatch's way."""
    recipe = recipe_of(8, batch=64, limit_mib=limit_mib, weights=(WeightPolicy.FLUSH,), pp=(8,))
    room = with_limit(recipe, 1 << 20)
    longer = [key for key in recipe.keys if recipe.outline(key).least_ticks > room.outline(key).least_ticks]
    assert bool(longer) == binds
    for key in longer:
        if not recipe.outline(key).refusal:
            assert recipe.outline(key).least_ticks <= least_step_ticks(recipe.draft(key))


def test_ends_of_the_model_take_room():
    """Where all but the embedding or the head would fit, the outline says so, and laying out agrees."""
    recipe = recipe_of(4, chunks=(1, 2), weights=(WeightPolicy.FLUSH,))
    for limit_mib in range(60, 200, 20):
        tight = with_limit(recipe, limit_mib)
        for key in tight.keys:
            if tight.outline(key).refusal:
                with pytest.raises(InputError):
                    tight.draft(key)


def test_what_does_not_fit_is_refused():
    recipe = recipe_of(4, limit_mib=1)
    with pytest.raises(InputError, match="no cut fits"):
        recipe.draft(Shape(pp=4, dp=1, tp=1, microbatch=1).key)
    assert "more than 1 rank of 0.0 GiB" in recipe.outline(recipe.keys[0]).refusal


@pytest.mark.parametrize(("gpus", "degrees"), [(6, {1, 2, 3, 6}), (16, {1, 2, 4, 8}), (12, {1, 2, 4})])
def test_tensor_peers_share_the_node_there_is(gpus, degrees):
    """Fewer GPUs than a node of eight are a node of their own, so three of six may be peers."""
    fleet = fleet_of(gpus, gpus_per_node=8)
    shapes = Space(batch=48).shapes(fleet, 4)
    assert {shape.tp for shape in shapes} == degrees
    assert {shape.seats for shape in shapes} == set(SeatOrder if gpus > 8 else [SeatOrder.STAGES])


def test_heads_that_do_not_divide():
    model = gpt(heads=8)
    recipe = PlanRecipe(model, core_training(), fleet_of(16, gpus_per_node=16), Space(batch=16, tp=(16,)))
    assert "8 attention heads" in recipe.outline(recipe.keys[0]).refusal


def test_two_versions_of_the_weights():
    """Double buffering holds one more copy of the weights and nothing else: 2|W| (arXiv 2006.09503)."""
    model = gpt()
    one, two = core_training(), core_training(weight_versions=2)
    for layer, same in zip(model_layers(model, one), model_layers(model, two), strict=True):
        before, after = static_bytes(layer, one), static_bytes(same, two)
        assert after.weights == 2 * before.weights
        assert (after.gradients, after.optimizer) == (before.gradients, before.optimizer)


def statics(dp, weights):
    shape = Shape(pp=2, dp=dp, tp=1, microbatch=1, weights=weights)
    plan = recipe_of(2 * dp, layers=8).plan(shape)
    return [(static.weights, static.gradients, static.optimizer) for static in plan.static_by_rank]


@pytest.mark.parametrize(("dp", "accumulators"), [(1, 1), (2, 2), (4, 2)])
def test_a_sum_beside_the_next_batch_needs_a_second_accumulator(dp, accumulators):
    """With replicas: while one batch's gradients are summed, the next one's add up elsewhere."""
    flushed, buffered = (statics(dp, policy) for policy in WeightPolicy)
    for (weights, gradients, optimizer), found in zip(flushed, buffered, strict=True):
        assert found == (2 * weights, accumulators * gradients, optimizer)


W, TOTAL, INPUT = 1000, 64, 4
"""Weights, all activations of a microbatch, what recomputation keeps of them: over all ranks."""


def published_peak(schedule, p, m, versions):
    """The problem of the paper's memory table, all of it shared by p ranks, with recomputation."""
    kept, again = INPUT, TOTAL // p
    stage = StageCosts(
        F=OpCost(ticks=1, alloc_bytes=kept),
        BW=OpCost(ticks=2, alloc_bytes=again, free_bytes=kept + again),
        static_bytes=versions * W // p,
    )
    problem = uniform_problem(p, m, stage)
    return max(peak_memory_bytes(problem, baseline_orders(schedule, problem)))


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("batches", [1, 2, 4])
def test_published_memory(p, batches):
    """2BW 2|W|/p + A/p + p·A_in, PipeDream-Flush |W|/p + A/p + p·A_in, GPipe |W|/p + A/p + m·A_in.

    2BW is 1F1B's order with two versions of the weights.
    """
    m = p * batches
    assert published_peak("1f1b", p, m, versions=2) == 2 * W // p + TOTAL // p + p * INPUT
    assert published_peak("1f1b", p, m, versions=1) == W // p + TOTAL // p + p * INPUT
    assert published_peak("gpipe", p, m, versions=1) == W // p + TOTAL // p + m * INPUT


def test_the_planner_holds_what_the_formula_says():
    """Of a real model: the 2BW draft holds what the flushed one does, and one more copy of the weights."""
    recipe = recipe_of(4, layers=8)
    shape = Shape(pp=4, dp=1, tp=1, microbatch=1)
    flushed = recipe.plan(shape)
    buffered = recipe.plan(replace(shape, weights=WeightPolicy.DOUBLE_BUFFERED))
    assert flushed.stage_layers == buffered.stage_layers
    more = [b.total - f.total for b, f in zip(buffered.static_by_rank, flushed.static_by_rank, strict=True)]
    assert more == [static.weights for static in flushed.static_by_rank]
    assert flushed.static_by_rank[0].weights > MIB
