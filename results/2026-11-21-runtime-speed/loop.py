"""The closed loop, as the commands do it: plan, run, measure, plan again, run, and how far off the plan was.

``pipesynth baseline`` -> ``runtime.train --timeline`` -> ``simulate --against --measured-problem`` ->
``synthesize`` -> ``runtime.train --timeline`` -> ``simulate --against``, on two ranks, several times over.
Needs ``pip install -e '.[runtime]'``; about eight minutes on a quiet machine.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import config

FOLDER = Path(__file__).parent
PROBLEM = FOLDER.parent / "2026-11-21-runtime" / "measured-1.json"
PIPESYNTH = (sys.executable, "-m", "synth.cli")
TRAIN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(config.RANKS))
TRAIN += ("-m", "runtime.train")


def main() -> None:
    """All rounds of all loops, taking turns; everything is made anew."""
    rows = []
    for round_ in range(config.LOOP_ROUNDS):
        for model, options in config.LOOP_MODELS.items():
            for first in config.LOOP_FIRST:
                rows.append({"model": model, "first": first, "round": round_, **loop(first, options)})
                print(json.dumps(rows[-1]), flush=True)
    (FOLDER / "loop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [line(model, first, rows) for model in config.LOOP_MODELS for first in config.LOOP_FIRST]
    with (FOLDER / "loop.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    for cells in (lines[0].keys(), ["---"] * len(lines[0]), *(each.values() for each in lines)):
        print("|", " | ".join(map(str, cells)), "|")


def loop(first: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Once around: what the second run was planned to take and hold, and what it took and held."""
    with tempfile.TemporaryDirectory() as folder:
        plan, seen, again, second, there = (
            f"{folder}/{name}.json" for name in ("first", "timeline", "mine", "second", "second-timeline")
        )
        call(*PIPESYNTH, "baseline", first, str(PROBLEM), "-o", plan)
        call(*TRAIN, "--schedule", plan, "--timeline", seen, *options)
        measured = against(plan, seen, "--measured-problem", again)
        limit, seconds = ("--memory-limit", "1x"), ("--time-limit", str(config.SEARCH_SECONDS))
        call(*PIPESYNTH, "synthesize", again, *limit, *seconds, "-o", second)
        call(*TRAIN, "--schedule", second, "--timeline", there, *options)
        judged = against(second, there)
    return {
        "first_measured_s": measured["makespan"]["measured_s"],
        "first_replayed_s": measured["predicted_from_measured_ops"]["planned_s"],
        "planned_s": judged["makespan"]["planned_s"],
        "measured_s": judged["makespan"]["measured_s"],
        "replayed_s": judged["predicted_from_measured_ops"]["planned_s"],
        "peak_planned": [rank["planned_peak_bytes"] for rank in judged["ranks"]],
        "peak_measured": [rank["measured_peak_bytes"] for rank in judged["ranks"]],
        **provenance(),
    }


def against(schedule: str, timeline: str, *options: str) -> dict[str, Any]:
    """What ``simulate --against`` says."""
    answer = call(*PIPESYNTH, "simulate", schedule, "--against", timeline, *options, "--json")
    found: dict[str, Any] = json.loads(answer)["against"]
    return found


def call(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def line(model: str, first: str, rows: list[dict[str, Any]]) -> dict[str, object]:
    """One loop: the medians over its rounds, and the largest error of them all."""
    own = [row for row in rows if (row["model"], row["first"]) == (model, first)]
    steps = [row["planned_s"] / row["measured_s"] - 1 for row in own]
    replayed = [row["replayed_s"] / row["measured_s"] - 1 for row in own]
    peaks = [
        planned / held - 1
        for row in own
        for planned, held in zip(row["peak_planned"], row["peak_measured"], strict=True)
    ]
    return {
        "model": model,
        "first": first,
        "rounds": len(own),
        "planned_s": f"{statistics.median(row['planned_s'] for row in own):.4f}",
        "measured_s": f"{statistics.median(row['measured_s'] for row in own):.4f}",
        "error": f"{statistics.median(steps):+.1%}",
        "largest_error": f"{max(steps, key=abs):+.1%}",
        "error_on_its_own_costs": f"{statistics.median(replayed):+.1%}",
        "peak_error": f"{statistics.median(peaks):+.1%}",
        "largest_peak_error": f"{max(peaks, key=abs):+.1%}",
    }


def provenance() -> dict[str, object]:
    """Versions, machine and date."""
    return {
        "torch": version("torch"),
        "pipesynth": version("pipesynth"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
