"""A small Llama-shaped model, cut into stages: the example that :mod:`runtime.train` trains.

Pre-norm blocks of causal attention with rotary positions and a gated feed-forward (Llama, arXiv 2302.13971).
Every layer draws its first weights from a seed of its own, so they do not depend on the cut. Sequence slices
(:mod:`runtime.slices`) attend to the keys and values that earlier ones keep (Seq1F1B, arXiv 2406.03488).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.errors import InputError

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The size of a model.

    Parameters
    ----------
    vocabulary, hidden, layers, heads
        Counts; ``hidden`` is a multiple of twice ``heads``.
    seed
        Of the first weights.
    """

    vocabulary: int = 64
    hidden: int = 64
    layers: int = 4
    heads: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.hidden % (2 * self.heads):
            raise InputError(
                f"hidden is {self.hidden} with {self.heads} heads: give a multiple of {2 * self.heads}"
            )


def build_stage(config: LlamaConfig, stage: int, num_stages: int) -> nn.Sequential:
    """One stage: the embedding ahead of the first layers, norm and head behind the last.

    Parameters
    ----------
    config
        The model.
    stage, num_stages
        Which part; layers are spread evenly, the earlier stages take one more where they do not divide.

    Raises
    ------
    InputError
        When there are fewer layers than stages.
    """
    if config.layers < num_stages:
        raise InputError(f"layers is {config.layers} with {num_stages} stages: give at least one per stage")
    share, more = divmod(config.layers, num_stages)
    first = stage * share + min(stage, more)
    parts: list[nn.Module] = [
        _seeded(config, layer + 1, Block) for layer in range(first, first + share + (stage < more))
    ]
    if stage == 0:
        parts.insert(0, _seeded(config, 0, lambda c: nn.Embedding(c.vocabulary, c.hidden)))
    if stage == num_stages - 1:
        parts.append(nn.RMSNorm(config.hidden))
        parts.append(
            _seeded(config, config.layers + 1, lambda c: nn.Linear(c.hidden, c.vocabulary, bias=False))
        )
    return nn.Sequential(*parts)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden, 8 * config.hidden // 3
        self.heads = config.heads
        self.attention_norm, self.feed_forward_norm = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (rows, positions, hidden) to the same."""
        return self.forward_slice(x, ())[0]

    def forward_slice(self, x: Tensor, past: Sequence[KeyValue]) -> tuple[Tensor, KeyValue]:
        """The same for one sequence slice, beside its keys and values (rows, heads, positions, features)."""
        mixed, own = self._attend(self.attention_norm(x), past)
        x = x + self.output(mixed)
        gate, up = self.gate_up(self.feed_forward_norm(x)).chunk(2, dim=-1)
        further: Tensor = self.down(functional.silu(gate) * up)
        return x + further, own

    def _attend(self, x: Tensor, past: Sequence[KeyValue]) -> tuple[Tensor, KeyValue]:
        rows, positions, hidden = x.shape
        before = sum(key.shape[-2] for key, _ in past)
        split = self.query_key_value(x).view(rows, positions, 3, self.heads, hidden // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        query, key = _rotate(query, before), _rotate(key, before)
        keys = torch.cat([*(kept for kept, _ in past), key], dim=-2) if past else key
        values = torch.cat([*(kept for _, kept in past), value], dim=-2) if past else value
        mask = torch.ones(positions, before + positions, dtype=torch.bool, device=x.device).tril(before)
        mixed: Tensor = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask if past else None, is_causal=not past
        )
        return mixed.transpose(1, 2).reshape(rows, positions, hidden), (key, value)


def _rotate(x: Tensor, before: int) -> Tensor:
    """Rotary positions (arXiv 2104.09864) on features (rows, heads, positions, features), so many before."""
    positions, features = x.shape[-2:]
    frequency = 10000.0 ** (-torch.arange(0, features, 2, device=x.device) / features)
    angle = torch.outer(torch.arange(before, before + positions, device=x.device), frequency)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of logits (rows, positions, vocabulary) against tokens (rows, positions)."""
    return functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())


def _seeded(config: LlamaConfig, number: int, make: Callable[[LlamaConfig], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + number)
        return make(config)
