"""What is claimed of a schedule, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from synth.problem import Objective


class Status(StrEnum):
    """How much is known (FORMATS.md, ``status``)."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A value, a lower bound, and the argument for the bound.

    Parameters
    ----------
    objective
        Which objective the value and the bound are of.
    value, lower_bound
        Ticks; the bound holds for every schedule of the problem and placement.
    bound_from
        Which argument gave the bound.
    """

    objective: Objective
    value: int
    lower_bound: int
    bound_from: str

    @property
    def gap(self) -> float:
        """``(value - lower_bound) / value``."""
        return (self.value - self.lower_bound) / self.value

    @property
    def status(self) -> Status:
        """Optimal where the bound meets the value, else feasible."""
        return Status.OPTIMAL if self.lower_bound >= self.value else Status.FEASIBLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a schedule was made.

    Parameters
    ----------
    method
        The baseline's name, or the steps of the search that led to the schedule.
    solver, solver_version
        The solver behind it, empty where none was used.
    seed, workers
        As given to the search.
    wall_seconds
        How long it took.
    created
        ISO 8601, UTC.
    tool, tool_version
        This package.
    """

    method: str
    created: str
    tool_version: str
    tool: str = "pipesynth"
    solver: str = ""
    solver_version: str = ""
    seed: int = 0
    workers: int = 1
    wall_seconds: float = 0.0
