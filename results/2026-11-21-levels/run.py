"""Set the schedules of arXiv 2605.24006, and all others, beside one another at three levels.

Writes ``levels.csv`` (every schedule at every machine, depth and batch), ``gains.csv`` (what synthesized
schedules gain over the best published one at equal memory), ``findings.csv`` (the figures of the summary),
``about.json`` and the pictures. With ``--pictures`` only the last two parts are made again, from the rows.

    python results/2026-11-21-levels/run.py [--pictures]
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pandas as pd
from config import BATCHES, CELLS, DEPTHS, SEARCHED, SENSITIVITY, Cell
from evaluate import evaluate
from figures import draw_all
from findings import findings_table
from searches import search

HERE = Path(__file__).parent
PROCESSES = 2


def level_tasks() -> list[tuple[Cell, int, int]]:
    """The machines, depths and batches, the longest first."""
    points = [(depth, batch) for depth in DEPTHS for batch in BATCHES if batch >= depth]
    grid = [(cell, *point) for point in points for cell in CELLS]
    wider = [(cell, 8, 8) for cell in SENSITIVITY]
    return sorted([*grid, *wider], key=lambda task: -task[1] * task[2])


def measure() -> None:
    """All rows."""
    begun = time.time()
    searches = [(cell, *point) for cell in CELLS for point in SEARCHED]
    with ProcessPoolExecutor(PROCESSES) as pool:
        levels = pd.DataFrame(list(chain.from_iterable(pool.map(evaluate, level_tasks()))))
        order = ["step", "transfers", "depth", "batch", "compute", "network"]
        levels.sort_values(order, kind="stable").to_csv(HERE / "levels.csv", index=False)
        gains = pd.DataFrame(list(chain.from_iterable(pool.map(search, searches))))
    gains.to_csv(HERE / "gains.csv", index=False)
    about = {
        "versions": {
            name: version(name) for name in ("pipesynth", "ortools", "numba", "numpy", "matplotlib")
        },
        "python": sys.version.split()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - begun),
    }
    (HERE / "about.json").write_text(json.dumps(about, indent=2) + "\n")


def main() -> None:
    if "--pictures" not in sys.argv[1:]:
        measure()
    levels, gains = pd.read_csv(HERE / "levels.csv"), pd.read_csv(HERE / "gains.csv")
    findings = findings_table(levels, gains)
    findings.to_csv(HERE / "findings.csv", index=False)
    print(findings.to_string(index=False, max_colwidth=90))
    draw_all(levels, gains, HERE)


if __name__ == "__main__":
    main()
