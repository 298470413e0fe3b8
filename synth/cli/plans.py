"""Plans of the cost models, for people and for machines."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from costmodels.fitting import RankMemory, remedies
from costmodels.planning import Plan
from synth.cli.streams import Printer
from synth.report import plain_table

HELD = ("rank", "weights", "gradients", "optimizer")


def show_plan(plan: Plan, rows: list[RankMemory], printer: Printer) -> None:
    """Print the stages, what every rank holds, and what fits."""
    printer.table(_stage_table(plan))
    printer.table(_memory_table(plan, rows))
    for line in _verdict(plan, rows):
        printer.line(line)


def _stage_table(plan: Plan) -> Table:
    problem, tick_ms = plan.problem, plan.problem.tick_seconds * 1e3
    rows = []
    for stage, (costs, rank) in enumerate(zip(problem.stages, problem.stage_to_rank, strict=True)):
        times = [costs.F.ticks, *(cost.ticks if cost else 0 for cost in (costs.B, costs.W, costs.BW))]
        cells = [f"{ticks * tick_ms:.3f}" if ticks else "-" for ticks in times]
        rows.append([str(stage), str(rank), _layers(costs.layers), *cells])
    title = f"{problem.name}, {plan.model.parameters / 1e9:.2f}B parameters: times in ms"
    return plain_table(title, ("stage", "rank", "layers", "F", "B", "W", "BW"), rows)


def _layers(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _memory_table(plan: Plan, rows: list[RankMemory]) -> Table:
    headings = (*HELD, "per microbatch", "fit at once", "1F1B needs", "limit", "1F1B")
    cells = [
        [
            str(rank),
            *map(
                _gib, (row.static.weights, row.static.gradients, row.static.optimizer, row.activation_bytes)
            ),
            str(row.microbatches),
            *map(_gib, (row.one_f_one_b_bytes, row.limit_bytes)),
            "fits" if row.one_f_one_b_bytes <= row.limit_bytes else "too much",
        ]
        for rank, row in enumerate(rows)
    ]
    return plain_table(f"Memory of one {plan.cluster.gpu.name} in GiB", headings, cells)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f}"


def _verdict(plan: Plan, rows: list[RankMemory]) -> list[str]:
    """What fits, and what would make more fit."""
    if all(row.one_f_one_b_bytes <= row.limit_bytes for row in rows):
        return ["1F1B fits on every rank."]
    if all(row.microbatches for row in rows):
        lines = [
            "1F1B does not fit. Schedules that hold fewer microbatches do: synthesize looks for the best."
        ]
    else:
        lines = ["No cut that fits was found: some rank cannot hold its static bytes and one microbatch."]
    found = remedies(plan)
    for remedy in found:
        lines.append(f"  with {remedy.change}: {remedy.fits} fits")
    if not found:
        lines.append("  No single change of parallelism or recomputation does: combine several.")
    return lines


def plan_json(plan: Plan, rows: list[RankMemory]) -> dict[str, Any]:
    """The same as a JSON object, memory in bytes."""
    problem = plan.problem
    return {
        "name": problem.name,
        "parameters": plan.model.parameters,
        "source": problem.source,
        "rounding_error": plan.rounding_error,
        "transfer_rounding_error": plan.transfer_rounding_error,
        "stages": [list(costs.layers) for costs in problem.stages],
        "ranks": [
            {
                "weights_bytes": row.static.weights,
                "gradients_bytes": row.static.gradients,
                "optimizer_bytes": row.static.optimizer,
                "activation_bytes_per_microbatch": row.activation_bytes,
                "microbatches_that_fit": row.microbatches,
                "least_bytes": row.least_bytes,
                "one_f_one_b_bytes": row.one_f_one_b_bytes,
                "limit_bytes": row.limit_bytes,
            }
            for row in rows
        ],
        "remedies": [{"change": r.change, "fits": r.fits} for r in remedies(plan)]
        if any(row.one_f_one_b_bytes > row.limit_bytes for row in rows)
        else [],
    }
