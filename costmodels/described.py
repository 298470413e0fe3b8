"""A model from a few numbers instead of a configuration file."""

from __future__ import annotations

from enum import StrEnum

from costmodels.model_shape import GPT2_MODULES, Block, FeedForward, GroupedAttention, ModelShape, ModuleNames
from synth.errors import InputError

WIDTH_MULTIPLE = 256
"""Llama's feed-forward widths are rounded up to such a multiple."""


class Style(StrEnum):
    """What the numbers leave open."""

    LLAMA = "llama"
    """RMS norms, rotary positions, a gated feed-forward of 8h/3, no biases, no dropout."""
    GPT = "gpt"
    """Layer norms, learned positions, a feed-forward of 4h, biases, dropout and a tied head."""


def describe_model(
    style: Style,
    *,
    layers: int,
    hidden: int,
    heads: int,
    vocabulary: int,
    positions: int,
    kv_heads: int | None = None,
    width: int | None = None,
) -> ModelShape:
    """A model of equal blocks.

    Parameters
    ----------
    style
        What the numbers leave open.
    layers, hidden, heads, vocabulary
        Blocks, hidden size, attention heads, tokens known.
    positions
        Rows of the position embedding where it is learned.
    kv_heads, width
        Key heads, by default as many as heads; feed-forward width, by default that of the style.

    Raises
    ------
    InputError
        When the heads do not divide the hidden size.
    """
    if hidden % heads:
        raise InputError(f"{heads} heads are given with a hidden size of {hidden}: give a divisor of it")
    gpt = style is Style.GPT
    rounded = -(-8 * hidden // (3 * WIDTH_MULTIPLE)) * WIDTH_MULTIPLE
    attention = GroupedAttention(
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        head_size=hidden // heads,
        qkv_bias=gpt,
        output_bias=gpt,
        rotary=not gpt,
    )
    inner = FeedForward(width=width or (4 * hidden if gpt else rounded), gated=not gpt, bias=gpt)
    return ModelShape(
        name=f"{style}, {layers} layers of {hidden}",
        hidden=hidden,
        vocabulary=vocabulary,
        blocks=(Block(attention=attention, feed_forward=inner),) * layers,
        learned_positions=positions if gpt else 0,
        tied=gpt,
        layer_norm=gpt,
        hidden_dropout=gpt,
        attention_dropout=gpt,
        modules=GPT2_MODULES if gpt else ModuleNames(),
    )
