"""What ranks agree on before the first step: the schedule they run, and what passes between stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import nn

from runtime.bulletin import Bulletin
from runtime.cuts import Cuts
from runtime.routes import Routes
from runtime.shapes import TensorSpec, output_spec
from runtime.slices import Kept, slice_output_specs
from runtime.world import World
from synth.errors import InputError
from synth.schedule import Schedule


def check_fit(routes: Routes, modules: Mapping[int, nn.Module], world: World) -> None:
    """Make sure that the schedule is for so many ranks, and that this one has the modules of its stages.

    Stages are those of the model: several stages of the schedule may run one.

    Raises
    ------
    InputError
        Saying what is missing or too much.
    """
    problem = routes.problem
    if problem.num_ranks != world.num_ranks:
        raise InputError(
            f"the schedule is for {problem.num_ranks} ranks, and {world.num_ranks} run: start as many"
        )
    own = routes.held_by(world.rank)
    if set(modules) != set(own):
        raise InputError(
            f"rank {world.rank} is given modules for stages {_listed(modules)}; "
            f"the schedule puts stages {_listed(own)} on it"
        )


def check_same_schedule(schedule: Schedule, world: World, bulletin: Bulletin) -> None:
    """Make sure that all ranks were given the same orders and costs, from which each derives the plan of all.

    Raises
    ------
    InputError
        Naming a rank whose schedule differs from that of rank 0.
    """
    text = "|".join(" ".join(map(str, order)) for order in schedule.orders)
    own = hashlib.sha256(f"{schedule.problem} {text}".encode()).hexdigest()
    if world.number == 0:
        bulletin.put("schedule", own)
    elif bulletin.read("schedule", "rank 0's schedule") != own:
        raise InputError(f"rank {world.number} is given another schedule than rank 0: give all the same")


def check_alike(name: str, given: Mapping[str, object], world: World, bulletin: Bulletin) -> None:
    """Make sure that all ranks were given the same: numbers would be wrong, or ranks wait, otherwise.

    Parameters
    ----------
    name
        Of the note in which rank 0 leaves its own.
    given
        What this rank was given, by name; every value as text says all about it.
    world, bulletin
        Over what ranks agree.

    Raises
    ------
    InputError
        Naming a rank, what it was given and what rank 0 was.
    """
    own = {what: str(value) for what, value in given.items()}
    if world.number == 0:
        bulletin.put(name, json.dumps(own))
        return
    others = json.loads(bulletin.read(name, f"rank 0's {name}"))
    for what in sorted({*own, *others}):
        if own.get(what) != others.get(what):
            raise InputError(
                f"rank {world.number} is given {what} {own.get(what)} and rank 0 {others.get(what)}: give "
                "all ranks the same"
            )


def agree_on_specs(
    routes: Routes,
    modules: Mapping[int, nn.Module],
    microbatch: TensorSpec,
    cuts: Cuts,
    world: World,
    bulletin: Bulletin,
    autocast: torch.dtype | None,
) -> dict[int, TensorSpec]:
    """What each of this rank's stages, and those that they feed, take; found stage by stage along the model.

    Raises
    ------
    InputError
        When a stage cannot take what the one before gives.
    """
    specs: dict[int, TensorSpec] = {}
    kept: dict[int, list[Kept]] = {}  # by stage of the model, what its slices so far keep
    for stage in routes.computing_on(world.rank):
        model_stage, number = routes.model_stage(stage), routes.slice_of(stage)
        microbatches = routes.problem.microbatches_of(stage)
        source = routes.source(stage, microbatches[0])
        if source is None:
            specs[stage] = cuts.spec(microbatch, number)
        elif stage not in specs:
            note = bulletin.read(_key(world, source), f"the shape of what stage {stage} takes")
            specs[stage] = _parse(note)
        if source is not None and not specs[stage].dtype.is_floating_point:
            raise InputError(f"stage {source} gives {specs[stage]}: give a floating dtype, for gradients")
        whence = "the batch" if source is None else f"stage {source}"
        module, device = modules[model_stage], world.device
        if routes.num_slices == 1:
            made = output_spec(stage, module, specs[stage], device, autocast, whence)
        else:
            past = kept.setdefault(model_stage, [])[:number]
            made, own = slice_output_specs(stage, module, specs[stage], past, device, autocast, whence)
            kept[model_stage] = [*past, own]
        fed = {routes.target(stage, carried) for carried in microbatches}
        specs |= {after: made for after in fed if after is not None}
        bulletin.put(_key(world, stage), _print(made))
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
