"""Static bytes, against arXiv 1910.02054 (ZeRO), section 3.1 and figure 1."""

import pytest
from models import block_of, flash_training, gpt, model_of

from costmodels.model_shape import ModelShape
from costmodels.optimizer_state import StaticBytes, static_bytes
from costmodels.training import Precision


def per_parameter(**training):
    """Bytes per weight of one block: weights, gradients, optimizer state."""
    block = block_of(gpt(), flash_training(**training))
    found = static_bytes(block, flash_training(**training))
    return tuple(part / block.parameters for part in (found.weights, found.gradients, found.optimizer))


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"gradient_bytes": 2}, (2, 2, 12)),
        ({}, (2, 4, 12)),
        ({"precision": Precision.FP32}, (4, 4, 8)),
        ({"data_parallel": 4}, (2, 4, 12)),
        ({"data_parallel": 4, "zero_stage": 1}, (2, 4, 3)),
        ({"data_parallel": 4, "zero_stage": 2}, (2, 1, 3)),
    ],
)
def test_bytes_per_parameter(training, expected):
    assert per_parameter(**training) == pytest.approx(expected, rel=1e-6)


def test_figure_1():
    """7.5B weights, 64 replicas: 120 GB, 31.4 GB with ZeRO-1, 16.6 GB with ZeRO-2."""
    shape = gpt(layers=1)
    block = block_of(shape, flash_training())
    scale = 7.5e9 / block.parameters
    for stage, gigabytes in ((0, 120), (1, 31.4), (2, 16.6)):
        training = flash_training(gradient_bytes=2, data_parallel=64, zero_stage=stage)
        assert static_bytes(block, training).total * scale / 1e9 == pytest.approx(gigabytes, rel=3e-3)


def test_experts_are_shared_by_fewer_replicas():
    """Of 8 replicas, 4 share the experts: only 2 hold the same ones, and share their optimizer state."""
    model: ModelShape = model_of("mixtral-8x7b")
    training = flash_training(data_parallel=8, expert_parallel=4, zero_stage=1)
    block = block_of(model, training)
    expected = block.parameters * 12 / 8 + block.expert_parameters * 12 / 2
    assert static_bytes(block, training).optimizer == pytest.approx(expected, rel=1e-6)


def test_sums():
    one = StaticBytes(weights=1, gradients=2, optimizer=3)
    assert (one + one).total == 12
