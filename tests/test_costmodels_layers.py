"""What layers compute and keep, against the formulas of arXiv 2205.05198 and 2401.10241 and by hand.

Symbols: s sequence length, b microbatch size, h hidden size, a heads, v vocabulary, t tensor-parallel degree.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import NAMES, block_of, core_training, flash_training, gpt, model_of

from costmodels.layers import model_layers
from costmodels.training import Precision, Recompute
from synth.errors import InputError
from synth.ops import OpKind

S, B, H, A, V = 256, 2, 512, 8, 1024
SBH = S * B * H
MODEL = gpt(hidden=H, heads=A, vocabulary=V)
HEADS_TIMES_SEQUENCE = 5 * A * S / H


def kept(**training):
    return block_of(MODEL, core_training(**training)).kept_bytes


# Activations kept: arXiv 2205.05198.


def test_kept_by_a_block():
    """Equation 1: sbh(34 + 5as/h)."""
    assert kept() == SBH * (34 + HEADS_TIMES_SEQUENCE)


@pytest.mark.parametrize("t", [2, 4, 8])
def test_kept_with_tensor_parallelism(t):
    """Equation 2: sbh(10 + 24/t + 5as/(ht))."""
    assert kept(tensor_parallel=t) == SBH * (10 + 24 / t + HEADS_TIMES_SEQUENCE / t)


@pytest.mark.parametrize("t", [2, 4, 8])
def test_kept_with_sequence_parallelism(t):
    """Equation 4: sbh/t(34 + 5as/h)."""
    assert kept(tensor_parallel=t, sequence_parallel=True) == SBH / t * (34 + HEADS_TIMES_SEQUENCE)


@pytest.mark.parametrize("t", [1, 2, 4, 8])
def test_kept_with_selective_recomputation(t):
    """Table 2: sbh(10 + 24/t), and 34sbh/t with sequence parallelism."""
    assert kept(tensor_parallel=t, recompute=Recompute.SELECTIVE) == SBH * (10 + 24 / t)
    both = kept(tensor_parallel=t, sequence_parallel=True, recompute=Recompute.SELECTIVE)
    assert both == 34 * SBH / t


@pytest.mark.parametrize(("hidden", "heads", "saved"), [(12288, 96, 0.70), (20480, 128, 0.65)])
def test_selective_recomputation_saves_what_is_published(hidden, heads, saved):
    """GPT-3 and MT-NLG, s = 2048 (arXiv 2205.05198, section 5)."""
    model = gpt(hidden=hidden, heads=heads)
    kept = [
        block_of(model, core_training(sequence_length=2048, recompute=recompute)).kept_bytes
        for recompute in (Recompute.NONE, Recompute.SELECTIVE)
    ]
    assert 1 - kept[1] / kept[0] == pytest.approx(saved, abs=0.005)


def test_kept_with_full_recomputation():
    """Table 2: 2sbh."""
    assert kept(recompute=Recompute.FULL) == 2 * SBH


def test_kept_with_a_fused_kernel():
    """34sbh, less nothing: the scores go, and one full-precision number per row and head comes: 4abs."""
    block = block_of(MODEL, flash_training())
    assert block.kept_bytes == 34 * SBH + 4 * A * B * S


@pytest.mark.parametrize("t", [1, 4])
def test_kept_by_the_last_layers(t):
    """Section 4.3: norm 2sbh, projection 2sbh, logits in full precision 4sbv/t."""
    norm, head, loss = model_layers(MODEL, core_training(tensor_parallel=t))[-3:]
    assert (norm.kept_bytes, head.kept_bytes, loss.kept_bytes) == (2 * SBH, 2 * SBH, 4 * S * B * V // t)


def test_kept_by_the_embedding():
    """Section 4.3: the dropout mask, sbh; and token numbers of 8 bytes."""
    assert model_layers(MODEL, core_training())[0].kept_bytes == SBH + 8 * S * B


def test_kept_in_full_precision():
    """Everything but the masks doubles: 2sbh + as²b of masks stay."""
    masks = 2 * SBH + A * S * S * B
    block = block_of(MODEL, core_training(precision=Precision.FP32))
    assert block.kept_bytes == 2 * (kept() - masks) + masks


def test_kept_by_a_llama_block():
    """By hand for Llama-3-8B, per token: norms 2·2h, inputs 2h and 2h, queries, keys and values 2(h + 2·h/4),
    attention output 2h, factors and product of the gate 3·2·14336, one number per row and head 4·32."""
    h = 4096
    per_token = 4 * h + 4 * h + 2 * (h + h // 2) + 2 * h + 6 * 14336 + 4 * 32
    assert block_of(model_of("llama-3-8b"), flash_training()).kept_bytes == 512 * per_token


def test_kept_by_experts():
    """By hand for Mixtral, two experts per token: the router's input, and for each its input and output."""
    h, k = 4096, 2
    attention = 4 * h + 2 * h + 2 * (h + h // 2) + 2 * h + 4 * 32
    routed = 2 * h + k * (2 * h + 6 * 14336 + 2 * h)
    assert block_of(model_of("mixtral-8x7b"), flash_training()).kept_bytes == 512 * (attention + routed)


def test_kept_by_a_block_of_deepseek():
    """By hand for V3, per token: norms and what down projection and router take, 4 * 2h; latents of 512 and
    1536 twice each; queries and keys of 192, values of 128 for 128 heads, a number per head; the output;
    eight experts' inputs, factors, products and outputs; the shared expert's factors and product."""
    h, latents, width, heads = 7168, 512 + 1536, 2048, 128
    attention = 2 * 2 * latents + heads * (2 * (192 + 192 + 128) + 4 + 2 * 128)
    routed = 8 * (2 * h + 6 * width + 2 * h)
    per_token = 4 * 2 * h + attention + routed + 6 * width
    assert per_token == 569_856
    assert block_of(model_of("deepseek-v3"), flash_training(), index=-1).kept_bytes == 512 * per_token


def test_the_router_leaves_the_gradients_of_its_logits():
    """Four bytes for each of Mixtral's eight, and the input of 2h, per token."""
    router = operation(block_of(model_of("mixtral-8x7b"), flash_training()), "router")
    assert (router.kept_until_w_bytes, router.gradient_bytes) == (512 * 2 * 4096, 512 * 8 * 4)


# What stays between B and W: arXiv 2401.10241, Table 1.


@pytest.mark.parametrize("recompute", [Recompute.NONE, Recompute.FULL])
def test_held_for_w(recompute):
    """32sbh: inputs 2 + 2 + 2 + 8, gradients of outputs 6 + 2 + 8 + 2, whatever is recomputed."""
    assert block_of(MODEL, core_training(recompute=recompute)).held_for_w_bytes == 32 * SBH
    assert block_of(MODEL, flash_training(recompute=recompute)).held_for_w_bytes == 32 * SBH


def test_recomputed_bytes():
    assert block_of(MODEL, core_training()).recomputed_bytes == 0
    selective = block_of(MODEL, core_training(recompute=Recompute.SELECTIVE))
    assert selective.recomputed_bytes == SBH * HEADS_TIMES_SEQUENCE
    full = block_of(MODEL, core_training(recompute=Recompute.FULL))
    assert full.recomputed_bytes == SBH * (32 + HEADS_TIMES_SEQUENCE)


# FLOPs: arXiv 2401.10241, Table 1.

FLOPS = {
    OpKind.F: SBH * (24 * H + 4 * S),
    OpKind.B: SBH * (24 * H + 8 * S),
    OpKind.W: SBH * 24 * H,
}


@pytest.mark.parametrize("kind", FLOPS)
def test_flops_of_a_block(kind):
    assert block_of(MODEL, core_training()).flops(kind) == FLOPS[kind]


@pytest.mark.parametrize("t", [2, 8])
@pytest.mark.parametrize("kind", FLOPS)
def test_tensor_parallelism_shares_flops(kind, t):
    assert block_of(MODEL, core_training(tensor_parallel=t)).flops(kind) == FLOPS[kind] // t


def test_flops_of_full_recomputation():
    """B repeats F; W stays."""
    block = block_of(MODEL, core_training(recompute=Recompute.FULL))
    assert block.flops(OpKind.B) == FLOPS[OpKind.F] + FLOPS[OpKind.B]
    assert (block.flops(OpKind.F), block.flops(OpKind.W)) == (FLOPS[OpKind.F], FLOPS[OpKind.W])


def test_flops_of_selective_recomputation():
    """B repeats the two products with the scores, 4s²bh (arXiv 2205.05198, section 5)."""
    block = block_of(MODEL, core_training(recompute=Recompute.SELECTIVE))
    assert block.flops(OpKind.B) == FLOPS[OpKind.B] + 4 * S * SBH


def test_flops_of_a_fused_kernel():
    """Half the square; two products forward, five backward: 2s²bh and 5s²bh."""
    block = block_of(MODEL, flash_training())
    assert block.flops(OpKind.F) == SBH * (24 * H + 2 * S)
    assert block.flops(OpKind.B) == SBH * (24 * H + 5 * S)


def test_flops_of_the_head():
    """2sbhv each (arXiv 2104.04473, appendix)."""
    head = model_layers(MODEL, core_training())[-2]
    assert [head.flops(kind) for kind in FLOPS] == [2 * SBH * V] * 3


def test_flops_of_a_mixture_are_those_of_the_experts_visited():
    """Per token 2 operations for each weight: of attention, router and two of Mixtral's eight experts."""
    model = model_of("mixtral-8x7b")
    block = model.blocks[0]
    weights = block.attention.parameters(4096) + 8 * 4096 + 2 * block.feed_forward.expert.parameters(4096)
    assert block_of(model, flash_training()).flops(OpKind.W) == 512 * 2 * weights


@pytest.mark.parametrize("name", NAMES)
def test_w_takes_two_operations_for_every_active_weight_and_token(name):
    """For every architecture: W gives gradients to all matrices, so to all but norms and biases."""
    model = model_of(name)
    layers = model_layers(model, flash_training(microbatch_size=1))
    for block, layer in zip(model.blocks, layers[1:-3], strict=True):
        inner = block.feed_forward
        visited = getattr(inner, "per_token", 1) * getattr(inner, "expert", inner).parameters(model.hidden)
        shared = getattr(inner, "shared", None)
        visited += shared.parameters(model.hidden) if shared else 0
        visited += model.hidden * getattr(inner, "count", 0)
        weights = block.attention.parameters(model.hidden) + visited
        few = layer.flops(OpKind.W) / (2 * S)
        assert few == pytest.approx(weights, rel=2e-3)
        assert few <= weights


# Bytes moved in memory.


def operation(layer, name):
    return next(operation for operation in layer.operations if operation.name == name)


def test_moved_by_the_embedding():
    """F reads and writes a row per token; W reads gradients of 2 bytes, reads and writes sums of 4."""
    (lookup, *_) = model_layers(MODEL, core_training())[0].operations
    assert lookup.forward.moved_bytes == 4 * SBH
    assert lookup.weight_gradient.moved_bytes == (2 + 2 * 4) * SBH


def test_moved_by_the_head():
    """W reads inputs and gradients, and reads and writes the accumulated gradient of every weight."""
    projection = operation(model_layers(MODEL, core_training())[-2], "projection")
    assert projection.forward.moved_bytes == 2 * (SBH + S * B * V + H * V)
    assert projection.weight_gradient.moved_bytes == 2 * (SBH + S * B * V) + 2 * 4 * H * V


def test_moved_by_the_loss():
    """F reads logits, writes and reads their softmax; B reads the softmax and writes gradients."""
    (loss,) = model_layers(MODEL, core_training())[-1].operations
    assert loss.forward.moved_bytes == (2 + 4 + 4) * S * B * V
    assert loss.input_gradient.moved_bytes == (4 + 2) * S * B * V


@pytest.mark.parametrize("name", ["dispatch", "combine"])
def test_moved_by_an_all_to_all(name):
    """Two rows per token, read and written."""
    sent = operation(block_of(model_of("mixtral-8x7b"), flash_training()), name)
    assert sent.forward.moved_bytes == sent.input_gradient.moved_bytes == 2 * (512 * 2 * 4096 * 2)


# Tensor-parallel transfers.


def sent(layer, kind):
    return sum(work.tensor_bytes for work in layer.works(kind))


@pytest.mark.parametrize("parallel", [False, True])
def test_two_all_reduces_each_way(parallel):
    """Each GPU sends 2(t-1)/t of 2sbh bytes in a ring all-reduce, and as many in its two halves."""
    t = 4
    block = block_of(MODEL, core_training(tensor_parallel=t, sequence_parallel=parallel))
    assert sent(block, OpKind.F) == sent(block, OpKind.B) == 2 * (2 * (t - 1) * 2 * SBH // t)
    assert sent(block, OpKind.W) == 0
    assert sent(block_of(MODEL, core_training()), OpKind.F) == 0


def test_all_reduces_of_embedding_and_head():
    """The embedding sums its output in F, the head its input's gradient in B: 2(t-1)/t of 2sbh bytes."""
    layers = model_layers(MODEL, core_training(tensor_parallel=4))
    whole = 2 * 3 * 2 * SBH // 4
    assert [sent(layers[0], kind) for kind in FLOPS] == [whole, 0, 0]
    assert [sent(layers[-2], kind) for kind in FLOPS] == [0, whole, 0]


def test_all_reduces_of_latent_attention():
    """V3 sums the gradients of its latents, 512 + 64 + 1536 entries, and of the feed-forward's input in B;
    in F the outputs of both. V2-Lite has no query latent: there it is the whole hidden state."""
    for name, hidden, entered in (("deepseek-v3", 7168, 2112), ("deepseek-v2-lite", 2048, 2048)):
        block = block_of(model_of(name), flash_training(tensor_parallel=2))
        assert sent(block, OpKind.F) == 512 * 2 * (hidden + hidden)
        assert sent(block, OpKind.B) == 512 * 2 * (entered + hidden)


def test_experts_are_sent_to_and_back():
    """All-to-all of two rows per token, there and back; one of 8 shares stays."""
    model = model_of("mixtral-8x7b")
    block = block_of(model, flash_training(expert_parallel=8, data_parallel=8))
    rows = 512 * 2 * 4096 * 2
    assert sum(work.expert_bytes for work in block.works(OpKind.F)) == 2 * (rows * 7 // 8)
    whole = block_of(model, flash_training())
    assert block.expert_parameters == whole.expert_parameters // 8
    assert block.flops(OpKind.F) == whole.flops(OpKind.F)


# Invariants.


@given(
    s=st.sampled_from([64, 128, 512]),
    b=st.integers(1, 4),
    t=st.sampled_from([1, 2, 4]),
    name=st.sampled_from(["llama-3-8b", "gpt2", "deepseek-v2-lite", "mixtral-8x7b"]),
    sequence_parallel=st.booleans(),
)
def test_recomputation_keeps_less_and_takes_longer(s, b, t, name, sequence_parallel):
    blocks = [
        block_of(
            model_of(name),
            core_training(
                sequence_length=s,
                microbatch_size=b,
                tensor_parallel=t,
                sequence_parallel=sequence_parallel,
                recompute=recompute,
            ),
            index=-1,
        )
        for recompute in (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL)
    ]
    none, selective, full = blocks
    assert none.kept_bytes > selective.kept_bytes > full.kept_bytes
    assert none.flops(OpKind.B) < selective.flops(OpKind.B) < full.flops(OpKind.B)
    assert len({block.kept_bytes + block.recomputed_bytes for block in blocks}) == 1


@given(b=st.integers(1, 8), name=st.sampled_from(NAMES))
def test_all_but_weights_grows_with_the_microbatch(b, name):
    one = block_of(model_of(name), flash_training(microbatch_size=1))
    more = block_of(model_of(name), flash_training(microbatch_size=b))
    assert more.kept_bytes == b * one.kept_bytes
    assert more.held_for_w_bytes == b * one.held_for_w_bytes
    assert more.flops(OpKind.BW) == b * one.flops(OpKind.BW)
    assert more.parameters == one.parameters


# Refusals.


@pytest.mark.parametrize(
    ("name", "training", "message"),
    [
        (
            "llama-3-8b",
            {"tensor_parallel": 3},
            "--tp 3 is given with 32 attention heads: give a divisor of 32",
        ),
        ("llama-3-8b", {"tensor_parallel": 16}, "--tp 16 is given with 8 key heads: give a divisor of 8"),
        ("llama-3-8b", {"expert_parallel": 2, "data_parallel": 2}, "has no experts: leave it out"),
        ("mixtral-8x7b", {"expert_parallel": 3, "data_parallel": 3}, "has 8 experts: give a divisor of 8"),
        ("gpt2", {"sequence_length": 2048}, "gpt2 knows 1024 positions: give at most 1024"),
    ],
)
def test_models_that_cannot_be_shared_are_refused(name, training, message):
    with pytest.raises(InputError, match=message):
        model_layers(model_of(name), flash_training(**training))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"tensor_parallel": 3, "sequence_parallel": True},
            "a sequence of 256 tokens .* give a multiple of 3",
        ),
        ({"expert_parallel": 2}, "--ep 2 is given with --dp 1"),
        ({"recompute": Recompute.SELECTIVE}, "--recompute selective is given with --attention flash"),
    ],
)
def test_ways_to_train_that_do_not_go_together_are_refused(training, message):
    with pytest.raises(InputError, match=message):
        flash_training(**training)
