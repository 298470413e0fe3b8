"""Tables for people: what a schedule achieves, beside others and beside its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from synth.bounds import Bound
from synth.certificate import Certificate
from synth.grid import render_grid
from synth.problem import Objective, Problem
from synth.schedule import Metrics, Schedule, fits

GRID_SLOTS = 18
"""How many slots of a schedule are shown."""

LARGEST_GRID = 8
"""Schedules of more ranks are not drawn."""


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule in a comparison; without metrics, the reason why there is none."""

    name: str
    metrics: Metrics | None
    certificate: Certificate | None = None
    reason: str = ""


def comparison_table(problem: Problem, rows: Sequence[Row]) -> Table:
    """One row for each schedule: objective, bubble, peak memory, fits or not, bound and gap."""
    table = Table(box=box.SIMPLE_HEAD, title=_title(problem), title_justify="left")
    table.add_column("schedule", no_wrap=True)
    for heading in ("ticks", "seconds", "bubble", "peak bytes", "fits", "bound", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, *_cells(problem, row))
    return table


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why some rows have no schedule, one line each."""
    return [f"{row.name}: {row.reason}" for row in rows if row.metrics is None]


def memory_table(problem: Problem, rows: Sequence[Row]) -> Table:
    """Peak memory per rank against the limit, a column for each schedule."""
    table = Table(box=box.SIMPLE_HEAD, title="Peak memory in bytes", title_justify="left")
    shown = [row for row in rows if row.metrics is not None]
    for heading in ("rank", "limit", *(row.name for row in shown)):
        table.add_column(heading, justify="right", no_wrap=True)
    limits = problem.memory_limit_bytes
    for rank in range(problem.num_ranks):
        peaks = [str(row.metrics.peak_memory_bytes[rank]) for row in shown if row.metrics]
        table.add_row(str(rank), "none" if limits is None else str(limits[rank]), *peaks)
    return table


def bound_table(problem: Problem, bounds: Sequence[Bound]) -> Table:
    """The lower bounds with their arguments, the strongest first."""
    table = Table(box=box.SIMPLE_HEAD, title=_title(problem), title_justify="left")
    table.add_column("bound", no_wrap=True)
    table.add_column(f"{problem.objective} ticks", justify="right", no_wrap=True)
    table.add_column("bubble at least", justify="right", no_wrap=True)
    table.add_column("because")
    for bound in bounds:
        bubble = 1 - problem.work_ticks / bound.ticks
        table.add_row(bound.name, str(bound.ticks), f"{bubble:.4f}", bound.argument)
    return table


def first_steps(schedule: Schedule) -> str | None:
    """The first steps of a schedule as a grid, for few ranks; a slot is the shortest op."""
    if schedule.problem.num_ranks > LARGEST_GRID:
        return None
    slot = min(cost.ticks for costs in schedule.problem.stages for _, cost in costs.offered)
    return render_grid(schedule, slot_ticks=slot, last_slot=GRID_SLOTS)


def _title(problem: Problem) -> str:
    name = problem.name or "problem"
    return (
        f"{name}: {problem.num_ranks} ranks, {problem.num_stages} stages ({problem.placement.kind}), "
        f"{problem.num_microbatches} microbatches, {problem.objective}"
    )


def _cells(problem: Problem, row: Row) -> list[str]:
    metrics = row.metrics
    if metrics is None:
        return ["not defined", "", "", "", "", "", ""]
    value = metrics.value(problem.objective)
    certificate = row.certificate
    return [
        str(value),
        f"{value * problem.tick_seconds:.4g}",
        f"{metrics.bubble_ratio:.4f}",
        str(max(metrics.peak_memory_bytes)),
        "yes" if fits(problem, metrics.peak_memory_bytes) else "no",
        "" if certificate is None else str(certificate.lower_bound),
        "" if certificate is None else f"{certificate.gap:.2%}",
    ]


def other_objective(metrics: Metrics, objective: Objective) -> str:
    """The objective that was not asked for, in words."""
    other = Objective.RANK_SPAN if objective is Objective.MAKESPAN else Objective.MAKESPAN
    return f"{other} {metrics.value(other)} ticks, bubble {1 - metrics.work / metrics.value(other):.4f}"
