"""Who else holds a stage's weights: copies of the pipeline, and the other directions of this one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from runtime.bulletin import Bulletin
from runtime.routes import Routes
from runtime.world import World
from synth.errors import InputError

Groups = Mapping[int, dist.ProcessGroup | None]
"""For every stage of the model that a rank holds, the processes that hold it too; None where none does."""


def make_groups(routes: Routes, world: World, timeout_s: float) -> Groups:
    """The groups in which gradients are summed; every process calls this at the same time.

    Parameters
    ----------
    routes
        Which ranks hold which stage of the model.
    world
        With replicas of the pipeline, they are in the groups too.
    timeout_s
        For how long a sum may take.
    """
    by_holders: dict[tuple[int, ...], dist.ProcessGroup | None] = {(world.rank,): world.replicas}
    for holders in map(routes.holders, range(routes.num_model_stages)):
        if len(holders) > 1 and holders not in by_holders:
            made = dist.new_group(_members(holders, world), timeout=timedelta(seconds=timeout_s))
            by_holders[holders] = made
            if world.rank in holders:
                _connect(made, world.device)
    return {
        model_stage: by_holders[routes.holders(model_stage)] for model_stage in routes.held_by(world.rank)
    }


def _members(holders: tuple[int, ...], world: World) -> list[int]:
    return [replica * world.num_ranks + rank for replica in range(world.num_replicas) for rank in holders]


def _connect(group: dist.ProcessGroup | None, device: torch.device) -> None:
    """Connect a group: NCCL does so at its first sum and holds all up until then, here in one order."""
    if device.type == "cuda":
        dist.all_reduce(torch.zeros(1, device=device), group=group)
        torch.cuda.synchronize(device)


def check_same_weights(
    routes: Routes, modules: Mapping[int, nn.Module], world: World, bulletin: Bulletin
) -> None:
    """Make sure that the directions start from the same weights: one sum of gradients is to update them all.

    Raises
    ------
    InputError
        When the weights of a stage are not those on the first rank that holds it.
    """
    for model_stage, module in sorted(modules.items()):
        first, *others = routes.holders(model_stage)
        if not others:
            continue
        own, name = _fingerprint(module), f"weights/{world.replica}/{model_stage}"
        if world.rank == first:
            bulletin.put(name, own)
        elif bulletin.read(name, f"the weights of rank {first}") != own:
            raise InputError(
                f"the weights of stage {model_stage} of the model on rank {world.rank} are not those on rank "
                f"{first}, its replica: start both from the same"
            )


def check_own_parameters(modules: Mapping[int, nn.Module], why: str) -> None:
    """Make sure that no two stages of a rank share a parameter, which only one of them would look after.

    Raises
    ------
    InputError
        Naming two that do, and ``why`` they must not.
    """
    held: dict[nn.Parameter, int] = {}
    for stage, module in sorted(modules.items()):
        for parameter in module.parameters():
            if (first := held.setdefault(parameter, stage)) != stage:
                raise InputError(
                    f"stages {first} and {stage} of the model share a parameter, and {why}: give each its own"
                )


def _fingerprint(module: nn.Module) -> str:
    """A number for every parameter that other values would almost surely change."""
    return " ".join(str(_sum_of_bits(parameter.detach())) for parameter in module.parameters())


def _sum_of_bits(values: Tensor) -> int:
    """Exact, so that it depends on no order in which a device adds up."""
    by_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if values.is_complex() or values.element_size() not in by_size:
        values = torch.view_as_real(values)
    return int(values.contiguous().view(by_size[values.element_size()]).sum(dtype=torch.int64).item())
