"""This runtime beside PyTorch's own on the same orders, and what was predicted beside what was measured.

Two ranks on two cores. One profile round for each number of chunks gives the times and bytes to plan with, by
way of a timeline and ``measured_problem``, as the commands do it. Then, for every schedule in one world, a
step of each runtime in turn, and what its ranks hold. Needs ``pip install -e '.[test]'``; eight minutes on a
quiet machine.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import config
import ranks
from provenance import provenance
from torch import multiprocessing

from synth import (
    OpCost,
    PlacementKind,
    Problem,
    Schedule,
    StageCosts,
    baseline_orders,
    schedule_orders,
    synthesize,
    uniform_problem,
)
from synth.document import read_timeline
from synth.export.torch_csv import schedule_from_torch_csv, to_torch_csv
from synth.measured import Timeline
from synth.measured_costs import measured_problem
from synth.memory import parse_limit
from synth.ops import Op, OpKind, RankOrders
from synth.schedule import measure

FOLDER = Path(__file__).parent
GUESS = StageCosts(
    F=OpCost(ticks=1000, alloc_bytes=2),
    B=OpCost(ticks=1000, free_bytes=1),
    W=OpCost(ticks=1000, free_bytes=1),
    BW=OpCost(ticks=2000, free_bytes=2),
)
RESAMPLES = 2000


def main() -> None:
    """Profile, plan, run, judge; everything is made anew."""
    rows: list[dict[str, Any]] = []
    problems = {chunks: profile(chunks, kind) for chunks, kind in config.PLACEMENTS.items()}
    for name, chunks in config.SCHEDULES:
        rows.append({"schedule": name, **run(plan(name, problems[chunks])), **provenance()})
        print(name, "done; load", rows[-1]["load"], flush=True)
    (FOLDER / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_table("speed", [line for row in rows for line in speed_lines(row)])
    write_table("prediction", [prediction_line(row) for row in rows])


def profile(chunks: int, kind: PlacementKind) -> Problem:
    """The costs of every stage's ops, measured in a round of its own."""
    guess = replace(
        uniform_problem(config.RANKS, config.MICROBATCHES, GUESS, chunks=chunks, kind=kind),
        name=f"{config.LAYERS} layers of {config.HIDDEN} on two cores, {chunks} chunks",
    )
    orders = divide_every_other(baseline_orders("gpipe", guess))
    schedule = schedule_orders(guess, orders)
    return measured_problem(timeline_of(in_processes(ranks.profile, schedule)))


def divide_every_other(orders: RankOrders) -> RankOrders:
    """BW of odd microbatches as B and W, so that one round measures all kinds."""
    return tuple(tuple(part for op in order for part in divided(op)) for order in orders)


def divided(op: Op) -> Iterator[Op]:
    """An op, or its two parts."""
    kinds = (OpKind.B, OpKind.W) if op.kind is OpKind.BW and op.microbatch % 2 else (op.kind,)
    return (op._replace(kind=kind) for kind in kinds)


def plan(name: str, problem: Problem) -> Schedule:
    """A baseline, or the best schedule found in the memory of 1F1B; as PyTorch's runtime can run it."""
    if name.startswith("synthesized"):
        limited = problem.with_memory_limit(parse_limit("1x", problem))
        made = synthesize(limited, time_limit=config.SEARCH_SECONDS, seed=config.SEED).schedule
    else:
        made = schedule_orders(problem, baseline_orders(name, problem))
    return schedule_from_torch_csv(to_torch_csv(made), problem)


def run(schedule: Schedule) -> dict[str, Any]:
    """All turns of a schedule, and the judgement."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as orders:
        orders.write(to_torch_csv(schedule))
        orders.flush()
        seen = in_processes(ranks.compare, schedule, orders.name)
    largest = {name: max(s["differences"][name] for s in seen) for name in seen[0]["differences"]}
    if max(largest.values()) > config.LARGEST_DIFFERENCE:
        raise SystemExit(f"gradients differ from those of PyTorch's runtime: {largest}")
    walls = {name: walls_s([s["walls"][name] for s in seen]) for name in seen[0]["walls"]}
    busy = {name: busy_s([s["walls"][name] for s in seen]) for name in seen[0]["walls"]}
    held = timeline_of(in_processes(ranks.profile, schedule))
    return {
        "gradients_differ": largest,
        "ops": sum(map(len, schedule.orders)),
        "steps_s": walls,
        "busy_s": busy,
        "predicted_s": replayed_s(timeline_of(seen)),
        "judged_s": walls["deferred"][1::2],
        "planned_s": measure(schedule).makespan * schedule.problem.tick_seconds,
        "peak_predicted": measure(schedule).peak_memory_bytes,
        "peak_measured": held.peak_memory_bytes,
    }


def replayed_s(timeline: Timeline) -> float:
    """What the orders of a timeline take when replayed on the costs that it shows."""
    replayed = schedule_orders(measured_problem(timeline), timeline.orders)
    return measure(replayed).makespan * timeline.problem.tick_seconds


def in_processes(work: Callable[..., None], *arguments: object) -> list[dict[str, Any]]:
    """What every rank wrote."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (folder, *arguments), nprocs=config.RANKS)
        return [json.loads((Path(folder) / f"rank{n}.json").read_text()) for n in range(config.RANKS)]


