"""Solve small problems exactly with both engines, each from the same best constructed schedule.

Appends one row per run to ``runs.jsonl`` and rewrites ``summary.csv``; runs that stand in ``runs.jsonl``
already are skipped, so that a broken study goes on where it ended: remove the file to begin anew.

    python results/2026-11-21-exact-engines/run.py
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from config import ENGINES, RUNS, SEED, TIME_LIMIT_S

from synth import (
    Objective,
    OpCost,
    PlacementKind,
    Problem,
    Schedule,
    StageCosts,
    baseline_orders,
    schedule_orders,
    uniform_problem,
    verify_schedule,
)
from synth.baselines import BASELINES
from synth.bounds import best_bound
from synth.cpsat import SolveParams
from synth.errors import BaselineUndefinedError
from synth.exact.answer import ExactAnswer
from synth.exact.counters import build_counter_model
from synth.exact.milp import finest_slots, solve_counters
from synth.exact.slots import Rounding
from synth.exact.whole_horizon import build_whole_horizon_model, solve_whole_horizon
from synth.schedule import fits, peak_memory_bytes
from synth.search.greedy import greedy_orders

HERE = Path(__file__).parent
RUNS_FILE = HERE / "runs.jsonl"
UNIT = StageCosts(
    F=OpCost(ticks=1, alloc_bytes=2), B=OpCost(ticks=1, free_bytes=1), W=OpCost(ticks=1, free_bytes=1)
)


def problem_of(ranks: int, microbatches: int, chunks: int, memory: float, objective: str) -> Problem:
    """Unit times; 1F1B's first rank holds a microbatch per rank, in as many chunks as the rank has."""
    return uniform_problem(
        ranks,
        microbatches,
        UNIT,
        chunks=chunks,
        kind=PlacementKind.V if chunks == 2 else PlacementKind.LOOP,
        objective=Objective(objective),
        memory_limit_bytes=int(memory * 2 * chunks * min(ranks, microbatches)),
    )


def constructed(problem: Problem) -> Schedule:
    """The best baseline that fits, or a list schedule."""
    orders = [greedy_orders(problem)]
    for name in BASELINES:
        with suppress(BaselineUndefinedError):
            orders.append(baseline_orders(name, problem))
    fitting = [each for each in orders if fits(problem, peak_memory_bytes(problem, each))]
    return min((schedule_orders(problem, each) for each in fitting), key=lambda schedule: schedule.value)


def run(engine: str, *arguments: object) -> dict[str, object]:
    """One solve as a row of the ledger."""
    problem = problem_of(*arguments)
    start, least = constructed(problem), best_bound(problem).ticks
    params = SolveParams(time_limit_s=TIME_LIMIT_S, work_limit=1e9, workers=1, seed=SEED)
    better: list[float] = []
    begun = time.perf_counter()

    def note(_: object) -> None:
        better.append(time.perf_counter() - begun)

    def note_found(answer: ExactAnswer) -> None:
        if answer.found is not None:
            note(answer)

    if engine == "cp-sat":
        proto = build_whole_horizon_model(problem, start, least).cp.proto
        size = len(proto.variables), len(proto.constraints)
        begun = time.perf_counter()
        answer = solve_whole_horizon(problem, params, hint=start, least_ticks=least, on_found=note)
    else:
        slots = finest_slots(problem, start.value, Rounding.DOWN)
        assert slots is not None
        assert slots.is_exact
        model = build_counter_model(slots, start.value)
        size = len(model.lp.variables()), model.lp.numConstraints()
        begun = time.perf_counter()
        answer = solve_counters(slots, start.value, params, least_ticks=least, on_progress=note_found)
    seconds = time.perf_counter() - begun
    best = start if answer.found is None else answer.found.schedule(problem)
    return {
        "engine": engine,
        **dict(zip(("ranks", "microbatches", "chunks", "memory", "objective"), arguments, strict=True)),
        "ops": sum(map(len, best.ranks)),
        "variables": size[0],
        "constraints": size[1],
        "start": start.value,
        "closed_form_bound": least,
        "value": best.value,
        "lower_bound": answer.lower_bound,
        "gap": round((best.value - answer.lower_bound) / best.value, 5),
        "first_better_s": round(better[0], 3) if better and best.value < start.value else None,
        "proof_s": round(seconds, 3) if answer.lower_bound == best.value else None,
        "wall_s": round(seconds, 3),
        "verified": not verify_schedule(best),
        "time_limit_s": TIME_LIMIT_S,
        "workers": 1,
        "seed": SEED,
        "versions": {
            name: version(name) for name in ("pipesynth", "ortools", "pulp", "highspy", "numba", "numpy")
        },
        "python": sys.version.split()[0],
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=True
        ).stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared",
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    lines = RUNS_FILE.read_text().splitlines() if RUNS_FILE.exists() else []
    rows = [json.loads(line) for line in lines]
    keys = ("engine", "ranks", "microbatches", "chunks", "memory", "objective")
    done = {tuple(row[key] for key in keys) for row in rows}
    for arguments in RUNS:
        for engine in ENGINES:
            if (engine, *arguments) in done:
                continue
            row = run(engine, *arguments)
            rows.append(row)
            with RUNS_FILE.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(*arguments, *(row[key] for key in ("engine", "value", "lower_bound", "wall_s")), flush=True)
    table = pd.DataFrame(rows)
    columns = ("ops", "start", "value", "variables", "constraints", "first_better_s", "proof_s", "gap")
    table = table[[*keys, *columns]]
    table.to_csv(HERE / "summary.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
