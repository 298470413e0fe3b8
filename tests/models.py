"""Models and ways to train them that tests of the cost models share."""

from __future__ import annotations

from pathlib import Path

from costmodels.architectures import read_model
from costmodels.described import Style, describe_model
from costmodels.layers import Layer, model_layers
from costmodels.model_shape import ModelShape
from costmodels.training import AttentionKernel, Training

CONFIGS = Path(__file__).parent / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))


def model_of(name: str) -> ModelShape:
    """A published model by the name of its configuration."""
    return read_model(str(CONFIGS / f"{name}.json"))


def gpt(*, layers: int = 4, hidden: int = 512, heads: int = 8, vocabulary: int = 1024) -> ModelShape:
    """A GPT as in the papers whose formulas are the oracles."""
    return describe_model(
        Style.GPT, layers=layers, hidden=hidden, heads=heads, vocabulary=vocabulary, positions=4096
    )


def core_training(**changed: object) -> Training:
    """Attention by matrix products, as those formulas have it: s = 256, b = 2 where nothing else is said."""
    given = {"microbatch_size": 2, "sequence_length": 256, "attention": AttentionKernel.CORE}
    return Training(**{**given, **changed})


def flash_training(**changed: object) -> Training:
    """The fused kernel: s = 256, b = 2 where nothing else is said."""
    return core_training(**{"attention": AttentionKernel.FLASH, **changed})


def block_of(model: ModelShape, training: Training, index: int = 0) -> Layer:
    """One block of a model."""
    return [layer for layer in model_layers(model, training) if layer.is_block][index]
