"""Synthesize the published profiles and set them beside the published bubble rates.

Appends one row per run to ``runs.jsonl`` and rewrites ``summary.csv``; runs that stand in ``runs.jsonl``
already are skipped, so that a broken study goes on where it ended: remove the file to begin anew.

    python results/2026-11-21-published-profiles/run.py
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from config import PUBLISHED, ROWS, RUNS, SEED, WORKERS

from synth import Objective, PlacementKind, Problem, load_instance, synthesize, verify_schedule
from synth.chunks import cut_stages
from synth.memory import parse_limit

HERE = Path(__file__).parent
RUNS_FILE = HERE / "runs.jsonl"


def problem_of(name: str, limit: str, chunks: int) -> Problem:
    """The instance, cut into a V where it has two chunks per rank, under its limit."""
    problem = load_instance(name)
    assert problem.objective is Objective.RANK_SPAN
    if chunks == 2:
        problem = cut_stages(problem, 2, PlacementKind.V).problem
    return problem.with_memory_limit(parse_limit(limit, problem))


def run(name: str, limit: str, chunks: int, seconds: float) -> dict[str, object]:
    """One synthesis as a row of the ledger."""
    begun = time.perf_counter()
    result = synthesize(problem_of(name, limit, chunks), time_limit=seconds, workers=WORKERS, seed=SEED)
    return {
        "instance": name,
        "limit": limit,
        "chunks": chunks,
        "time_limit_s": seconds,
        "objective": "rank_span",
        "value": result.value,
        "bubble_ratio": round(result.metrics.bubble_ratio, 4),
        "lower_bound": result.lower_bound,
        "gap": round(result.gap, 5),
        "status": result.status.value,
        "bound_from": result.certificate.bound_from,
        "method": result.provenance.method,
        "wall_s": round(time.perf_counter() - begun, 1),
        "verified": not verify_schedule(
            result.schedule, metrics=result.metrics, certificate=result.certificate
        ),
        "workers": WORKERS,
        "seed": SEED,
        "versions": {name: version(name) for name in ("pipesynth", "ortools", "numba", "numpy")},
        "python": sys.version.split()[0],
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=True
        ).stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    lines = RUNS_FILE.read_text().splitlines() if RUNS_FILE.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["instance"], row["limit"], row["chunks"], row["time_limit_s"]) for row in rows}
    for arguments in RUNS:
        if arguments in done:
            continue
        row = run(*arguments)
        rows.append(row)
        with RUNS_FILE.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            row["instance"],
            row["limit"],
            row["chunks"],
            row["bubble_ratio"],
            row["gap"],
            row["wall_s"],
            flush=True,
        )
    table = pd.DataFrame(rows)
    columns = ["instance", "limit", "chunks", "bubble_ratio", "gap", "status", "wall_s", "method"]
    table = table[[*columns]]
    published = [
        PUBLISHED[limit][ROWS.index(name)] if chunks == 1 and limit in PUBLISHED else None
        for name, limit, chunks in zip(table["instance"], table["limit"], table["chunks"], strict=True)
    ]
    table.insert(3, "published", published)
    table.to_csv(HERE / "summary.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
