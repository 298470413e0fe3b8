"""From a model to a problem: transfers, limits, layers of stages, provenance, and what B and W add up to."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import NAMES, core_training, flash_training, gpt, model_of

from costmodels.cluster import Cluster
from costmodels.hardware import find_gpu, find_link
from costmodels.planning import Pipeline, boundary_bytes, make_plan
from costmodels.roofline import Efficiencies
from costmodels.training import Recompute
from synth.document import read_problem, write_problem
from synth.errors import InputError
from synth.memory import smallest_limits_bytes
from synth.placement import PlacementKind

H100 = Cluster(gpu=find_gpu("h100"))
LLAMA = model_of("llama-3-70b")
AS_ASKED = flash_training(microbatch_size=1, sequence_length=8192, tensor_parallel=8)
FOUR = Pipeline(num_ranks=4, num_microbatches=8)


def modules(plan):
    return [module for costs in plan.problem.stages for module in costs.layers]


def test_llama_70b_on_eight_ranks():
    """Ten blocks on every rank; embedding on the first, norm and head on the last."""
    plan = make_plan(LLAMA, AS_ASKED, Pipeline(num_ranks=8, num_microbatches=64), H100)
    assert [len(costs.layers) for costs in plan.problem.stages] == [11, 10, 10, 10, 10, 10, 10, 12]
    assert plan.problem.stages[0].layers[:2] == ("model.embed_tokens", "model.layers.0")
    assert plan.problem.stages[7].layers[-3:] == ("model.layers.79", "model.norm", "lm_head")
    assert plan.problem.memory_limit_bytes == (76 * 2**30,) * 8
    assert plan.cut_fits


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunks", [1, 2])
def test_every_module_is_in_one_stage(name, chunks):
    model = model_of(name)
    pipeline = replace(FOUR, chunks=chunks, kind=PlacementKind.WAVE)
    plan = make_plan(model, flash_training(microbatch_size=1), pipeline, H100)
    names = model.modules
    blocks = [names.block.format(index) for index in range(len(model.blocks))]
    assert modules(plan) == [*names.embeddings, *blocks, names.norm, names.head]


def test_document_says_the_same():
    plan = make_plan(LLAMA, AS_ASKED, replace(FOUR, chunks=2, kind=PlacementKind.V), H100)
    assert read_problem(write_problem(plan.problem)) == plan.problem


def test_transfers_by_hand():
    """1 · 8192 · 8192 entries of 2 bytes at 0.8 of 50 GB/s and 15 µs; an eighth with sequence parallelism."""
    plan = make_plan(LLAMA, AS_ASKED, FOUR, H100)
    assert plan.problem.transfer_ticks[0] == (0, *[round(2 * 8192**2 / 40e3 + 15)] * 3)
    shared = replace(AS_ASKED, sequence_parallel=True)
    assert boundary_bytes(LLAMA, shared) == 2 * 8192**2 // 8
    nvlink = replace(H100, rank_link=find_link("nvlink4"))
    assert make_plan(LLAMA, shared, FOUR, nvlink).problem.transfer_ticks[3][0] == round(2**24 / 360e3 + 5)


def test_latency_of_transfers():
    """What a runtime adds to every transfer, where it was measured."""
    slow = make_plan(LLAMA, AS_ASKED, FOUR, replace(H100, rank_latency_s=0.25e-3))
    assert slow.problem.transfer_ticks[0][1] == round(2 * 8192**2 / 40e3 + 250)
    assert "ib400 (250 us)" in slow.problem.source


def test_transfers_inside_and_between_nodes():
    """Four GPUs per rank: ranks 0 and 1 share a node, 2 and 3 the next."""
    plan = make_plan(LLAMA, replace(AS_ASKED, tensor_parallel=4), FOUR, H100)
    near, far = plan.problem.transfer_ticks[0][1], plan.problem.transfer_ticks[1][2]
    assert near < far
    assert plan.problem.transfer_ticks == (
        (0, near, far, far),
        (near, 0, far, far),
        (far, far, 0, near),
        (far, far, near, 0),
    )


def test_whole_backward_takes_both_halves():
    plan = make_plan(LLAMA, AS_ASKED, FOUR, H100)
    for costs in plan.problem.stages:
        assert costs.BW.ticks == costs.B.ticks + costs.W.ticks


def test_no_split_offers_the_whole_backward_only():
    plan = make_plan(LLAMA, AS_ASKED, replace(FOUR, divided=False), H100)
    assert all(costs.must_divide is False and costs.can_divide is False for costs in plan.problem.stages)
    both = make_plan(LLAMA, AS_ASKED, FOUR, H100).problem.stages[0]
    assert abs(plan.problem.stages[0].BW.ticks - both.BW.ticks) <= 1


def test_first_and_last_blocks():
    plan = make_plan(LLAMA, AS_ASKED, replace(FOUR, first_blocks=18, last_blocks=19), H100)
    first, *middle, last = [sum(layer.is_block for layer in stage) for stage in plan.stage_layers]
    assert (first, sorted(middle), last) == (18, [21, 22], 19)


def test_one_stage_has_no_first_and_last():
    with pytest.raises(InputError, match="--first or --last is given with one stage"):
        Pipeline(num_ranks=1, num_microbatches=1, first_blocks=3)


def test_loss_stays_with_the_head():
    """As many stages as there are parts: embedding, blocks, norm, head with loss."""
    plan = make_plan(gpt(layers=3), core_training(), replace(FOUR, num_ranks=6), H100)
    assert [layer.name for layer in plan.stage_layers[-1]] == ["head", "loss"]
    with pytest.raises(InputError, match=r"can be cut into 6 parts .*: ask for at most 6"):
        make_plan(gpt(layers=3), core_training(), replace(FOUR, num_ranks=7), H100)


@pytest.mark.parametrize(
    ("num_ranks", "chunks", "weights"),
    [(1, 1, [124_439_808]), (2, 1, None), (2, 2, None), (1, 2, [124_439_808])],
)
def test_tied_weights_are_held_once_per_rank(num_ranks, chunks, weights):
    """GPT-2 has 124,439,808 weights; where head and embedding are on two ranks 50257 * 768 of them twice."""
    kind = PlacementKind.WAVE if chunks > 1 else PlacementKind.LOOP
    pipeline = replace(FOUR, num_ranks=num_ranks, chunks=chunks, kind=kind)
    plan = make_plan(model_of("gpt2"), flash_training(), pipeline, H100)
    held = [row.weights // 2 for row in plan.static_by_rank]
    assert weights in (None, held)
    assert sum(held) == 124_439_808 + (num_ranks > 1 and chunks == 1) * 50257 * 768


def test_memory_moves_the_cut():
    """A large embedding takes memory and no time: under a tight limit its rank takes fewer blocks."""
    model, pipeline = gpt(layers=12, vocabulary=2**16), replace(FOUR, num_ranks=3)
    fast = make_plan(model, core_training(), pipeline, H100)
    need = [costs.static_bytes + costs.F.alloc_bytes for costs in fast.problem.stages]
    tight = make_plan(model, core_training(), pipeline, replace(H100, limit_bytes=need[0] - 1))
    assert tight.cut_fits
    assert len(tight.problem.stages[0].layers) < len(fast.problem.stages[0].layers)
    assert modules(tight) == modules(fast)


@pytest.mark.parametrize(("num_ranks", "chunks", "limit_gib"), [(4, 1, 47), (2, 2, 85)])
def test_a_cut_that_fits_only_just_is_found(num_ranks, chunks, limit_gib):
    """Of a stage of several blocks, most is gone before the first of them is computed again."""
    kind = PlacementKind.LOOP if chunks == 1 else PlacementKind.V
    plan = make_plan(
        model_of("qwen2-7b"),
        flash_training(microbatch_size=4, sequence_length=8192, recompute=Recompute.FULL),
        Pipeline(num_ranks=num_ranks, num_microbatches=16, chunks=chunks, kind=kind),
        replace(H100, limit_bytes=limit_gib * 2**30),
    )
    assert plan.cut_fits
    assert max(smallest_limits_bytes(plan.problem)) <= limit_gib * 2**30


def test_without_a_cut_that_fits_it_is_the_fastest():
    fast = make_plan(LLAMA, AS_ASKED, FOUR, H100)
    none = make_plan(LLAMA, AS_ASKED, FOUR, replace(H100, limit_bytes=2**30))
    assert (fast.cut_fits, none.cut_fits) == (True, False)
    assert none.stage_layers == fast.stage_layers
    assert "fastest cut regardless of memory: none that fits was found" in none.problem.source


def test_provenance_names_every_origin():
    plan = make_plan(LLAMA, AS_ASKED, FOUR, H100)
    for words in (
        "llama-3-70b",
        "70553706496 parameters",
        "NVIDIA H100 datasheet",
        "matmul 0.8, attention 0.5, memory 0.46, link 0.8",
        "134217728 bytes over ib400 (15 us)",
        "arXiv 2205.05198",
        "1910.02054",
        "rounding to ticks of 1e-06 s: at most 0.0011% of an op",
        "blocks per stage: 20 20 20 20, the fastest cut that fits",
        "no recomputation",
        "for other GPUs assumed",
        "ib400: 400 Gb/s",
        "latencies: assumed",
        "memory limit: the GPU's memory but for an assumed reserve of 4 GiB",
        "left out: traffic between replicas, sliding windows",
    ):
        assert words in plan.problem.source


def test_provenance_says_what_was_given():
    cluster = replace(
        H100, limit_bytes=70 * 2**30, rank_latency_s=1e-4, efficiencies=Efficiencies(matmul=0.5)
    )
    training = flash_training(microbatch_size=1, sequence_length=1024)
    source = make_plan(model_of("gpt2"), training, FOUR, cluster).problem.source
    for words in (
        "matmul 0.5, attention 0.5, memory 0.46, link 0.8, as given",
        "latencies: as given",
        "memory limit: as given",
        "the fastest cut that fits",
        "the tied head has a copy of its own",
    ):
        assert words in source
    assert "assumed" not in source


def test_rounding_error_is_that_of_the_ticks():
    coarse = make_plan(LLAMA, AS_ASKED, replace(FOUR, tick_seconds=1e-2), H100)
    fine = make_plan(LLAMA, AS_ASKED, replace(FOUR, tick_seconds=1e-7), H100)
    for a, b in zip(coarse.problem.stages, fine.problem.stages, strict=True):
        for x, y in zip((a.F, a.B, a.W), (b.F, b.B, b.W), strict=True):
            assert abs(x.ticks * 1e-2 - y.ticks * 1e-7) <= coarse.rounding_error * y.ticks * 1.001e-7
    assert coarse.rounding_error > 1000 * fine.rounding_error
    taken = make_plan(LLAMA, AS_ASKED, replace(FOUR, tick_seconds=1e-5), H100)
    # 134217728 bytes at 40 GB/s and 15 us, in ticks of 10 us.
    transfer_us = 2**27 / 40e3 + 15
    assert taken.transfer_rounding_error == pytest.approx(abs(round(transfer_us, -1) / transfer_us - 1))


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    num_ranks=st.integers(1, 6),
    chunks=st.integers(1, 2),
    recompute=st.sampled_from([Recompute.NONE, Recompute.FULL]),
    limit_gib=st.integers(1, 80),
)
def test_plans_account_for_the_whole_model(name, num_ranks, chunks, recompute, limit_gib):
    model = model_of(name)
    pipeline = Pipeline(num_ranks=num_ranks, num_microbatches=4, chunks=chunks, kind=PlacementKind.WAVE)
    training = flash_training(microbatch_size=1, recompute=recompute)
    plan = make_plan(model, training, pipeline, replace(H100, limit_bytes=limit_gib * 2**30))
    copies = model.tied * (num_ranks > 1 and chunks == 1) * model.vocabulary * model.hidden
    assert sum(row.weights for row in plan.static_by_rank) == 2 * (model.parameters + copies)
    need = smallest_limits_bytes(plan.problem)
    assert plan.cut_fits == all(n <= limit_gib * 2**30 for n in need)
    assert [row.total for row in plan.static_by_rank] == list(plan.problem.static_bytes_by_rank)
    assert [len(stage) > 0 for stage in plan.stage_layers] == [True] * num_ranks * chunks
