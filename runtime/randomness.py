"""Random numbers that depend on what is computed, not on where or when.

Every (step, stage of the model, microbatch) has its own seed, and so has every sequence slice behind the
first, so dropout is the same under any order, placement and direction. A one-process reference matches by
running each stage's forward inside :func:`seeded` with the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, step: int, stage: int, microbatch: int, device: torch.device) -> Iterator[None]:
    """Give what runs inside its own random numbers, and leave those outside as they were."""
    numbers = f"{seed} {step} {stage} {microbatch}".encode()
    own = int.from_bytes(hashlib.blake2b(numbers, digest_size=8).digest(), "big") >> 1
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(own)
        yield
