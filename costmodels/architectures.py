"""From a Hugging Face ``config.json`` to a :class:`ModelShape`: a function for each family of architectures.

The fields are those of the configuration classes in Hugging Face transformers 4.57. Where a default is
the size of one model of a family, the field must be there: of another model it would be wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from costmodels.config_fields import ConfigFields, read_fields
from costmodels.model_shape import (
    GPT2_MODULES,
    Attention,
    Block,
    Experts,
    FeedForward,
    GroupedAttention,
    LatentAttention,
    ModelShape,
    ModuleNames,
)
from synth.document.refusal import shown
from synth.errors import InputError

MOST_BLOCKS = 1024
"""No model has more; a larger number is a mistake that would take very long."""


def read_model(path: str) -> ModelShape:
    """Read a model's ``config.json``.

    Parameters
    ----------
    path
        A local file, or ``-`` for standard input.

    Raises
    ------
    InputError
        Naming what is wrong: the file, the architecture, a field and what would be accepted.
    """
    fields = read_fields(path)
    kind = fields.tree.get("model_type")
    known = ", ".join(ARCHITECTURES)
    if kind is None:
        fields.refuse("$.model_type", "missing", f"give one of {known}")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        fields.refuse("$.model_type", shown(kind), f"give one of {known}")
    try:
        return ARCHITECTURES[kind](fields, _name(path))
    except InputError as error:
        # Sizes that do not fit together are found by the shapes, which know no file.
        raise error if path in str(error) else InputError(f"{path}: {error}") from error


def _name(path: str) -> str:
    """The file's name, or its folder's where every model's file is called the same."""
    stem = os.path.splitext(os.path.basename(path))[0]
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return folder if stem == "config" else stem


def _llama(fields: ConfigFields, name: str) -> ModelShape:
    """Llama, with as many key heads as heads where nothing is said of them."""
    bias = fields.flag("attention_bias", False)
    heads = fields.count("num_attention_heads")
    return _rms_model(fields, name, _grouped(fields, qkv_bias=bias, usual_kv_heads=heads))


def _mistral(fields: ConfigFields, name: str) -> ModelShape:
    """Mistral: a Llama whose attention has no biases."""
    return _rms_model(fields, name, _grouped(fields))


def _qwen2(fields: ConfigFields, name: str) -> ModelShape:
    """Qwen2: biases on queries, keys and values alone."""
    return _rms_model(fields, name, _grouped(fields, qkv_bias=True, output_bias=False))


def _qwen3(fields: ConfigFields, name: str) -> ModelShape:
    """Qwen3: norms on queries and keys."""
    bias = fields.flag("attention_bias", False)
    return _rms_model(fields, name, _grouped(fields, qkv_bias=bias, qk_norm=True, needs_head_size=True))


def _qwen3_moe(fields: ConfigFields, name: str) -> ModelShape:
    """Qwen3 with experts in every n-th block."""
    count = fields.count("num_hidden_layers", most=MOST_BLOCKS)
    experts = Experts(
        count=fields.count("num_experts"),
        per_token=fields.count("num_experts_per_tok"),
        expert=FeedForward(width=fields.count("moe_intermediate_size")),
    )
    step = fields.count("decoder_sparse_step", 1)
    dense_blocks = fields.indices("mlp_only_layers", count)
    dense = FeedForward(width=fields.count("intermediate_size"))
    sparse = [(block + 1) % step == 0 and block not in dense_blocks for block in range(count)]
    bias = fields.flag("attention_bias", False)
    attention = _grouped(fields, qkv_bias=bias, qk_norm=True, needs_head_size=True)
    return _rms_model(fields, name, attention, [experts if is_sparse else dense for is_sparse in sparse])


def _mixtral(fields: ConfigFields, name: str) -> ModelShape:
    """Mixtral: experts in every block."""
    experts = Experts(
        count=fields.count("num_local_experts", 8),
        per_token=fields.count("num_experts_per_tok", 2),
        expert=FeedForward(width=fields.count("intermediate_size")),
    )
    count = fields.count("num_hidden_layers", most=MOST_BLOCKS)
    return _rms_model(fields, name, _grouped(fields), [experts] * count)


def _deepseek(fields: ConfigFields, name: str) -> ModelShape:
    """DeepSeek-V2 and V3: latent attention; experts after the first blocks.

    Multi-token-prediction modules (``num_nextn_predict_layers``) are not part of the main model and left out.
    """
    attention = LatentAttention(
        heads=fields.count("num_attention_heads"),
        query_rank=fields.count_or_null("q_lora_rank"),
        kv_rank=fields.count("kv_lora_rank"),
        plain_size=fields.count("qk_nope_head_dim"),
        rotary_size=fields.count("qk_rope_head_dim"),
        value_size=fields.count("v_head_dim"),
    )
    width = fields.count("moe_intermediate_size")
    shared = fields.count_or_null("n_shared_experts", least=0)
    experts = Experts(
        count=fields.count("n_routed_experts"),
        per_token=fields.count("num_experts_per_tok"),
        expert=FeedForward(width=width),
        shared=FeedForward(width=width * shared) if shared else None,
    )
    dense = FeedForward(width=fields.count("intermediate_size"))
    first = fields.count("first_k_dense_replace", least=0)
    step = fields.count("moe_layer_freq", 1)
    count = fields.count("num_hidden_layers", most=MOST_BLOCKS)
    inner = [experts if block >= first and block % step == 0 else dense for block in range(count)]
    return _rms_model(fields, name, attention, inner)


