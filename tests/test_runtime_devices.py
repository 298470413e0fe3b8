"""Which device a process takes, and what is refused; messages through host memory, here of CPU tensors."""

import os

import pytest
import torch
from torch import distributed as dist

from runtime.devices import own_device, shared_device
from runtime.world import join_at
from synth.baselines import baseline_orders
from synth.errors import InputError
from synth.placement import PlacementKind
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.runtime_cases import Case, against_reference


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are so many, each of which takes what is asked of it."""

    def pretend(count, fault=None):
        def zeros(*_, **__):
            if fault is not None:
                raise RuntimeError(fault)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch, "zeros", zeros)

    return pretend


@pytest.fixture
def service(monkeypatch, tmp_path):
    """Pretend that NVIDIA's daemon listens."""
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "")
    monkeypatch.delenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE")
    (tmp_path / "control").touch()


@pytest.mark.parametrize(
    ("count", "local", "num_local", "device"),
    [(0, 0, 2, "cpu"), (1, 1, 2, "cpu"), (2, 1, 2, "cuda:1"), (8, 3, 4, "cuda:3")],
)
def test_a_process_has_a_gpu_where_there_is_one_for_each(gpus, monkeypatch, count, local, num_local, device):
    gpus(count)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_local))
    assert own_device(local) == torch.device(device)


@pytest.mark.parametrize(
    ("count", "local", "num_local", "device", "percentage"),
    [
        (1, 3, 4, "cuda:0", "25"),
        (2, 1, 4, "cuda:1", "50"),
        (2, 0, 3, "cuda:0", "50"),
        (2, 1, 3, "cuda:1", "100"),
    ],
)
def test_sharers_get_their_part(gpus, service, monkeypatch, count, local, num_local, device, percentage):
    gpus(count)
    assert shared_device(local, num_local) == torch.device(device)
    assert os.environ["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == percentage


def test_sharing_without_the_service_is_refused(gpus, monkeypatch, tmp_path):
    gpus(1)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with pytest.raises(InputError, match=r"no Multi-Process Service answers at .*nvidia-cuda-mps-control -d"):
        shared_device(0, 2)


def test_sharing_without_a_gpu_is_refused(gpus, service):
    gpus(0)
    with pytest.raises(InputError, match="torch sees none: compute on the CPU"):
        shared_device(0, 2)


def test_a_gpu_that_takes_one_process_only_is_refused(gpus, service):
    gpus(1, "CUDA error: all CUDA-capable devices are busy or unavailable\nmore of it")
    says = r"GPU 0 does not take 2 processes \(CUDA error: .* busy or unavailable\): set its compute mode"
    with pytest.raises(InputError, match=says):
        shared_device(0, 2)


def test_replicas_do_not_share_gpus():
    store = dist.HashStore()
    for other in ("1", "2", "3"):
        dist.PrefixStore("ranks", store).set(other, "2")
    with pytest.raises(InputError, match=r"4 processes are to share GPUs .* start 2"):
        join_at(store, 0, 4, 2, is_staged=True)


@pytest.mark.parametrize(("name", "chunks"), [("zb-h1", 1), ("v-half", 2)])
def test_messages_through_host_memory_change_nothing(pool, name, chunks):
    kind = PlacementKind.V if chunks == 2 else PlacementKind.LOOP
    problem = uniform_problem(2, 6, EITHER, chunks=chunks, kind=kind, transfer_ticks=1)
    schedule = schedule_orders(problem, baseline_orders(name, problem))
    outcomes = pool.run(2, against_reference, Case(schedule=schedule, dropout=0.3, is_staged=True))
    assert all(outcome.equal for outcome in outcomes)
