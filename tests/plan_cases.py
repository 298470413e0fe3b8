"""Small models on small clusters, whose every plan can be judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from models import core_training, flash_training, gpt

from costmodels.cluster import Cluster
from costmodels.hardware import find_gpu, find_link
from costmodels.plans.fleet import Fleet
from costmodels.plans.recipe import PlanRecipe
from costmodels.plans.shapes import Space
from costmodels.training import Recompute
from synth.planner.executors import SerialExecutor
from synth.planner.judging import Verdict, judge

MIB = 2**20


def fleet_of(gpus: int, *, limit_mib: int = 4096, gpus_per_node: int = 4, network: str = "ib100") -> Fleet:
    """So many A100s, a limit of memory that a small model may fill."""
    cluster = Cluster(
        gpu=find_gpu("a100-40"),
        gpus_per_node=gpus_per_node,
        network=find_link(network),
        limit_bytes=limit_mib * MIB,
    )
    return Fleet(cluster=cluster, num_gpus=gpus, name=f"{gpus} GPUs")


def recipe_of(
    gpus: int = 4,
    *,
    batch: int = 8,
    limit_mib: int = 4096,
    layers: int = 6,
    core: bool = True,
    **fixed: object,
) -> PlanRecipe:
    """A GPT of a few blocks, s = 256."""
    training = (core_training if core else flash_training)(microbatch_size=1)
    recompute = tuple(Recompute) if core else (Recompute.NONE, Recompute.FULL)
    space = Space(**{"batch": batch, "chunks": (1, 2), "recompute": recompute, **fixed})
    return PlanRecipe(gpt(layers=layers), training, fleet_of(gpus, limit_mib=limit_mib), space)


def everything(recipe: PlanRecipe) -> dict[str, Verdict]:
    """Every configuration judged in full: no bound leaves anything out."""
    return {key: judge(recipe, key) for key in recipe.keys}


def with_limit(recipe: PlanRecipe, limit_mib: int) -> PlanRecipe:
    """The same under another limit."""
    cluster = replace(recipe.fleet.cluster, limit_bytes=limit_mib * MIB)
    return PlanRecipe(recipe.model, recipe.training, replace(recipe.fleet, cluster=cluster), recipe.space)


@dataclass
class Broken:
    """An executor that Ctrl-C ends after so many answers."""

    answers: int
    width: int = 1

    def __post_init__(self) -> None:
        self._serial = SerialExecutor()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """As a serial executor."""
        self._serial.submit(call, *arguments)

    def next(self) -> Any:
        """As a serial executor, or Ctrl-C."""
        if not self.answers:
            raise KeyboardInterrupt
        self.answers -= 1
        return self._serial.next()

    def close(self) -> None:
        """As a serial executor."""
        self._serial.close()
