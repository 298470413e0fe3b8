"""The models that are measured, as the analytic cost model describes them: no dropout, fused attention."""

from __future__ import annotations

import torch
from config import setting
from torch import Tensor, nn
from torch.nn import functional

from runtime.llama import Block, LlamaConfig, next_token_loss


class GptBlock(nn.Module):
    """Attention and a feed-forward of four times the width, layer norms, biases."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.output = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.output(self._attend(self.attention_norm(x)))
        return x + self.down(functional.gelu(self.up(self.feed_forward_norm(x))))

    def _attend(self, x: Tensor) -> Tensor:
        rows, positions, hidden = x.shape
        split = self.qkv(x).view(rows, positions, 3, self.heads, hidden // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(rows, positions, hidden)


class Positions(nn.Module):
    """Learned positions beside the tokens' embedding."""

    def __init__(self, vocabulary: int, positions: int, hidden: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, hidden), nn.Embedding(positions, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))


def llama():
    """The blocks that ``runtime.train`` trains."""
    s = setting()
    config = LlamaConfig(vocabulary=s.vocabulary, hidden=s.hidden, heads=s.heads, layers=s.blocks)
    head = nn.Linear(s.hidden, s.vocabulary, bias=False)
    return _model(
        nn.Embedding(s.vocabulary, s.hidden),
        [Block(config) for _ in range(s.blocks)],
        nn.RMSNorm(s.hidden),
        head,
    )


def gpt():
    """GPT without dropout."""
    s = setting()
    head = nn.Linear(s.hidden, s.vocabulary, bias=False)
    blocks = [GptBlock(s.hidden, s.heads) for _ in range(s.blocks)]
    return _model(Positions(s.vocabulary, s.positions, s.hidden), blocks, nn.LayerNorm(s.hidden), head)


def _model(embedding: nn.Module, blocks: list[nn.Module], norm: nn.Module, head: nn.Module):
    s = setting()
    torch.manual_seed(0)
    tokens = torch.randint(s.vocabulary, (s.rows, s.positions + 1))
    named = {"embedding": embedding, **{f"block {n}": block for n, block in enumerate(blocks)}}
    layers = {name: layer.to(s.dtype) for name, layer in {**named, "norm": norm, "head": head}.items()}
    targets = tokens[:, 1:].contiguous()
    return (
        layers,
        tokens[:, :-1].contiguous(),
        lambda logits: next_token_loss(logits, targets.to(logits.device)),
    )