def timeline_of(seen: Sequence[dict[str, Any]]) -> Timeline:
    """The timeline that rank 0 wrote."""
    return read_timeline(seen[0]["timeline"])


Walls = Sequence[Sequence[tuple[int, int, float]]]
"""By rank and step: when it began and ended, and how long the process computed."""


def walls_s(walls: Walls) -> list[float]:
    """From the first rank's call to the last one's return, by step."""
    return [
        (max(end for _, end, _ in step) - min(begin for begin, _, _ in step)) / 1e9
        for step in list(zip(*walls, strict=True))[config.WARM_UP :]
    ]


def busy_s(walls: Walls) -> list[float]:
    """What both processes computed, by step; other work on the machine hardly shows in it."""
    return [sum(busy for _, _, busy in step) for step in list(zip(*walls, strict=True))[config.WARM_UP :]]


def speed_lines(row: dict[str, Any]) -> Iterator[dict[str, object]]:
    """For each of our divisions, how long a step takes beside PyTorch's."""
    theirs = row["steps_s"]["torch"]
    for name in ("native", "deferred"):
        ours = row["steps_s"][name]
        by_turn = ratios(row["steps_s"], name)
        low, high = interval(by_turn)
        yield {
            "schedule": row["schedule"],
            "division": name,
            "ours_s": f"{statistics.median(ours):.4f}",
            "torch_s": f"{statistics.median(theirs):.4f}",
            "ratio": f"{statistics.median(by_turn):.3f}",
            "ratio_low": f"{low:.3f}",
            "ratio_high": f"{high:.3f}",
            "ratio_of_medians": f"{statistics.median(ours) / statistics.median(theirs):.3f}",
            "processor_time_ratio": f"{statistics.median(ratios(row['busy_s'], name)):.3f}",
            "pairs": len(ours),
            "gradients_differ": row["gradients_differ"][name],
        }


def ratios(times: dict[str, list[float]], name: str) -> list[float]:
    """Of a runtime's step to PyTorch's in the same turn, over all turns."""
    return [ours / theirs for ours, theirs in zip(times[name], times["torch"], strict=True)]


def interval(found: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of the median when turns are drawn again (a bootstrap)."""
    draw = random.Random(config.SEED)
    medians = [statistics.median(draw.choices(found, k=len(found))) for _ in range(RESAMPLES)]
    cuts = statistics.quantiles(medians, n=40)
    return cuts[0], cuts[-1]


def prediction_line(row: dict[str, Any]) -> dict[str, object]:
    """Predicted beside measured: the step, and the peak of the rank where both differ most."""
    judged = row["judged_s"]
    low, middle, high = statistics.quantiles([row["predicted_s"] / step - 1 for step in judged], n=4)
    peaks = [p / m - 1 for p, m in zip(row["peak_predicted"], row["peak_measured"], strict=True)]
    worst = max(range(len(peaks)), key=lambda rank: abs(peaks[rank]))
    return {
        "schedule": row["schedule"],
        "predicted_s": f"{row['predicted_s']:.4f}",
        "measured_s": f"{statistics.median(judged):.4f}",
        "error": f"{middle:+.1%}",
        "error_quartile_1": f"{low:+.1%}",
        "error_quartile_3": f"{high:+.1%}",
        "steps": len(judged),
        "planned_s": f"{row['planned_s']:.4f}",
        "planned_error": f"{row['planned_s'] / statistics.median(judged) - 1:+.1%}",
        "peak_predicted_bytes": row["peak_predicted"][worst],
        "peak_measured_bytes": row["peak_measured"][worst],
        "peak_error": f"{peaks[worst]:+.1%}",
    }


def write_table(name: str, lines: Sequence[dict[str, object]]) -> None:
    """As a CSV file, and for the README on the screen."""
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    for cells in (lines[0].keys(), ["---"] * len(lines[0]), *(line.values() for line in lines)):
        print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    main()
