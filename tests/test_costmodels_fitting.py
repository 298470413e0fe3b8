"""What fits, and what would."""

from dataclasses import replace

import pytest
from models import core_training, flash_training, gpt, model_of

from costmodels.cluster import Cluster
from costmodels.described import Style, describe_model
from costmodels.fitting import ONE_AT_A_TIME, fits_1f1b, fits_at_all, memory_by_rank, remedies
from costmodels.hardware import find_gpu
from costmodels.planning import Pipeline, make_plan
from costmodels.training import Recompute
from synth.baselines import baseline_orders
from synth.errors import InfeasibleError
from synth.memory import check_feasible
from synth.placement import PlacementKind
from synth.schedule import peak_memory_bytes

H100 = Cluster(gpu=find_gpu("h100"))
LLAMA = model_of("llama-3-70b")
TRAINING = flash_training(microbatch_size=1, sequence_length=8192, tensor_parallel=8)
EIGHT = Pipeline(num_ranks=8, num_microbatches=64)


def plan_with(limit_bytes, training=TRAINING, pipeline=EIGHT, model=LLAMA):
    return make_plan(model, training, pipeline, replace(H100, limit_bytes=limit_bytes))


def test_memory_of_1f1b_by_hand():
    """Rank r of p holds min(m, p - r) microbatches (arXiv 2006.09503), and its static bytes."""
    plan = plan_with(None)
    for rank, row in enumerate(memory_by_rank(plan)):
        costs = plan.problem.stages[rank]
        assert row.static.total == costs.static_bytes
        assert row.activation_bytes == costs.F.alloc_bytes
        # The last rank holds a GPU's share of the logits beside the softmax.
        logits = 2 * 8192 * 128256 // 8 if rank == 7 else 0
        assert row.one_f_one_b_bytes == costs.static_bytes + (8 - rank) * costs.F.alloc_bytes + logits


def test_microbatches_that_fit():
    """Equal GPT blocks: one more byte than k microbatches need makes room for k, one fewer for k - 1."""
    model, training = gpt(layers=14, vocabulary=8), core_training()
    pipeline = replace(EIGHT, num_ranks=4)
    row = memory_by_rank(plan_with(None, training, pipeline, model))[1]
    for k in (1, 2, 5):
        enough = row.least_bytes + (k - 1) * row.activation_bytes
        for limit, fitting in ((enough, k), (enough - 1, k - 1)):
            assert memory_by_rank(plan_with(limit, training, pipeline, model))[1].microbatches == fitting


def test_what_fits_is_what_the_synthesizer_accepts():
    for gib in (20, 30, 60, 90):
        plan = plan_with(gib * 2**30)
        if fits_at_all(plan):
            check_feasible(plan.problem)
        else:
            with pytest.raises(InfeasibleError):
                check_feasible(plan.problem)
        orders = baseline_orders("1f1b", plan.problem)
        peaks = peak_memory_bytes(plan.problem, orders)
        assert fits_1f1b(plan) == all(peak <= gib * 2**30 for peak in peaks)


def test_1f1b_has_one_stage_per_rank_whatever_the_placement():
    """In a V, rank 0 has embedding and head; under 1F1B the last rank has the head. Five blocks of 70B in
    every stage: neighbours merge to the ten per rank of the plan with one stage per rank."""
    rows = memory_by_rank(plan_with(None, pipeline=replace(EIGHT, chunks=2, kind=PlacementKind.V)))
    assert rows[0].static.total > rows[-1].static.total
    one_stage_each = memory_by_rank(plan_with(None))
    assert [row.one_f_one_b_bytes for row in rows] == [row.one_f_one_b_bytes for row in one_stage_each]
    assert 76.0 < rows[0].one_f_one_b_bytes / 2**30 < 76.1


