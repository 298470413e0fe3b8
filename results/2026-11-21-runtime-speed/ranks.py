"""What one rank does: the same model under this package's runtime and under PyTorch's own, in turn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import config
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from runtime.deferred import defer_weights
from runtime.executor import PipelineRunner
from runtime.llama import LlamaConfig, build_stage, next_token_loss
from runtime.shapes import TensorSpec
from runtime.text import synthetic_text
from runtime.timeline import gather_memory, gather_timeline, step_memory
from runtime.world import World, join_at
from synth.document import write_timeline
from synth.schedule import Schedule

MODEL = LlamaConfig(
    vocabulary=config.VOCABULARY, hidden=config.HIDDEN, layers=config.LAYERS, heads=config.HEADS
)
MICROBATCH = TensorSpec((config.ROWS, config.POSITIONS), torch.int64)
Modules = dict[int, nn.Module]


def compare(rank: int, folder: str, schedule: Schedule, csv: str) -> None:
    """Take turns between the runtimes; every rank writes what it saw."""
    world = _join(rank, folder)
    native, deferred = make_runner(schedule, world, False), make_runner(schedule, world, True)
    theirs, step_theirs = make_torch(schedule, rank, csv)
    steps = {"native": native.step, "torch": step_theirs, "deferred": deferred.step}
    names, walls, profiled = list(steps), {name: [] for name in steps}, []
    for turn in range(config.WARM_UP + config.PAIRS):
        text = make_text(turn)
        for n in range(len(names)):
            name = names[(turn + n) % len(names)]
            dist.barrier(world.pipeline)
            began, busy = time.monotonic_ns(), time.process_time()
            steps[name](text[:, :-1], text[:, 1:])
            walls[name].append((began, time.monotonic_ns(), time.process_time() - busy))
            if name == "deferred" and turn >= config.WARM_UP and (turn - config.WARM_UP) % 2 == 0:
                profiled.append(deferred.times())
    timeline = gather_timeline(deferred, "every other turn", profiled)
    differences = {
        "native": difference(native.modules, theirs),
        "deferred": difference(deferred.modules, theirs),
    }
    native.close()
    deferred.close()
    text = None if timeline is None else write_timeline(timeline)
    seen = {"walls": walls, "timeline": text, "differences": differences}
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


def profile(rank: int, folder: str, schedule: Schedule) -> None:
    """The timeline of the median of some steps with what ranks hold, as ``runtime.train`` writes it."""
    world = _join(rank, folder)
    runner = make_runner(schedule, world, True)
    seen = []
    for turn in range(config.WARM_UP + config.PROFILE_STEPS):
        text = make_text(turn)
        dist.barrier(world.pipeline)
        runner.step(text[:, :-1], text[:, 1:])
        seen.append(runner.times())
    timeline = gather_timeline(runner, "a profile round", seen[config.WARM_UP :])
    text = make_text(0)
    timeline = gather_memory(runner, timeline, step_memory(runner, text[:, :-1], text[:, 1:]))
    runner.close()
    written = None if timeline is None else write_timeline(timeline)
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps({"timeline": written}))
    dist.destroy_process_group()


def _join(rank: int, folder: str) -> World:
    torch.set_num_threads(1)
    return join_at(dist.FileStore(f"{folder}/store", config.RANKS), rank, config.RANKS, config.RANKS)


def make_modules(schedule: Schedule, rank: int, is_deferred: bool) -> Modules:
    """This rank's stages, always of the same weights."""
    problem = schedule.problem
    modules = {s: build_stage(MODEL, s, problem.num_stages) for s in problem.stages_by_rank[rank]}
    if is_deferred:
        for module in modules.values():
            defer_weights(module)
    return modules


def make_runner(schedule: Schedule, world: World, is_deferred: bool) -> PipelineRunner:
    """This package's runtime."""
    modules = make_modules(schedule, world.rank, is_deferred)
    return PipelineRunner(schedule, modules, world=world, microbatch=MICROBATCH, loss=next_token_loss)


def make_torch(schedule: Schedule, rank: int, csv: str) -> tuple[Modules, Callable[..., None]]:
    """PyTorch's runtime on the same order, told all shapes, with the division that it brings."""
    modules = make_modules(schedule, rank, False)
    last, group = schedule.problem.num_stages - 1, dist.new_group(list(range(config.RANKS)))
    tokens = torch.zeros(MICROBATCH.shape, dtype=MICROBATCH.dtype)
    features = torch.zeros(*MICROBATCH.shape, config.HIDDEN, requires_grad=True)
    logits = torch.zeros(*MICROBATCH.shape, config.VOCABULARY, requires_grad=True)
    stages = [
        PipelineStage(
            module,
            stage,
            last + 1,
            torch.device("cpu"),
            input_args=(features if stage else tokens,),
            output_args=(features if stage < last else logits,),
            group=group,
        )
        for stage, module in modules.items()
    ]
    runtime = _PipelineScheduleRuntime(stages, config.MICROBATCHES, loss_fn=next_token_loss)
    runtime._load_csv(csv)

    def step(batch: Tensor, target: Tensor) -> None:
        for module in modules.values():
            module.zero_grad(set_to_none=True)  # as the other runtime does in its step
        losses: list[Tensor] = []
        labels: dict[str, Any] = {"target": target, "losses": losses} if last in modules else {}
        runtime.step(*([batch] if 0 in modules else []), return_outputs=False, **labels)

    return modules, step


def make_text(turn: int) -> Tensor:
    """One batch."""
    rows = config.ROWS * config.MICROBATCHES
    return synthetic_text(
        seed=0, step=turn, rows=rows, positions=config.POSITIONS, vocabulary=config.VOCABULARY
    )


def difference(ours: Modules, theirs: Modules) -> float:
    """The largest between the gradients of the last step, relative to the largest number of each."""
    return max(
        ((a.grad - b.grad).abs().max() / b.grad.abs().max()).item()
        for stage, module in ours.items()
        for a, b in zip(module.parameters(), theirs[stage].parameters(), strict=True)
    )
