"""The catalogue: every number has a source, and generations are what their data sheets say."""

import json
from pathlib import Path

import pytest
from models import flash_training

import costmodels
from costmodels.cluster import RESERVE_BYTES, Cluster
from costmodels.hardware import find_gpu, find_link, gpu_names, link_names
from costmodels.training import Precision
from synth.errors import InputError

CATALOGUE = json.loads((Path(costmodels.__file__).parent / "hardware.json").read_text())


def test_every_entry_has_a_source():
    entries = [*CATALOGUE["gpus"].values(), *CATALOGUE["links"].values()]
    assert all(entry["source"] for entry in entries)
    assert CATALOGUE["latency_source"]


def test_names():
    assert gpu_names() == ("v100", "a100-40", "a100-80", "h100", "h200", "b200")
    assert {"nvlink2", "nvlink5", "pcie4", "ib100", "ib200", "ib400"} <= set(link_names())


@pytest.mark.parametrize(
    ("name", "half", "full", "gib", "gb_per_s", "nvlink", "network"),
    [
        ("v100", 125, 15.7, 32, 900, 150, 12.5),
        ("a100-40", 312, 156, 40, 1555, 300, 25),
        ("a100-80", 312, 156, 80, 2039, 300, 25),
        ("h100", 1979 / 2, 989 / 2, 80, 3350, 450, 50),
        ("h200", 1979 / 2, 989 / 2, 143771 / 1024, 4800, 450, 50),
        ("b200", 4500 / 2, 2250 / 2, 180 - 1, 8000, 900, 50),
    ],
)
def test_gpus(name, half, full, gib, gb_per_s, nvlink, network):
    """Data sheets: dense TFLOP/s (half of those with sparsity), GiB, GB/s, NVLink and network one way.

    The memory of H200 is the 143771 MiB that its driver reports, to the GiB below.
    """
    gpu = find_gpu(name)
    assert gpu.flops_per_s(Precision.FP16) == pytest.approx(half * 1e12, rel=1e-3)
    assert gpu.flops_per_s(Precision.FP32) == pytest.approx(full * 1e12, rel=1e-3)
    assert gpu.memory_bytes == pytest.approx(gib * 2**30, rel=3e-3)
    assert gpu.memory_bytes_per_s == gb_per_s * 1e9
    assert (gpu.nvlink.bytes_per_s, gpu.network.bytes_per_s) == (nvlink * 1e9, network * 1e9)


@pytest.mark.parametrize(("name", "transfers_per_s"), [("pcie3", 8e9), ("pcie4", 16e9), ("pcie5", 32e9)])
def test_pcie(name, transfers_per_s):
    """16 lanes, of 130 bits 128 are data."""
    assert find_link(name).bytes_per_s == pytest.approx(16 * transfers_per_s * 128 / 130 / 8, rel=1e-3)


@pytest.mark.parametrize(("name", "gbit"), [("ib100", 100), ("ib200", 200), ("ib400", 400)])
def test_networks_are_bits_and_links_bytes(name, gbit):
    assert find_link(name).bytes_per_s == gbit * 1e9 / 8


def test_v100_has_no_bf16():
    with pytest.raises(
        InputError, match="v100 is given with bf16, which it does not have: give --dtype fp16"
    ):
        find_gpu("v100").flops_per_s(Precision.BF16)


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (find_gpu, "H100", "'H100' is no GPU of the catalogue: perhaps h100 is meant; it has v100, a100-40"),
        (find_gpu, "tpu", "'tpu' is no GPU of the catalogue: it has v100"),
        (find_link, "IB400", "'IB400' is no link of the catalogue: perhaps ib400 is meant"),
    ],
)
def test_unknown_names_are_refused(find, name, message):
    with pytest.raises(InputError, match=message):
        find(name)


# Which link connects what.


def test_a_node_holds_neighbouring_ranks():
    """Eight GPUs in a node: with four per rank two ranks share one."""
    cluster = Cluster(gpu=find_gpu("h100"))
    names = [cluster.link_between(0, b, flash_training(tensor_parallel=4)).name for b in range(4)]
    assert names == ["nvlink4", "nvlink4", "ib400", "ib400"]
    names = [cluster.link_between(0, b, flash_training(tensor_parallel=8)).name for b in range(4)]
    assert names == ["nvlink4", "ib400", "ib400", "ib400"]
    names = [cluster.link_between(0, b, flash_training()).name for b in (7, 8)]
    assert names == ["nvlink4", "ib400"]


def test_experts_take_their_part_of_a_node():
    cluster = Cluster(gpu=find_gpu("h100"))
    training = flash_training(tensor_parallel=2, expert_parallel=4, data_parallel=4)
    assert cluster.link_between(0, 1, training).name == "ib400"
    assert cluster.machine(training).expert_link.name == "nvlink4"
    wide = flash_training(tensor_parallel=2, expert_parallel=8, data_parallel=8)
    assert cluster.machine(wide).expert_link.name == "ib400"


def test_a_named_link_connects_all_ranks():
    cluster = Cluster(gpu=find_gpu("a100-80"), rank_link=find_link("pcie4"), network=find_link("ib100"))
    assert cluster.link_between(0, 1, flash_training()).name == "pcie4"
    assert cluster.machine(flash_training(tensor_parallel=16)).tensor_link.name == "ib100"


def test_memory_limit():
    gpu = find_gpu("h100")
    assert Cluster(gpu=gpu).memory_limit_bytes() == 80 * 2**30 - RESERVE_BYTES == 76 * 2**30
    assert Cluster(gpu=gpu, limit_bytes=5).memory_limit_bytes(2**40) == 5
    assert Cluster(gpu=gpu).memory_limit_bytes(5 * 2**30) == 75 * 2**30