def test_logits_count_beside_their_softmax():
    """Llama-3-8B, 12 sequences of 8192: 2 + 4 bytes for each of 128256 logits of a token, 70.5 GiB."""
    training = flash_training(microbatch_size=12, sequence_length=8192, recompute=Recompute.FULL)
    plan = plan_with(None, training, replace(EIGHT, num_microbatches=16), model_of("llama-3-8b"))
    assert plan.stage_layers[-1][-1].backward_extra_bytes == 12 * 8192 * 128256 * 2
    last = memory_by_rank(plan)[-1]
    assert last.least_bytes > 12 * 8192 * 128256 * 6 + last.static.total
    assert last.least_bytes > 80 * 2**30
    assert not fits_1f1b(plan)


def test_the_reserve_grows_with_what_a_block_holds_while_it_runs():
    """The gradient of Llama-3-8B's two factors: 2 * 14336 entries of 12 * 8192 tokens, 5.25 GiB."""
    training = flash_training(microbatch_size=12, sequence_length=8192, recompute=Recompute.FULL)
    plan = plan_with(None, training, EIGHT, model_of("llama-3-8b"))
    assert plan.problem.memory_limit_bytes == (80 * 2**30 - 12 * 8192 * 2 * 14336 * 2,) * 8
    core = plan_with(None, core_training(sequence_length=8192), EIGHT, model_of("llama-3-8b"))
    # The scores of two sequences, 32 heads of 8192 squared: 8 GiB.
    assert core.problem.memory_limit_bytes == (72 * 2**30,) * 8


def test_remedies_do_what_they_say():
    """70B on 76 GiB: 1F1B lacks 90 MiB, a single change makes it fit, and V-Half halves activations."""
    plan = plan_with(None)
    assert fits_at_all(plan)
    assert not fits_1f1b(plan)
    found = {remedy.change: remedy.fits for remedy in remedies(plan)}
    assert found["--sequence-parallel"] == found["--recompute full"] == found["--pp 16"] == "1f1b"
    assert found["--chunks 2 --placement v"] == "v-half"
    assert fits_1f1b(plan_with(None, replace(TRAINING, sequence_parallel=True)))


def test_remedies_when_nothing_fits():
    """Nothing fits 24 GiB but what takes off static bytes or most activations."""
    plan = plan_with(24 * 2**30)
    assert not fits_at_all(plan)
    found = {remedy.change: remedy.fits for remedy in remedies(plan)}
    assert found["--sequence-parallel"] == ONE_AT_A_TIME
    assert found["--dp 8 --zero 1"] == ONE_AT_A_TIME
    assert "--tp 16" not in found
    assert remedies(plan_with(2**20)) == []


def test_remedies_for_a_core_kernel():
    training = core_training(microbatch_size=4, sequence_length=2048, tensor_parallel=2, data_parallel=4)
    plan = plan_with(40 * 2**30, training, replace(EIGHT, num_ranks=2), model_of("gpt-neox-20b"))
    changes = {
        remedy.change for remedy in remedies(plan_with(110 * 2**30, training, plan.pipeline, plan.model))
    }
    assert {"--attention flash", "--recompute selective", "--tp 4", "--microbatch 2", "--zero 1"} <= changes


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "num_ranks", "size", "published_gb"),
    [
        (22, 2304, 24, 8, 6, 30),
        (30, 4096, 32, 8, 3, 39),
        (46, 5120, 40, 16, 1, 32),
        (62, 6144, 48, 32, 1, 43),
    ],
)
def test_published_peaks_of_1f1b(layers, hidden, heads, num_ranks, size, published_gb):
    """arXiv 2401.10241, Table 4: measured on A100, in GB, here within 3.5 %."""
    model = describe_model(
        Style.GPT, layers=layers, hidden=hidden, heads=heads, vocabulary=50304, positions=1024
    )
    training = core_training(microbatch_size=size, sequence_length=1024, gradient_bytes=2)
    ends = (layers + 2) // num_ranks - 1
    pipeline = Pipeline(num_ranks=num_ranks, num_microbatches=64, first_blocks=ends, last_blocks=ends)
    plan = make_plan(model, training, pipeline, Cluster(gpu=find_gpu("a100-80")))
    peak = max(row.one_f_one_b_bytes for row in memory_by_rank(plan))
    assert peak / 1e9 == pytest.approx(published_gb, rel=0.035)
