"""Where a process computes: its own GPU, a share of one, or the CPU.

Several ranks on one GPU need NVIDIA's Multi-Process Service: without it the driver gives the GPU to one
process at a time, and nothing of a pipeline overlaps. With it every process gets its part of the GPU's
multiprocessors. NCCL refuses two ranks on one GPU (before 2.30 always, from then on by default), so messages
go over gloo, through pinned host memory (:mod:`runtime.transport`).

Nothing of sharing a GPU has been run where this was written: there was no GPU. What is tested is what is
refused, and the way through host memory with tensors of the CPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from synth.errors import InputError

_PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"


def own_device(process: int) -> torch.device:
    """This process's GPU where there are as many as local processes, else the CPU."""
    local = int(os.environ.get("LOCAL_RANK", process))
    enough = torch.cuda.is_available() and torch.cuda.device_count() >= int(
        os.environ.get("LOCAL_WORLD_SIZE", local + 1)
    )
    return torch.device("cuda", local) if enough else torch.device("cpu")


def shared_device(local: int, num_local: int) -> torch.device:
    """A GPU that several processes share: call it before anything else touches CUDA.

    Parameters
    ----------
    local, num_local
        Which of this machine's processes this is, and how many there are.

    Raises
    ------
    InputError
        When there is no GPU, no Multi-Process Service, or the GPU takes no second process.
    """
    if not _service_pipe().exists():
        raise InputError(
            f"a GPU is to be shared and no Multi-Process Service answers at {_service_pipe()}: start it "
            "with nvidia-cuda-mps-control -d, give every rank a GPU, or compute on the CPU"
        )
    visible = torch.cuda.device_count()  # asks the driver without starting CUDA
    if visible == 0:
        raise InputError("a GPU is to be shared and torch sees none: compute on the CPU")
    sharers = len(range(local % visible, num_local, visible))
    # Read when CUDA starts; what was set by hand stays.
    os.environ.setdefault(_PERCENTAGE, str(100 // sharers))
    device = torch.device("cuda", local % visible)
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise InputError(
            f"GPU {device.index} does not take {sharers} processes ({str(error).partition(chr(10))[0]}): "
            "set its compute mode to Default, or give every rank a GPU"
        ) from error
    return device


def _service_pipe() -> Path:
    """Where the daemon of the Multi-Process Service listens."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control"
