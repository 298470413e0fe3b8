"""Running modules for what is seen by it, without a trace in their state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def unchanged(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Leave the modules' buffers, as running statistics are, with the content that they had."""
    before = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, content in before:
                buffer.copy_(content)
