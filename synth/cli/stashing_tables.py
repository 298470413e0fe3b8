"""What ``plan --planner pipedream`` answers, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodels.plans.stashing import StashingPlan
from synth.cli.streams import Printer
from synth.report import plain_table

GIB = 2**30
HEADINGS = (
    *("", "minibatch", "recompute", "stages", "layers x replicas", "versions"),
    *("sequences/s", "batch s", "GiB", "fits"),
)


def show_stashing(name: str, batch: int, plans: Sequence[StashingPlan], printer: Printer) -> None:
    """Print PipeDream's plans, the fastest first."""
    rows = [_cells(number, found, batch) for number, found in enumerate(plans, start=1)]
    printer.table(plain_table(f"PipeDream's planner: {name}", HEADINGS, rows))
    printer.line("weights change after every minibatch, which are stashed; the planner leaves memory aside")


def _cells(number: int, found: StashingPlan, batch: int) -> list[str]:
    return [
        str(number),
        str(found.training.microbatch_size),
        str(found.training.recompute),
        str(len(found.plan.stages)),
        " ".join(f"{stage.last - stage.first}x{stage.replicas}" for stage in found.plan.stages),
        str(max(found.plan.versions())),
        f"{found.sequences_per_s:.4g}",
        f"{batch / found.sequences_per_s:.4g}",
        f"{max(found.bytes_by_stage) / GIB:.2f}",
        "fits" if found.fits else "too much",
    ]


def stashing_json(name: str, batch: int, plans: Sequence[StashingPlan]) -> dict[str, Any]:
    """The same as a JSON object."""
    return {"name": name, "batch": batch, "planner": "pipedream", "plans": [_json(p, batch) for p in plans]}


def _json(found: StashingPlan, batch: int) -> dict[str, Any]:
    stages = zip(found.plan.stages, found.plan.versions(), found.bytes_by_stage, strict=True)
    return {
        "minibatch": found.training.microbatch_size,
        "recompute": found.training.recompute,
        "sequences_per_second": found.sequences_per_s,
        "batch_seconds": batch / found.sequences_per_s,
        "peak_memory_bytes": max(found.bytes_by_stage),
        "memory_limit_bytes": found.limit_bytes,
        "fits": found.fits,
        "stages": [
            {
                "first_layer": stage.first,
                "layers": stage.last - stage.first,
                "replicas": stage.replicas,
                "versions": versions,
                "memory_bytes": held,
            }
            for stage, versions, held in stages
        ],
    }