def _gpt2(fields: ConfigFields, name: str) -> ModelShape:
    """GPT-2: learned positions, layer norms, biases everywhere, a tied head."""
    hidden = fields.count("n_embd")
    heads = fields.count("n_head")
    _check_heads_divide(hidden, heads, fields, "$.n_head")
    attention = GroupedAttention(
        heads=heads, kv_heads=heads, head_size=hidden // heads, qkv_bias=True, output_bias=True, rotary=False
    )
    inner = FeedForward(width=fields.count("n_inner", 4 * hidden), gated=False, bias=True)
    blocks = fields.count("n_layer", most=MOST_BLOCKS)
    return ModelShape(
        name=name,
        hidden=hidden,
        vocabulary=fields.count("vocab_size"),
        blocks=(Block(attention=attention, feed_forward=inner),) * blocks,
        learned_positions=fields.count("n_positions"),
        tied=fields.flag("tie_word_embeddings", True),
        layer_norm=True,
        hidden_dropout=fields.probability("resid_pdrop", 0.1) > 0,
        attention_dropout=fields.probability("attn_pdrop", 0.1) > 0,
        modules=GPT2_MODULES,
    )


def _gpt_neox(fields: ConfigFields, name: str) -> ModelShape:
    """GPT-NeoX: rotary positions, layer norms, biases everywhere but in the head."""
    hidden = fields.count("hidden_size")
    heads = fields.count("num_attention_heads")
    _check_heads_divide(hidden, heads, fields, "$.num_attention_heads")
    bias = fields.flag("attention_bias", True)
    attention = GroupedAttention(
        heads=heads, kv_heads=heads, head_size=hidden // heads, qkv_bias=bias, output_bias=bias
    )
    inner = FeedForward(width=fields.count("intermediate_size"), gated=False, bias=True)
    blocks = fields.count("num_hidden_layers", most=MOST_BLOCKS)
    return ModelShape(
        name=name,
        hidden=hidden,
        vocabulary=fields.count("vocab_size"),
        blocks=(Block(attention=attention, feed_forward=inner),) * blocks,
        tied=fields.flag("tie_word_embeddings", False),
        layer_norm=True,
        hidden_dropout=fields.probability("hidden_dropout", 0.0) > 0,
        attention_dropout=fields.probability("attention_dropout", 0.0) > 0,
        modules=ModuleNames(
            embeddings=("gpt_neox.embed_in",),
            block="gpt_neox.layers.{}",
            norm="gpt_neox.final_layer_norm",
            head="embed_out",
        ),
    )


ARCHITECTURES: dict[str, Callable[[ConfigFields, str], ModelShape]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
}
"""By ``model_type``."""


def _grouped(
    fields: ConfigFields,
    *,
    qkv_bias: bool = False,
    output_bias: bool | None = None,
    qk_norm: bool = False,
    usual_kv_heads: int | None = None,
    needs_head_size: bool = False,
) -> GroupedAttention:
    """Attention from the fields that Llama and its relatives share; biases come in both places or one.

    Without usual key heads their number must be there, and so must the size of a head where it is needed.
    """
    heads = fields.count("num_attention_heads")
    hidden = fields.count("hidden_size")
    usual_size = None if needs_head_size else max(1, hidden // heads)
    if not needs_head_size and fields.tree.get("head_dim") is None:
        _check_heads_divide(hidden, heads, fields, "$.num_attention_heads")
    return GroupedAttention(
        heads=heads,
        kv_heads=fields.count("num_key_value_heads", usual_kv_heads),
        head_size=fields.count("head_dim", usual_size),
        qkv_bias=qkv_bias,
        output_bias=qkv_bias if output_bias is None else output_bias,
        qk_norm=qk_norm,
    )


def _rms_model(
    fields: ConfigFields,
    name: str,
    attention: Attention,
    inner: Sequence[FeedForward | Experts] | None = None,
) -> ModelShape:
    """A model with RMS norms and rotary positions; without ``inner``, one gated feed-forward throughout."""
    count = fields.count("num_hidden_layers", most=MOST_BLOCKS)
    if inner is None:
        bias = fields.flag("mlp_bias", False)
        dense = FeedForward(width=fields.count("intermediate_size"), bias=bias)
        blocks = [Block(attention=attention, feed_forward=dense)] * count
    else:
        blocks = [Block(attention=attention, feed_forward=feed_forward) for feed_forward in inner]
    return ModelShape(
        name=name,
        hidden=fields.count("hidden_size"),
        vocabulary=fields.count("vocab_size"),
        blocks=tuple(blocks),
        tied=fields.flag("tie_word_embeddings", False),
        attention_dropout=fields.probability("attention_dropout", 0.0) > 0,
    )


def _check_heads_divide(hidden: int, heads: int, fields: ConfigFields, path: str) -> None:
    if hidden % heads:
        fields.refuse(path, str(heads), f"heads divide the hidden size {hidden}; give a divisor of it")
