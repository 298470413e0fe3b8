"""Factories that tests measure, good ones and wrong ones, and what processes of those tests do."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from costmodels.measured.links import measure_links
from runtime.world import join_at

ROWS, WIDTH, INNER, TOKENS = 6, 8, 12, 11


def mlp():
    """Four layers of which a cut may fall between any two; no loss."""
    torch.manual_seed(0)
    names = ("up", "act", "down", "norm")
    layers = (nn.Linear(WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, WIDTH), nn.LayerNorm(WIDTH))
    return dict(zip(names, layers, strict=True)), torch.randn(ROWS, WIDTH)


def language_model():
    """Embedding, two blocks with attention, head and a loss."""
    torch.manual_seed(0)
    tokens = torch.randint(TOKENS, (2, 5))
    layers = nn.Sequential(
        nn.Embedding(TOKENS, WIDTH), Attention(WIDTH), Attention(WIDTH), nn.Linear(WIDTH, TOKENS)
    )
    return layers, tokens, lambda y: functional.cross_entropy(y.flatten(0, 1), tokens.flatten())


class Attention(nn.Module):
    """Causal attention with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = (
            nn.RMSNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unsqueeze(1) for part in self.qkv(self.norm(x)).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(mixed.squeeze(1))


class Recomputed(nn.Module):
    """Activation checkpointing around a module."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inside, x, use_reentrant=False, preserve_rng_state=False)


not_a_function = 3


def takes_something(size):
    return size


def raises():
    raise RuntimeError("no weights here\nsecond line")


def returns_nothing():
    return None


def returns_one_module():
    return nn.Linear(2, 2), torch.zeros(1, 2)


def returns_no_layers():
    return [], torch.zeros(1, 2)


def returns_numbers():
    return [1, 2], torch.zeros(1, 2)


def returns_a_number():
    return 3, torch.zeros(1, 2)


def returns_no_tensor():
    return [nn.Linear(2, 2)], [[0.0, 0.0]]


def returns_no_loss():
    return [nn.Linear(2, 2)], torch.zeros(1, 2), "mean"


def misfits():
    return [nn.Linear(2, 3), nn.Linear(4, 2)], torch.zeros(1, 2)


class Unkind(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        raise RuntimeError("no way back")


class OneWay(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Unkind.apply(x)


def backward_fails():
    return [nn.Linear(2, 2), OneWay()], torch.zeros(1, 2)


class Pair(nn.Module):
    def forward(self, x: Tensor):
        return x, x


class Rounded(nn.Module):
    def forward(self, x: Tensor):
        return x.long()


def gives_a_pair():
    return [Pair()], torch.zeros(1, 2)


def gives_integers():
    return [Rounded()], torch.zeros(1, 2)


def loss_fails():
    return [nn.Linear(2, 2)], torch.zeros(1, 2), lambda y: y @ torch.zeros(5, 5)


def loss_is_no_number():
    return [nn.Linear(2, 2)], torch.zeros(1, 2), lambda y: y


def doubles():
    return [nn.Linear(2, 2).double()], torch.zeros(1, 2, dtype=torch.float64)


SIZES, ROUNDS, LATENCY_S, BYTES_PER_S = (1024, 65536, 1048576), 3, 1e-4, 1e9


def measured_links(store, number: int, count: int):
    """Links by a clock on which every message takes exactly its time."""
    world = join_at(store, number, count, count, device=torch.device("cpu"), timeout_s=30)
    return measure_links(world, SIZES, ROUNDS, scripted_clock())


def scripted_clock():
    """Read before and after each round: there and back, one size after another."""
    rounds = [size for size in SIZES for _ in range(ROUNDS + 1)]
    reads = [(0.0, 2 * (LATENCY_S + size / BYTES_PER_S)) for size in rounds]
    return itertools.chain.from_iterable(itertools.cycle(reads)).__next__
