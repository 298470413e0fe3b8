"""Train a small Llama-shaped model on synthetic text by a schedule document.

One process for each rank, a multiple of it for replicas::

    torchrun --nproc-per-node 4 -m runtime.train --schedule schedule.json

With ``--weights 2bw`` or ``stash`` the pipeline does not empty between steps. The schedule then holds two or
more batches of ``--batch-microbatches`` microbatches, one batch after the other, whose steady state is
repeated (:mod:`runtime.rolling`); a step is one batch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runtime.arguments import check, flag, make_parser, timeline_steps
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.deferred import defer_weights
from runtime.devices import shared_device
from runtime.ending import INTERRUPTED, Ending
from runtime.errors import PipelineError
from runtime.executor import Options, PipelineRunner
from runtime.gradients import Exchange
from runtime.llama import LlamaConfig, build_stage, next_token_loss
from runtime.preparation import check_alike
from runtime.routes import Routes
from runtime.shapes import TensorSpec
from runtime.stage import Division
from runtime.text import synthetic_text
from runtime.timeline import gather_memory, gather_timeline, step_memory
from runtime.unflushed import UnflushedRunner
from runtime.versions import WeightPolicy
from runtime.watch import BEAT_S
from runtime.world import World, join
from synth.document import read_schedule, write_timeline
from synth.errors import InputError
from synth.files import STANDARD_STREAM, read_text, write_whole
from synth.measured import MeasuredOp, Timeline
from synth.schedule import Schedule

FAILED, WRONG_INPUT = 1, 2


def run() -> NoReturn:
    """Train as the command line says, as the only thing that this process does."""
    ending = Ending(_rank(), FAILED)
    code = main(ending=ending)
    ending.over()
    sys.stdout.flush()
    # Threads may still sit in waits that nothing can end once another rank is gone.
    os._exit(code)


def main(arguments: Sequence[str] | None = None, ending: Ending | None = None) -> int:
    """Train as the arguments say; returns the exit code.

    Parameters
    ----------
    arguments
        By default the command line's.
    ending
        Speaks for this process where it is told to end and does not find out why.
    """
    options = make_parser(__doc__.partition("\n")[0]).parse_args(arguments)
    try:
        check(options)
        schedule = read_schedule(read_text(options.schedule), options.schedule).schedule
        world = _join(options, schedule.problem.num_ranks)
        _train(options, schedule, world, ending)
    except (InputError, PipelineError) as error:
        _say(str(error), ending)
        return WRONG_INPUT if isinstance(error, InputError) else FAILED
    except KeyboardInterrupt:
        _say("interrupted", ending)
        return INTERRUPTED
    except Exception:
        # A fault of the model or of ours, not of what was given.
        _say(traceback.format_exc(), ending)
        return FAILED
    return 0


def _say(why: str, ending: Ending | None) -> None:
    """Say why this rank ends, and wait until the others know, before they notice that it is gone."""
    # In one piece: print writes the end of the line apart, and another rank's words may come between.
    sys.stderr.write(f"rank {_rank()}: {why}\n")
    sys.stderr.flush()
    if ending is not None:
        ending.over()
    time.sleep(4 * BEAT_S)


def _rank() -> str:
    return os.environ.get("RANK", "0")


def _join(options: argparse.Namespace, num_ranks: int) -> World:
    device = None
    if options.share_gpu:
        local = int(os.environ.get("LOCAL_RANK", 0))
        device = shared_device(local, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return join(num_ranks, device=device, is_staged=options.share_gpu, timeout_s=options.timeout)


def _train(options: argparse.Namespace, schedule: Schedule, world: World, ending: Ending | None) -> None:
    if world.device.type == "cpu":
        torch.set_num_threads(1)  # several ranks share the cores
    runner, optimizers = _make_runner(options, schedule, world)
    if ending is not None:
        ending.watch = runner.watch
    with runner.watch.spreading(lambda: "training"):
        check_alike("arguments", _shared(options), world, runner.bulletin)
        if options.resume is not None:
            load_checkpoint(Path(options.resume), runner, optimizers, _lasting(options))
            for group in (group for optimizer in optimizers.values() for group in optimizer.param_groups):
                group["lr"] = options.learning_rate
        seen: list[list[MeasuredOp]] = []
        for number in range(options.steps):
            if isinstance(runner, UnflushedRunner):
                _begin(options, runner, number)
            _step(options, runner, optimizers)
            if number >= options.steps - timeline_steps(options):
                seen.append(runner.times())
        if options.checkpoints is not None:
            save_checkpoint(Path(options.checkpoints), runner, optimizers, _lasting(options))
        if options.timeline is not None:
            _write_timeline(options, runner, seen)
    runner.close()


def _lasting(options: argparse.Namespace) -> dict[str, int | str]:
    """What a run that goes on must have alike and no shape of the weights shows."""
    return {"--heads": options.heads, "--seed": options.seed}


_OF_ONE_RANK = {"schedule", "timeout", "division", "recompute", "share_gpu"}
"""Arguments that may differ: the schedules themselves are compared, and the others change no number."""
_PATHS = {"timeline", "checkpoints", "resume"}
"""Arguments that may be called differently on other machines, but are given to all ranks or to none."""


def _shared(options: argparse.Namespace) -> dict[str, object]:
    """What has to be the same on all ranks."""
    given = {name: value for name, value in vars(options).items() if name not in _OF_ONE_RANK}
    return {flag(name): bool(value) if name in _PATHS else value for name, value in given.items()}


def _begin(options: argparse.Namespace, runner: UnflushedRunner, number: int) -> None:
    """Announce the batches ahead where the weights are about to change their way."""
    if number < options.flush_steps:
        runner.begin(WeightPolicy.FLUSH, 1)
    elif number == options.flush_steps:
        runner.begin(WeightPolicy(options.weights), options.steps - number)


def _write_timeline(
    options: argparse.Namespace, runner: PipelineRunner, seen: Sequence[Sequence[MeasuredOp]]
) -> None:
    source = f"runtime.train on {runner.world.device.type}, torch {torch.__version__}"
    source += f", the median of the last {len(seen)} steps" if len(seen) > 1 else ", the last step"
    timeline = gather_timeline(runner, source, seen)

    def write(timeline: Timeline | None) -> None:
        if timeline is not None and runner.world.replica == 0:
            write_whole(options.timeline, write_timeline(timeline))

    if options.timeline != STANDARD_STREAM:
        write(timeline)  # whatever happens while memory is measured
    try:
        whole = gather_memory(runner, timeline, step_memory(runner, *_batch(options, runner)))
    except Exception:
        if options.timeline == STANDARD_STREAM:
            write(timeline)
        if timeline is not None:
            print("the timeline says nothing of memory: the step that measures it failed", file=sys.stderr)
        raise
    write(whole)


def _make_modules(options: argparse.Namespace, schedule: Schedule, world: World) -> dict[int, nn.Module]:
    routes = Routes(schedule.problem)
    num_stages = routes.num_model_stages
    config = LlamaConfig(
        vocabulary=options.vocabulary,
        hidden=options.hidden,
        heads=options.heads,
        layers=num_stages if options.layers is None else options.layers,
        seed=options.seed,
    )
    modules: dict[int, nn.Module] = {
        stage: build_stage(config, stage, num_stages).to(world.device) for stage in routes.held_by(world.rank)
    }
    if options.division == Division.DEFERRED:
        for module in modules.values():
            defer_weights(module)
    return modules


def _make_runner(
    options: argparse.Namespace, schedule: Schedule, world: World
) -> tuple[PipelineRunner, dict[int, Optimizer]]:
    """The runner, and the optimizers of its stages."""
    modules = _make_modules(options, schedule, world)
    microbatch = TensorSpec((options.microbatch_size, options.positions), torch.int64)
    how = Options(
        timeout_s=options.timeout,
        seed=options.seed,
        autocast=torch.bfloat16 if options.bfloat16 else None,
        recompute=options.recompute,
        exchange=Exchange(options.gradients),
        slice_positions=options.slice_positions,
    )

    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return torch.optim.AdamW(parameters, lr=options.learning_rate)

    if options.batch_microbatches is None:
        flushed = PipelineRunner(
            schedule, modules, world=world, microbatch=microbatch, loss=next_token_loss, options=how
        )
        return flushed, {stage: optimizer(flushed.parameters(stage)) for stage in modules}
    optimizers = {stage: optimizer(module.parameters()) for stage, module in modules.items()}
    unflushed = UnflushedRunner(
        schedule,
        modules,
        world=world,
        microbatch=microbatch,
        loss=next_token_loss,
        optimizers=optimizers,
        batch_microbatches=options.batch_microbatches,
        options=how,
    )
    return unflushed, optimizers


def _batch(options: argparse.Namespace, runner: PipelineRunner) -> tuple[Tensor, Tensor]:
    """What the next step trains on: rows, and of each the tokens that come next."""
    world = runner.world
    text = synthetic_text(
        seed=options.seed,
        step=runner.completed_steps * world.num_replicas + world.replica,
        rows=options.microbatch_size * runner.microbatches_per_step,
        positions=options.positions,
        vocabulary=options.vocabulary,
    )
    return text[:, :-1], text[:, 1:]


def _step(options: argparse.Namespace, runner: PipelineRunner, optimizers: Mapping[int, Optimizer]) -> None:
    number, (batch, target) = runner.completed_steps, _batch(options, runner)
    before = time.monotonic()
    loss = runner.step(batch, target)
    if not isinstance(runner, UnflushedRunner):  # which has done so on the way
        for optimizer in optimizers.values():
            optimizer.step()
        runner.gather()
    if loss is not None and runner.is_first_with_loss:
        seconds = time.monotonic() - before
        print(f"step {number}  loss {loss.item():.6f}  {seconds:.3f} s", flush=True)


if __name__ == "__main__":
    run()
