"""Measured stages, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from costmodels.measured.profiled_problem import ProfiledProblem
from costmodels.measured.profiles import Profile, StageProfile
from costmodels.measured.spreads import Spread
from costmodels.measured.traces import TraceTimes
from synth.cli.streams import Printer
from synth.ops import PASSES, OpKind
from synth.problem import Problem
from synth.report import plain_table

TIMES = tuple(kind.value for kind in PASSES)


def show_profile(made: ProfiledProblem, profiles: Sequence[Profile], printer: Printer) -> None:
    """Print the times of the stages, what they hold, and where all of it is from."""
    printer.table(_time_table(made.problem, profiles))
    printer.table(_memory_table(profiles))
    _say_source(made.problem, printer)


def show_trace(problem: Problem, traced: TraceTimes, printer: Printer) -> None:
    """Print the times of traces."""
    rows = [
        [str(stage), str(rank), *_time_cells(_of_stage(traced, stage))]
        for stage, rank in enumerate(traced.stage_to_rank)
    ]
    printer.table(plain_table(f"{problem.name}: times in ms", ("stage", "rank", *TIMES), rows))
    _say_source(problem, printer)


def _say_source(problem: Problem, printer: Printer) -> None:
    for part in problem.source.split("; "):
        printer.line(part)


def _time_table(problem: Problem, profiles: Sequence[Profile]) -> Table:
    rows = [
        [str(number), str(rank), _layers(stage), stage.division.value, *_time_cells(stage.times)]
        for profile in profiles
        for number, (stage, rank) in enumerate(zip(profile.stages, problem.stage_to_rank, strict=True))
    ]
    headings = ("stage", "rank", "layers", "split", *TIMES)
    return plain_table(f"{problem.name}: times in ms", headings, rows)


def _time_cells(times: Mapping[OpKind, Spread]) -> list[str]:
    return [_time(times[kind]) if kind in times else "-" for kind in PASSES]


def _time(spread: Spread) -> str:
    shown = f"{spread.median_s * 1e3:.4g}"
    return f"{shown} ±{spread.relative:.0%}" if spread.count > 1 else shown


def _layers(stage: StageProfile) -> str:
    first, last = stage.layers[0], stage.layers[-1]
    return first if len(stage.layers) == 1 else f"{first} … {last}"


def _memory_table(profiles: Sequence[Profile]) -> Table:
    headings = ("stage", "split", "static", "saved by F", "held after F", "after B", "workspace", "sent")
    rows = []
    for profile in profiles:
        for number, stage in enumerate(profile.stages):
            memory = stage.memory
            divided = OpKind.B in memory.net
            rows.append(
                [
                    str(number),
                    stage.division.value,
                    _mib(memory.static.total),
                    _mib(memory.saved_after_f),
                    _mib(memory.held_after_f),
                    _mib(memory.held_after_b) if divided else "-",
                    _mib(memory.highest_workspace),
                    _mib(stage.sent_bytes),
                ]
            )
    return plain_table("Memory in MiB, of one microbatch where not static", headings, rows)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.3f}"


def profile_json(made: ProfiledProblem, profiles: Sequence[Profile]) -> dict[str, Any]:
    """The same as a JSON object, times in seconds, memory in bytes."""
    return {
        "name": made.problem.name,
        "source": made.problem.source,
        "rounding_error": made.rounding_error,
        "transfer_rounding_error": made.transfer_rounding_error,
        "workspace_bytes": list(made.workspace_bytes),
        "profiles": [
            {"split": profile.split.value, "stages": list(map(_stage_json, profile.stages))}
            for profile in profiles
        ],
    }


def _stage_json(stage: StageProfile) -> dict[str, Any]:
    memory = stage.memory
    return {
        "layers": list(stage.layers),
        "split": stage.division.value,
        "times": _times_json(stage.times),
        "weights_bytes": memory.static.weights,
        "gradients_bytes": memory.static.gradients,
        "optimizer_bytes": memory.static.optimizer,
        "saved_after_f_bytes": memory.saved_after_f,
        "held_after_f_bytes": memory.held_after_f,
        "held_after_b_bytes": memory.held_after_b if OpKind.B in memory.net else None,
        "net_bytes": {kind.value: size for kind, size in memory.net.items()},
        "workspace_bytes": {kind.value: size for kind, size in memory.workspace.items()},
        "sent_bytes": stage.sent_bytes,
    }


def _times_json(times: Mapping[OpKind, Spread]) -> dict[str, Any]:
    return {
        kind.value: {
            "median_s": spread.median_s,
            "low_quartile_s": spread.low_s,
            "high_quartile_s": spread.high_s,
            "count": spread.count,
        }
        for kind, spread in times.items()
    }


def trace_json(problem: Problem, traced: TraceTimes) -> dict[str, Any]:
    """Times of traces as a JSON object, in seconds."""
    return {
        "name": problem.name,
        "source": problem.source,
        "stage_to_rank": list(traced.stage_to_rank),
        "num_microbatches": traced.num_microbatches,
        "on_device": traced.on_device,
        "stages": [_times_json(_of_stage(traced, stage)) for stage in range(len(traced.stage_to_rank))],
    }


def _of_stage(traced: TraceTimes, stage: int) -> dict[OpKind, Spread]:
    return {kind: spread for (number, kind), spread in traced.spreads.items() if number == stage}
