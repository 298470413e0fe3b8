"""Checkpoints: a folder per step with a file per stage of the model, there as a whole or not at all.

Files are by stage and hold whole parameters and their optimizer's state, so a run may resume with another
schedule or placement of the same stages, with more replicas or fewer, and with a flush or without: of
double-buffered weights both versions are there, and a flush takes the newest. Random numbers depend on seed
and step only (:mod:`runtime.randomness`) and need no saving.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.executor import PipelineRunner
from synth.errors import InputError

_STEP = re.compile(r"step-(\d+)")


def save_checkpoint(
    folder: Path, runner: PipelineRunner, optimizers: Mapping[int, torch.optim.Optimizer]
) -> None:
    """Write what the next step starts from; every rank calls this.

    The first replica's ranks write their stages, of directions the first rank that holds a stage; the folder
    gets its name when all are there.

    Parameters
    ----------
    folder
        Of all checkpoints of the run.
    runner, optimizers
        The modules, and their stages' optimizers, by stage of the model.

    Raises
    ------
    InputError
        When the folder cannot be written to.
    """
    world = runner.world
    states = {stage: runner.optimizer_state(stage, optimizers[stage]) for stage in runner.modules}
    if world.replica > 0:
        return
    contents = {
        stage: {
            "extra": runner.extra_state(stage),
            "module": module.state_dict(),
            "optimizer": states[stage],
        }
        for stage, module in runner.modules.items()
        if runner.routes.holders(stage)[0] == world.rank
    }
    try:
        _save(folder, runner, contents)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): name another folder") from error


def _save(folder: Path, runner: PipelineRunner, contents: Mapping[int, dict[str, Any]]) -> None:
    world, step = runner.world, runner.completed_steps
    partial, whole = folder / f".step-{step}.partial", folder / f"step-{step}"
    partial.mkdir(parents=True, exist_ok=True)
    for stage, content in contents.items():
        torch.save(content, partial / _file(stage))
    name = f"saved/{step}"
    runner.bulletin.put(f"{name}/{world.rank}", "")
    if world.rank == 0:
        for rank in range(world.num_ranks):
            runner.bulletin.read(f"{name}/{rank}", f"the checkpoint of rank {rank}")
        if whole.exists():
            shutil.rmtree(whole)
        partial.rename(whole)


def load_checkpoint(
    folder: Path, runner: PipelineRunner, optimizers: Mapping[int, torch.optim.Optimizer]
) -> None:
    """Go on after the latest checkpoint in a folder.

    Raises
    ------
    InputError
        When there is none, it is damaged, or its stages are not this run's.
    """
    found = [(int(match[1]), path) for path in _subfolders(folder) if (match := _STEP.fullmatch(path.name))]
    if not found:
        raise InputError(f"{folder} holds no checkpoint: name the folder that an earlier run wrote them to")
    step, latest = max(found)
    stages = len(list(latest.glob("stage-*.pt")))
    if stages != runner.routes.num_model_stages:
        raise InputError(
            f"{latest} holds {stages} stages and the schedule has {runner.routes.num_model_stages}: "
            "resume with a schedule of as many"
        )
    for stage, module in runner.modules.items():
        content = _read(latest / _file(stage), runner.world.device)
        try:
            module.load_state_dict(content["module"])
            runner.load_optimizer_state(stage, optimizers[stage], content["optimizer"])
            runner.load_extra_state(stage, content.get("extra", {}))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{latest / _file(stage)} is of another model than this run: give that run's options"
            ) from error
    runner.completed_steps = step


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """What a file holds."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, LookupError, ValueError, pickle.UnpicklingError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict) or not {"module", "optimizer"} <= set(content):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged or no checkpoint of a stage: resume from another folder")


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _file(stage: int) -> str:
    return f"stage-{stage}.pt"
