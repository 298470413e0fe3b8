"""One process of pipelines that PyTorch's own runtime drives over gloo.

``torch_processes.py RANK NUM_PROCESSES FOLDER``: every case is a folder in there, with the files of an export
to ``torch-csv``. The process builds the stages of its rank with the exported module, takes one step and saves
losses and gradients, for the parent to compare with :func:`reference`, the same step without a pipeline.
"""

from __future__ import annotations

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage

WIDTH = 6
ROWS_PER_MICROBATCH = 2
PATIENCE_S = 120
"""For any one message; a rank that is left alone gives up then."""


def make_stage(stage: int) -> torch.nn.Module:
    """A stage of two linear layers with weights that depend on its number alone, in double precision."""
    generator = torch.Generator().manual_seed(1000 + stage)
    module = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.Tanh(), torch.nn.Linear(2 * WIDTH, WIDTH)
    ).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def make_batch(num_microbatches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of one step, every microbatch different."""
    generator = torch.Generator().manual_seed(7)
    shape = (num_microbatches * ROWS_PER_MICROBATCH, WIDTH)
    draw = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    return draw[0], draw[1]


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss of one microbatch."""
    return torch.nn.functional.mse_loss(output, target)


def gradients(stage: torch.nn.Module) -> list[torch.Tensor]:
    """The gradient of every parameter."""
    return [parameter.grad.detach().clone() for parameter in stage.parameters()]


def reference(num_stages: int, num_microbatches: int) -> tuple[list[float], list[list[torch.Tensor]]]:
    """Losses per microbatch and gradients per stage, of one process that runs microbatch after microbatch."""
    stages = [make_stage(stage) for stage in range(num_stages)]
    inputs, targets = (each.chunk(num_microbatches) for each in make_batch(num_microbatches))
    losses = []
    for x, target in zip(inputs, targets, strict=True):
        loss = loss_of(torch.nn.Sequential(*stages)(x), target)
        (loss / num_microbatches).backward()
        losses.append(loss.item())
    return losses, [gradients(stage) for stage in stages]


def run_case(case: ModuleType, rank: int) -> dict:
    """One step of a case: losses, where the last stage is here, and gradients by stage.

    A case of fewer ranks than processes leaves the last processes idle.
    """
    num_ranks, num_stages = case.PLAN["num_ranks"], case.PLAN["num_stages"]
    group = dist.new_group(list(range(num_ranks)))
    if rank >= num_ranks:
        return {}
    modules: dict[int, torch.nn.Module] = {}
    # Whether a received tensor wants a gradient is read off the example.
    example = torch.zeros(ROWS_PER_MICROBATCH, WIDTH, dtype=torch.float64, requires_grad=True)

    def on_this_rank(stage: int, num_stages: int) -> PipelineStage:
        modules[stage] = make_stage(stage)
        known = {"input_args": (example,), "output_args": (example,), "group": group}
        return PipelineStage(modules[stage], stage, num_stages, torch.device("cpu"), **known)

    schedule = case.build_schedule(rank, on_this_rank, loss_of)
    batch, target = make_batch(case.PLAN["num_microbatches"])
    losses: list[torch.Tensor] = []
    schedule.step(
        *([batch] if 0 in modules else []),
        **({"target": target, "losses": losses} if num_stages - 1 in modules else {}),
    )
    return {
        "losses": [loss.item() for loss in losses],
        "gradients": {stage: gradients(module) for stage, module in modules.items()},
    }


def load(path: Path) -> ModuleType:
    """An exported module."""
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(rank: int, num_processes: int, folder: Path) -> None:
    """Run every case and save what came of it."""
    cases = sorted(folder.glob("*/plan_torch.py"))
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(folder / "store"), num_processes),
        rank=rank,
        world_size=num_processes,
        timeout=timedelta(seconds=PATIENCE_S),
    )
    torch.save({case.parent.name: run_case(load(case), rank) for case in cases}, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
