"""The operations of attention: grouped-query and latent, by a fused kernel or by matrix products."""

from __future__ import annotations

from costmodels.model_shape import Attention, GroupedAttention, LatentAttention
from costmodels.operations import (
    FULL_PRECISION_BYTES,
    MASK_BYTES,
    Operation,
    Work,
    enter_tensor_parallel,
    leave_tensor_parallel,
    linear,
    norm,
    pointwise,
)
from costmodels.training import AttentionKernel, Training


def attention_operations(
    attention: Attention, hidden: int, training: Training, *, dropout: bool
) -> list[Operation]:
    """Attention from the normed hidden state to what is added to the residual stream.

    Its total is 11sbh + 5as²b kept with the ``core`` kernel and dropout (arXiv 2205.05198, section 4.1).
    """
    if isinstance(attention, LatentAttention):
        before = _latent_projections(attention, hidden, training)
    else:
        before = _grouped_projections(attention, hidden, training)
    flash = training.attention is AttentionKernel.FLASH
    inner = [_flash(attention, training)] if flash else _core(attention, training, dropout=dropout)
    return [
        *before,
        *inner,
        _output_projection(attention, hidden, training),
        leave_tensor_parallel(training, hidden),
    ]


def _grouped_projections(attention: GroupedAttention, hidden: int, training: Training) -> list[Operation]:
    t = training.tensor_parallel
    width = attention.qkv_width // t
    turned = (attention.heads + attention.kv_heads) * attention.head_size // t
    size = training.tokens * turned * training.number_bytes
    projection = linear(
        "queries, keys and values",
        training,
        hidden,
        width,
        stored_input_bytes=training.hidden_bytes_per_width * hidden,
        parameters=(hidden + attention.qkv_bias) * width,
    )
    operations = [enter_tensor_parallel(training, hidden), projection]
    if attention.qk_norm:
        operations.append(
            pointwise(
                "norms of queries and keys",
                2 * size,
                3 * size,
                kept_bytes=size,
                parameters=2 * attention.head_size,
            )
        )
    if attention.rotary:
        operations.append(pointwise("rotary positions", 2 * size, 2 * size))
    return operations


def _latent_projections(attention: LatentAttention, hidden: int, training: Training) -> list[Operation]:
    """Down to the latents, whole on every GPU, and up to this GPU's heads (arXiv 2405.04434, eq. 9-19)."""
    t, tokens, number = training.tensor_parallel, training.outside_tokens, training.number_bytes
    heads = attention.heads // t
    rank, queries = attention.query_rank, heads * attention.key_size
    latent_bytes = tokens * attention.kv_rank * number
    up = heads * (attention.plain_size + attention.value_size)
    operations = [
        linear("down to latents", training, hidden, attention.down_width, tokens=tokens),
        norm("norm of the key latent", training, attention.kv_rank, attention.kv_rank),
        linear("up to keys and values", training, attention.kv_rank, up, stored_input_bytes=latent_bytes),
    ]
    if rank:
        operations += [
            norm("norm of the query latent", training, rank, rank),
            linear("up to queries", training, rank, queries, stored_input_bytes=tokens * rank * number),
        ]
    else:
        # The down projection keeps the same input already.
        operations.append(linear("queries", training, hidden, queries, stored_input_bytes=0))
    turned = heads * attention.rotary_size + attention.rotary_size
    size = training.tokens * turned * number
    return [
        *operations,
        enter_tensor_parallel(training, attention.down_width if rank else hidden),
        pointwise("rotary positions", 2 * size, 2 * size),
    ]


def _output_projection(attention: Attention, hidden: int, training: Training) -> Operation:
    inputs = attention.heads * attention.value_size // training.tensor_parallel
    has_bias = isinstance(attention, GroupedAttention) and attention.output_bias
    return linear(
        "attention output",
        training,
        inputs,
        hidden,
        stored_gradient_bytes=training.hidden_bytes_per_width * hidden,
        parameters=(inputs + has_bias) * hidden,
    )


def _flash(attention: Attention, training: Training) -> Operation:
    """The fused kernel: causality halves F's 2·s²·b·a·(key + value) operations; B computes the scores again.

    F is two matrix products, B five (arXiv 2205.14135, algorithms 1 and 4). Queries, keys and values are
    kept, and one full-precision number per row and head; the output is kept by the projection behind.
    """
    heads = attention.heads // training.tensor_parallel
    pairs = training.tokens * training.sequence_length * heads // 2
    forward = 2 * pairs * (attention.key_size + attention.value_size)
    # Scores again, then the gradients of keys and queries (key_size each), of scores and values (value_size).
    backward = 2 * pairs * (3 * attention.key_size + 2 * attention.value_size)
    kept = training.tokens * attention.qkv_width // training.tensor_parallel * training.number_bytes
    output = training.tokens * heads * attention.value_size * training.number_bytes
    rows = training.tokens * heads * FULL_PRECISION_BYTES
    return Operation(
        name="attention kernel",
        forward=Work(attention_flops=forward, moved_bytes=kept + output + rows),
        input_gradient=Work(attention_flops=backward, moved_bytes=2 * (kept + output) + rows),
        kept_until_b_bytes=kept + rows,
    )


def _core(attention: Attention, training: Training, *, dropout: bool) -> list[Operation]:
    """Two matrix products over the whole square: 4s²bh operations in F, twice that in B.

    Kept for B: queries and keys, values; and of the scores, as²b entries each, the softmax's output and, with
    dropout, the mask and the dropped output: 5as²b (arXiv 2205.05198, section 4.1).
    """
    number, t = training.number_bytes, training.tensor_parallel
    heads = attention.heads // t
    scores = training.tokens * training.sequence_length * heads
    values = training.tokens * heads * attention.value_size * number
    queries_and_keys = (
        training.tokens * (attention.heads + attention.kv_heads) * attention.key_size // t * number
    )
    kept_values = training.tokens * attention.kv_heads * attention.value_size // t * number
    first, second = 2 * scores * attention.key_size, 2 * scores * attention.value_size
    operations = [
        pointwise("queries, keys and values", 0, 0, kept_bytes=queries_and_keys + kept_values),
        _score_product("scores", first, queries_and_keys + scores * number, 0, transient=scores * number),
        pointwise(
            "softmax", 2 * scores * number, 3 * scores * number, kept_bytes=scores * number, is_score=True
        ),
    ]
    if dropout:
        size = scores * (2 * number + MASK_BYTES)
        operations.append(
            pointwise("attention dropout", size, size, kept_bytes=scores * MASK_BYTES, is_score=True)
        )
    kept = scores * number if dropout else 0
    return [
        *operations,
        _score_product("weighted values", second, kept_values + values + scores * number, kept),
    ]


def _score_product(
    name: str, flops: int, moved_bytes: int, kept_bytes: int, *, transient: int = 0
) -> Operation:
    """A product with the scores: two of its size for B, because neither factor is a weight."""
    return Operation(
        name=name,
        forward=Work(matmul_flops=flops, moved_bytes=moved_bytes),
        input_gradient=Work(matmul_flops=2 * flops, moved_bytes=2 * moved_bytes),
        kept_until_b_bytes=kept_bytes,
        is_score=True,
        transient_bytes=transient,
    )
