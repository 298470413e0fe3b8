"""What was measured, or estimated, of every stage of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from costmodels.measured.spreads import Spread
from costmodels.optimizer_state import StaticBytes
from synth.ops import PASSES, OpKind


class Split(StrEnum):
    """How a backward is divided into B and W."""

    DEFERRED = "deferred"
    """Layers that can put off their weight gradients (:mod:`runtime.deferred`)."""
    NATIVE = "native"
    """The autograd graph is cut (:mod:`runtime.native_split`)."""
    NONE = "none"
    """Not at all."""

    @property
    def kinds(self) -> tuple[OpKind, ...]:
        """The ops that a stage then has."""
        return (OpKind.F, OpKind.BW) if self is Split.NONE else tuple(PASSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBytes:
    """What a stage holds.

    Parameters
    ----------
    static
        Throughout.
    saved_after_f
        Of one microbatch after F, by counting what autograd saves.
    held_after_b
        The same between B and W, by the allocator; 0 where the backward is not divided.
    net
        What every op leaves allocated, by the allocator; below 0 where it frees more.
    workspace
        What every op rises above the higher of its two ends, only while it runs.
    """

    static: StaticBytes
    saved_after_f: int
    held_after_b: int
    net: Mapping[OpKind, int]
    workspace: Mapping[OpKind, int]

    @property
    def held_after_f(self) -> int:
        """Of one microbatch after F, by the allocator."""
        return self.net[OpKind.F]

    @property
    def highest_workspace(self) -> int:
        """Of any op."""
        return max(self.workspace.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProfile:
    """One stage.

    Parameters
    ----------
    layers
        Names of its layers.
    times
        Of its ops.
    memory
        What it holds.
    division
        How its backward is divided.
    sent_bytes
        What it sends to the next stage, and gets back as a gradient.
    """

    layers: tuple[str, ...]
    times: Mapping[OpKind, Spread]
    memory: StageBytes
    division: Split
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A whole model under one way of dividing its backward.

    Parameters
    ----------
    name
        The import path of the model.
    split
        The way that was asked for.
    stages
        In order.
    how
        Sentences without full stops on where times and bytes come from.
    """

    name: str
    split: Split
    stages: tuple[StageProfile, ...]
    how: tuple[str, ...]
