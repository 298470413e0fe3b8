"""Synthesize published and asked-for settings: values, proofs, and values against time.

Every run is a process of its own, so that its peak memory is its own. Appends one row per run to
``runs.jsonl`` and rewrites ``summary.csv`` and ``against_time.csv``. Runs that stand in ``runs.jsonl`` are
skipped, so that a broken study goes on where it ended: remove the file, or their rows, to begin anew.

    python results/2026-11-21-synthesizer/run.py [GROUP ...]
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from config import RUNS, SEED, WORKERS, Run

from synth import Problem, Progress, baseline_orders, schedule_orders, synthesize, verify_schedule
from synth.baselines import BASELINES
from synth.errors import BaselineUndefinedError
from synth.schedule import fits, peak_memory_bytes

HERE = Path(__file__).parent
RUNS_FILE = HERE / "runs.jsonl"
MOMENTS_S = (1, 10, 60, 300)
AGAINST_TIME = ("1x", "2x", "V 1.5b, long")
"""The groups of ``against_time.csv``."""


def best_baseline(problem: Problem) -> tuple[str, int] | None:
    """The best baseline within the limits, and its value."""
    found = []
    for name in BASELINES:
        try:
            orders = baseline_orders(name, problem)
        except BaselineUndefinedError:
            continue
        if fits(problem, peak_memory_bytes(problem, orders)):
            found.append((schedule_orders(problem, orders).value, name))
    return (min(found)[1], min(found)[0]) if found else None


def synthesized(run: Run) -> dict[str, object]:
    """One synthesis as a row of the ledger."""
    stated = run.state()
    steps: list[tuple[float, int, int]] = []

    def watch(progress: Progress) -> None:
        if progress.value is not None and (not steps or progress.value < steps[-1][1]):
            steps.append((round(progress.elapsed_s, 2), progress.value, progress.lower_bound))

    begun = time.perf_counter()
    result = synthesize(
        stated[0],
        time_limit=run.seconds,
        workers=WORKERS,
        seed=SEED,
        on_progress=watch,
        alternatives=stated[1:],
    )
    wall_s = round(time.perf_counter() - begun, 1)
    problem = result.schedule.problem
    work = problem.work_ticks
    baseline = best_baseline(problem) if problem.num_microbatches * problem.num_stages < 60_000 else None
    return {
        "group": run.group,
        "name": run.name,
        "time_limit_s": run.seconds,
        "objective": problem.objective.value,
        "chunks": problem.num_stages / problem.num_ranks,
        "stage_to_rank": list(problem.stage_to_rank),
        "value": result.value,
        "work": work,
        "bubble": round(1 - work / result.value, 4),
        "published": None if run.published is None else round(run.published, 4),
        "lower_bound": result.lower_bound,
        "gap": round(result.gap, 5),
        "status": result.status.value,
        "bound_from": result.certificate.bound_from,
        "method": result.provenance.method,
        "baseline": baseline and baseline[0],
        "baseline_bubble": baseline and round(1 - work / baseline[1], 4),
        "steps": steps,
        "wall_s": wall_s,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "verified": not verify_schedule(
            result.schedule, metrics=result.metrics, certificate=result.certificate
        ),
        "workers": WORKERS,
        "seed": SEED,
        "versions": {name: version(name) for name in ("pipesynth", "ortools", "highspy", "numba", "numpy")},
        "python": sys.version.split()[0],
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=True
        ).stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }


def bubble_at(row: dict[str, Any], moment_s: float) -> float | None:
    """The bubble after so many seconds; None before the first schedule, and where time was up sooner."""
    values = [value for at_s, value, _ in row["steps"] if at_s <= moment_s]
    is_known = row["status"] == "optimal" or moment_s <= row["time_limit_s"]
    return round(1 - row["work"] / values[-1], 4) if values and is_known else None


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(synthesized(RUNS[int(sys.argv[2])])))
        return
    lines = RUNS_FILE.read_text().splitlines() if RUNS_FILE.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["group"], row["name"]) for row in rows}
    for number, run in enumerate(RUNS):
        if (run.group, run.name) in done or (sys.argv[1:] and run.group not in sys.argv[1:]):
            continue
        command = [sys.executable, __file__, "--one", str(number)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(answer))
        with RUNS_FILE.open("a") as file:
            file.write(answer)
        shown = ("group", "name", "bubble", "published", "gap", "wall_s", "method")
        print(*(rows[-1][column] for column in shown), flush=True)
    order = {(run.group, run.name): number for number, run in enumerate(RUNS)}
    rows.sort(key=lambda row: order[row["group"], row["name"]])
    moments = [f"at_{s}_s" for s in MOMENTS_S]
    for row in rows:
        row |= {name: bubble_at(row, s) for name, s in zip(moments, MOMENTS_S, strict=True)}
    columns = ["group", "name", "published", "bubble", "gap", "status", "baseline", "baseline_bubble"]
    columns += [*moments, "wall_s", "peak_gib", "method"]
    pd.DataFrame(rows)[columns].to_csv(HERE / "summary.csv", index=False)
    against_time = pd.DataFrame([row for row in rows if row["group"] in AGAINST_TIME])
    columns = ["group", "name", "baseline", "baseline_bubble", *moments, "published"]
    against_time[columns].to_csv(HERE / "against_time.csv", index=False)


if __name__ == "__main__":
    main()
