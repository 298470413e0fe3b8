"""Schedules beside one another, for people and for machines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from synth.cli.streams import Printer, check_output
from synth.errors import InputError
from synth.problem import Problem
from synth.report import Row, comparison_table, first_steps, memory_table
from synth.schedule import Schedule, fits, measure
from synth.strips import coloured_strips, legend

BESIDE = 6
"""Lines of the window that coloured strips leave to what else is printed."""


def show(problem: Problem, rows: Sequence[Row], drawn: Schedule, options: argparse.Namespace) -> None:
    """Draw a schedule where it is small enough, and set it beside others."""
    printer = Printer(options.output)
    if not draw(printer, {"": drawn}):
        grid = first_steps(drawn, printer.columns)
        if grid:
            printer.line(grid)
    printer.table(comparison_table(problem, rows))
    printer.table(memory_table(problem, rows))


def draw(printer: Printer, schedules: Mapping[str, Schedule]) -> bool:
    """Draw as many schedules by name as fit the window, as coloured strips on one axis; whether any does."""
    left = printer.lines - BESIDE
    shown = {}
    for name, schedule in schedules.items():
        left -= len(schedule.ranks) + bool(name)
        if left < 0:
            break
        shown[name] = schedule
    longest = max((measure(schedule).makespan for schedule in shown.values()), default=0)
    for name, schedule in shown.items():
        if name:
            printer.line(name)
        printer.text(coloured_strips(schedule, printer.columns, ticks=longest))
    if shown:
        printer.text(legend(schedule.problem).append("\n\n"))
    return bool(shown)


def row_json(problem: Problem, row: Row) -> dict[str, Any]:
    """A row of a comparison as a JSON object."""
    if row.metrics is None:
        return {"name": row.name, "defined": False, "reason": row.reason}
    answer = {
        "name": row.name,
        "defined": True,
        "fits": fits(problem, row.metrics.peak_memory_bytes),
        "value": row.metrics.value(problem.objective),
        **asdict(row.metrics),
    }
    if row.note:
        answer["note"] = row.note
    if row.certificate:
        answer |= {
            "lower_bound": row.certificate.lower_bound,
            "gap": row.certificate.gap,
            "status": row.certificate.status.value,
        }
    return answer


def check_output_option(options: argparse.Namespace) -> None:
    """Make sure, before a long search, that ``-o`` can be written and is alone on standard output."""
    if options.json and options.output == "-":
        raise InputError("--json and -o - both write to standard output: give -o a file")
    check_output(options.output)
