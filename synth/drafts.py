"""What a planner compares: configurations by key, each with a cheap bound and the problem it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from synth.problem import Problem


class WeightPolicy(StrEnum):
    """When weights change."""

    FLUSH = "flush"
    """Between batches, with the pipeline empty: one version."""
    DOUBLE_BUFFERED = "2bw"
    """One batch late, with the pipeline running: two versions (PipeDream-2BW, arXiv 2006.09503)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is known of a configuration before its model is cut into stages.

    Parameters
    ----------
    key
        The configuration's name.
    policy
        When its weights change.
    least_ticks
        No step of it is shorter.
    refusal
        Why it cannot be, empty where nothing speaks against it so far.
    """

    key: str
    policy: WeightPolicy
    least_ticks: int = 0
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The problem that a configuration comes to, for one of its replicas.

    Parameters
    ----------
    problem
        The pipeline of one replica, one batch.
    all_reduce_ticks
        For every stage, what the sum of its weight gradients over the replicas takes.
    policy
        When weights change.
    """

    problem: Problem
    all_reduce_ticks: tuple[int, ...]
    policy: WeightPolicy = WeightPolicy.FLUSH


class Recipe(Protocol):
    """Knows the configurations to compare, and how each becomes a problem; it can be sent to a process."""

    @property
    def keys(self) -> Sequence[str]:
        """Every configuration, in an order that does not change."""

    @property
    def fingerprint(self) -> str:
        """Equal for recipes that give the same drafts."""

    def policy_of(self, key: str) -> WeightPolicy:
        """When the weights of a configuration change."""

    def outline(self, key: str) -> Outline:
        """What bounds say of a configuration, in microseconds."""

    def draft(self, key: str) -> Draft:
        """The problem of a configuration; raises :class:`~synth.errors.InputError` where there is none."""
