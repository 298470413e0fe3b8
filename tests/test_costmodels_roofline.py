"""Seconds from work, by hand."""

import pytest

from costmodels.hardware import Gpu, Link
from costmodels.operations import Work
from costmodels.roofline import Efficiencies, Machine, transfer_seconds
from costmodels.training import Precision
from synth.errors import InputError

FAST = Link(name="fast", bytes_per_s=100.0, latency_s=1.0, source="made up")
SLOW = Link(name="slow", bytes_per_s=10.0, latency_s=2.0, source="made up")
GPU = Gpu(
    name="made up",
    memory_bytes=1,
    half_flops_per_s=1000.0,
    full_flops_per_s=100.0,
    memory_bytes_per_s=50.0,
    nvlink=FAST,
    network=SLOW,
    source="made up",
)
SHARES = Efficiencies(matmul=0.5, attention=0.25, memory=0.8, link=0.5)
MACHINE = Machine(gpu=GPU, precision=Precision.BF16, efficiencies=SHARES, tensor_link=FAST, expert_link=SLOW)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(), 0),
        (Work(matmul_flops=1000), 2),
        (Work(attention_flops=1000), 4),
        (Work(moved_bytes=400), 10),
        (Work(matmul_flops=1000, moved_bytes=400), 10),
        (Work(matmul_flops=10_000, moved_bytes=400), 20),
        (Work(tensor_bytes=100), 1 + 2),
        (Work(expert_bytes=100), 2 + 20),
        (Work(moved_bytes=400, tensor_bytes=100), 10 + 3),
    ],
)
def test_by_hand(work, seconds):
    assert MACHINE.seconds([work]) == pytest.approx(seconds)


def test_operations_run_one_after_another():
    assert MACHINE.seconds([Work(matmul_flops=1000), Work(moved_bytes=400)]) == pytest.approx(12)


def test_full_precision_has_its_own_peak():
    full = Machine(gpu=GPU, precision=Precision.FP32, efficiencies=SHARES, tensor_link=FAST, expert_link=SLOW)
    assert full.seconds([Work(matmul_flops=1000)]) == pytest.approx(20)


def test_transfer():
    assert transfer_seconds(100, SLOW, SHARES) == pytest.approx(22)


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(InputError, match=r"the memory efficiency is .*: give a share above 0 and up to 1"):
        Efficiencies(memory=share)


def test_efficiencies_say_themselves():
    assert str(SHARES) == "matmul 0.5, attention 0.25, memory 0.8, link 0.5"
