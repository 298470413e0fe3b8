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
    # Not torch.manual_seed: it seeds every kind of device, and on those that have not started it takes down
    # the call stack, which costs more than a small op.
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(own)
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
