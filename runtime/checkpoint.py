"""Checkpoints: a folder per step with a file per stage of the model, there as a whole or not at all.

Files are by stage and hold whole parameters and their optimizer's state, so a run may resume with another
schedule or placement of the same stages, with more replicas or fewer, and with a flush or without: of
double-buffered weights both versions are there, and a flush takes the newest. Random numbers depend on seed
and step only (:mod:`runtime.randomness`) and need no saving.
"""

from __future__ import annotations

import errno
import pickle
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from runtime.executor import PipelineRunner
from runtime.preparation import check_alike
from synth.errors import InputError

ATTEMPTS = 20
"""To take a name that another run takes again and again."""
_STEP = re.compile(r"step-(\d+)")


def save_checkpoint(
    folder: Path,
    runner: PipelineRunner,
    optimizers: Mapping[int, torch.optim.Optimizer],
    settings: Mapping[str, int | str] | None = None,
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
    settings
        What a run that goes on must have alike, by name, and no shape shows.

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
            "num_stages": runner.routes.num_model_stages,
            "optimizer": states[stage],
            "settings": dict(settings or {}),
        }
        for stage, module in runner.modules.items()
        if runner.routes.holders(stage)[0] == world.rank
    }
    try:
        _save(folder, runner, contents)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): name another folder") from error


def _save(folder: Path, runner: PipelineRunner, contents: Mapping[int, dict[str, Any]]) -> None:
    rank, bulletin = runner.world.rank, runner.bulletin
    name = f"saved/{bulletin.turn('saved')}"
    if rank == 0:  # a folder of this run's own: another may write to the same place now, or have died there
        bulletin.put(name, secrets.token_hex(4))
    own = bulletin.read(name, "rank 0's name of the checkpoint")
    whole = folder / f"step-{runner.completed_steps}"
    partial = folder / f".{whole.name}.{own}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    for stage, content in contents.items():
        _write(partial / _file(stage), content)
    bulletin.put(f"{name}/{rank}", "")
    if rank == 0:
        for other in range(runner.world.num_ranks):
            bulletin.read(f"{name}/{other}", f"the checkpoint of rank {other}")
        _put_in_place(partial, whole, own)


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        torch.save(content, path)
    except (OSError, RuntimeError) as error:  # which of them a full disk is depends on the moment
        shutil.rmtree(path.parent, ignore_errors=True)
        raise OSError(errno.EIO, f"{path.name} could not be written whole, as on a full disk") from error


def _put_in_place(partial: Path, whole: Path, own: str) -> None:
    """Give a folder its name; one that has it, maybe since a moment ago, goes."""
    for attempt in range(ATTEMPTS):
        old = whole.with_name(f".{whole.name}.{own}.{attempt}.old")
        with suppress(FileNotFoundError):
            whole.rename(old)
        try:
            partial.rename(whole)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == ATTEMPTS - 1:
                raise
        else:
            break
        finally:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path,
    runner: PipelineRunner,
    optimizers: Mapping[int, torch.optim.Optimizer],
    settings: Mapping[str, int | str] | None = None,
) -> None:
    """Go on after the latest checkpoint in a folder.

    Parameters
    ----------
    folder, runner, optimizers, settings
        As for :func:`save_checkpoint`.

    Raises
    ------
    InputError
        When there is none, it is damaged or incomplete, its stages or settings are not this run's, or ranks
        see different ones.
    """
    found = [(int(match[1]), path) for path in _subfolders(folder) if (match := _STEP.fullmatch(path.name))]
    if not found:
        raise InputError(f"{folder} holds no checkpoint: name the folder that an earlier run wrote them to")
    step, latest = max(found)
    check_alike(f"resumed {runner.bulletin.turn('resumed')}", {"step": step}, runner.world, runner.bulletin)
    for stage, module in runner.modules.items():
        content = _read(latest / _file(stage), runner.world.device)
        _check_num_stages(latest, content["num_stages"], runner.routes.num_model_stages)
        _check_settings(latest, content.get("settings", {}), settings or {})
        try:
            module.load_state_dict(content["module"])
            runner.load_optimizer_state(stage, optimizers[stage], content["optimizer"])
            runner.load_extra_state(stage, content.get("extra", {}))
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{latest / _file(stage)} is of another model than this run: give that run's options"
            ) from error
    runner.completed_steps = step


def _check_num_stages(folder: Path, found: int, wanted: int) -> None:
    if found != wanted:
        raise InputError(
            f"{folder} holds {found} stages and the schedule has {wanted}: resume with a schedule of as many"
        )


def _check_settings(folder: Path, found: Mapping[str, int | str], wanted: Mapping[str, int | str]) -> None:
    for name, value in found.items():
        if name in wanted and wanted[name] != value:
            raise InputError(f"{folder} was trained with {name} {value}, not {wanted[name]}: give {value}")


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """What a file holds."""
    if not path.exists():
        raise InputError(
            f"{path.parent} lacks {path.name}: resume with a schedule of the stages that it has files of, or "
            "from another folder"
        )
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, LookupError, ValueError, pickle.UnpicklingError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict) or not {"module", "num_stages", "optimizer"} <= set(content):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged or no checkpoint of a stage: resume from another folder")


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _file(stage: int) -> str:
    return f"stage-{stage}.pt"
