"""Activation checkpointing of a stage: it keeps what its blocks take, and runs each again in its backward.

PyTorch's own (the idea: arXiv 1604.06174), without re-entering autograd, with the random numbers and the
autocast of the first run. With deferred weight gradients a block runs again once, in B or BW, and nothing
runs again in W.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_recomputing(module: nn.Module, x: Tensor) -> Tensor:
    """A stage's forward that keeps its blocks' inputs alone.

    Parameters
    ----------
    module
        The blocks of an ``nn.Sequential`` are its parts that have layers inside; beside them single layers
        (an embedding, a head) run as usual. Any other module is one block.
    x
        Its input.
    """
    parts = list(module.children()) if type(module) is nn.Sequential else [module]
    if not any(_has_layers(part) for part in parts):
        return _checkpointed(module, x)
    for part in parts:
        x = _checkpointed(part, x) if _has_layers(part) else part(x)
    return x


def _has_layers(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = checkpoint(block, x, use_reentrant=False)
    return y
