"""What ranks agree on before the first step: the schedule they run, and what passes between stages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from runtime.bulletin import Bulletin
from runtime.shapes import TensorSpec, output_spec
from runtime.world import World
from synth.errors import InputError
from synth.schedule import Schedule


def check_fit(schedule: Schedule, modules: Mapping[int, nn.Module], world: World) -> None:
    """Make sure that the schedule is for so many ranks, and that this one has the modules of its stages.

    Raises
    ------
    InputError
        Saying what is missing or too much.
    """
    problem = schedule.problem
    if problem.num_ranks != world.num_ranks:
        raise InputError(
            f"the schedule is for {problem.num_ranks} ranks, and {world.num_ranks} run: start as many"
        )
    own = problem.stages_by_rank[world.rank]
    if set(modules) != set(own):
        raise InputError(
            f"rank {world.rank} is given modules for stages {_listed(modules)}; "
            f"the schedule puts stages {_listed(own)} on it"
        )


def check_same_schedule(schedule: Schedule, world: World, bulletin: Bulletin) -> None:
    """Make sure that all ranks were given the same orders: they would wait for one another otherwise.

    Raises
    ------
    InputError
        Naming a rank whose orders differ from those of rank 0.
    """
    text = "|".join(" ".join(map(str, order)) for order in schedule.orders)
    own = hashlib.sha256(f"{schedule.problem.stage_to_rank} {text}".encode()).hexdigest()
    if world.number == 0:
        bulletin.put("schedule", own)
    elif bulletin.read("schedule", "rank 0's schedule") != own:
        raise InputError(f"rank {world.number} is given another schedule than rank 0: give all the same")


def agree_on_specs(
    modules: Mapping[int, nn.Module],
    num_stages: int,
    microbatch: TensorSpec,
    world: World,
    bulletin: Bulletin,
    autocast: torch.dtype | None,
) -> dict[int, TensorSpec]:
    """What each of this rank's stages, and the one behind it, takes; found stage by stage along the model.

    Raises
    ------
    InputError
        When a stage cannot take what the one before gives.
    """
    specs: dict[int, TensorSpec] = {}
    for stage in sorted(modules):
        if stage == 0:
            specs[0] = microbatch
        elif stage not in specs:
            note = bulletin.read(_key(world, stage), f"the shape of what stage {stage} takes")
            specs[stage] = _parse(note)
        if stage > 0 and not specs[stage].dtype.is_floating_point:
            raise InputError(f"stage {stage - 1} gives {specs[stage]}: give a floating dtype, for gradients")
        made = output_spec(stage, modules[stage], specs[stage], world.device, autocast)
        if stage + 1 < num_stages:
            specs[stage + 1] = made
            bulletin.put(_key(world, stage + 1), _print(made))
    return specs


def meet(world: World, bulletin: Bulletin, num_processes: int) -> None:
    """Wait until all ranks are as far as this."""
    bulletin.put(f"ready/{world.number}", "")
    for other in range(num_processes):
        bulletin.read(f"ready/{other}", f"rank {other}")


def _key(world: World, stage: int) -> str:
    return f"spec/{world.replica}/{stage}"


def _print(spec: TensorSpec) -> str:
    return " ".join([str(spec.dtype).removeprefix("torch."), *map(str, spec.shape)])


def _parse(note: str) -> TensorSpec:
    dtype, *shape = note.split()
    return TensorSpec(tuple(map(int, shape)), getattr(torch, dtype))


def _listed(stages: object) -> str:
    assert isinstance(stages, Mapping | tuple)
    return ", ".join(map(str, sorted(stages))) or "none"
