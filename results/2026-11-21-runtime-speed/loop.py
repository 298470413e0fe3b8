"""The closed loop, as the commands do it: run, measure, plan again, run, and how far off that plan was.

``pipesynth baseline`` -> ``runtime.train --timeline`` -> ``simulate --against --measured-problem`` ->
``synthesize`` -> ``runtime.train --timeline`` -> ``simulate --against --measured-problem`` -> and once more
from ``synthesize`` on, on two ranks, several times over. Needs ``pip install -e '.[runtime]'``; about twelve
minutes on a quiet machine.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import config
from provenance import provenance

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
                for row in loop(first, options):
                    rows.append({"model": model, "first": first, "round": round_, **row})
                    print(json.dumps(rows[-1]), flush=True)
    (FOLDER / "loop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loops = product(config.LOOP_MODELS, config.LOOP_FIRST, range(1, config.LOOP_PLANS + 1))
    lines = [line(dict(zip(("model", "first", "plan"), each, strict=True)), rows) for each in loops]
    with (FOLDER / "loop.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    for cells in (lines[0].keys(), ["---"] * len(lines[0]), *(each.values() for each in lines)):
        print("|", " | ".join(map(str, cells)), "|")


def loop(first: str, options: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Plan by plan, what it was to take and hold when run, and what it took and held."""
    with tempfile.TemporaryDirectory() as folder:
        plan, seen, costs = (f"{folder}/{name}.json" for name in ("plan", "timeline", "measured"))
        call(*PIPESYNTH, "baseline", first, str(PROBLEM), "-o", plan)
        train_and_compare(plan, seen, costs, options)
        for number in range(1, config.LOOP_PLANS + 1):
            limit, seconds = ("--memory-limit", "1x"), ("--time-limit", str(config.SEARCH_SECONDS))
            call(*PIPESYNTH, "synthesize", costs, *limit, *seconds, "-o", plan)
            judged = train_and_compare(plan, seen, costs, options)
            yield {
                "plan": number,
                "planned_s": judged["makespan"]["planned_s"],
                "measured_s": judged["makespan"]["measured_s"],
                "replayed_s": judged["predicted_from_measured_ops"]["planned_s"],
                "peak_planned": [rank["planned_peak_bytes"] for rank in judged["ranks"]],
                "peak_measured": [rank["measured_peak_bytes"] for rank in judged["ranks"]],
                "not_measured": judged["not_measured"],
                **provenance(),
            }


def train_and_compare(plan: str, seen: str, costs: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Run a schedule, write the problem that its timeline shows, and say what ``simulate --against`` does."""
    call(*TRAIN, "--schedule", plan, "--timeline", seen, *options)
    answer = call(*PIPESYNTH, "simulate", plan, "--against", seen, "--measured-problem", costs, "--json")
    found: dict[str, Any] = json.loads(answer)["against"]
    return found


def call(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def line(of: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, object]:
    """One plan of a loop: the medians over its rounds, and the largest error of them all."""
    own = [row for row in rows if of.items() <= row.items()]
    steps = [row["planned_s"] / row["measured_s"] - 1 for row in own]
    replayed = [row["replayed_s"] / row["measured_s"] - 1 for row in own]
    peaks = [
        planned / held - 1
        for row in own
        for planned, held in zip(row["peak_planned"], row["peak_measured"], strict=True)
    ]
    return {
        **of,
        "rounds": len(own),
        "planned_s": f"{statistics.median(row['planned_s'] for row in own):.4f}",
        "measured_s": f"{statistics.median(row['measured_s'] for row in own):.4f}",
        "error": f"{statistics.median(steps):+.1%}",
        "largest_error": f"{max(steps, key=abs):+.1%}",
        "error_on_its_own_costs": f"{statistics.median(replayed):+.1%}",
        "peak_error": f"{statistics.median(peaks):+.1%}",
        "largest_peak_error": f"{max(peaks, key=abs):+.1%}",
    }


if __name__ == "__main__":
    main()
