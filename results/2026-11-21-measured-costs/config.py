"""What is measured: two small models on a CPU, the same larger ones on a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The size of the models and how they are run."""

    hidden: int
    heads: int
    blocks: int
    vocabulary: int
    rows: int
    positions: int
    dtype: torch.dtype
    repeats: int
    warm_up: int
    threads: int | None

    @property
    def width(self) -> int:
        """Of Llama's feed-forward; GPT's is four times the hidden size."""
        return 8 * self.hidden // 3


SETTINGS = {
    "cpu": Setting(
        hidden=384,
        heads=6,
        blocks=4,
        vocabulary=2048,
        rows=4,
        positions=256,
        dtype=torch.float32,
        repeats=15,
        warm_up=3,
        threads=1,
    ),
    "cuda": Setting(
        hidden=4096,
        heads=32,
        blocks=4,
        vocabulary=32000,
        rows=1,
        positions=4096,
        dtype=torch.bfloat16,
        repeats=50,
        warm_up=10,
        threads=None,
    ),
}

CUT = (2, 1, 1, 3)
"""Embedding and a block, a block, a block, a block with last norm and head (with loss)."""


def setting() -> Setting:
    """That of the device that run.py was given."""
    return SETTINGS[os.environ.get("MEASURED_COSTS_DEVICE", "cpu")]
