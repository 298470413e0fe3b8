"""Synthetic text: a random chain of tokens that a model can learn, the same on every rank without a file."""

from __future__ import annotations

import torch
from torch import Tensor

SUCCESSORS = 4
"""Every token is followed by one of so many, all as likely: the best loss is the logarithm of this."""


def synthetic_text(*, seed: int, step: int, rows: int, positions: int, vocabulary: int) -> Tensor:
    """One batch of tokens, shape (rows, positions + 1): inputs and, one further, targets.

    Parameters
    ----------
    seed
        Which chain.
    step
        Which batch of it.
    rows, positions, vocabulary
        Counts.
    """
    chain = torch.Generator().manual_seed(seed)
    following = torch.randint(vocabulary, (vocabulary, SUCCESSORS), generator=chain)
    draw = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
    tokens = [torch.randint(vocabulary, (rows,), generator=draw)]
    choices = torch.randint(SUCCESSORS, (positions, rows), generator=draw)
    for choice in choices:
        tokens.append(following[tokens[-1], choice])
    return torch.stack(tokens, dim=1)
