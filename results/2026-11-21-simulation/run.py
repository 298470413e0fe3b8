"""Measure replays under noise, and rank the published schedules over ever slower networks.

Appends one row per setting and repeat to ``runs.jsonl`` and rewrites ``speed.csv`` and ``ranking.csv``. Times
are processor time of one thread, compiled functions warm; the first call, which compiles or loads them, is
timed by itself. The plain event loop is the same function, not compiled, on Python integers.

    python results/2026-11-21-simulation/run.py
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from config import (
    CHUNKS,
    INSTANCE,
    MICROBATCHES,
    NETWORKS_GB_PER_S,
    PLAIN_REPLAYS,
    RANKS,
    REPEATS,
    SAMPLES,
    SCHEDULES,
    SIGMA,
    TICKS,
    TRANSFER_TICKS,
    nodes_of_four,
    two_nodes,
)

from synth import OpCost, Schedule, StageCosts, baseline_orders, load_instance, schedule_orders
from synth.chunks import cut_stages
from synth.placement import PlacementKind
from synth.problem import Links, Objective, uniform_problem, uniform_transfers
from synth.simulate import Network, network_over, planned_network, replay_over, replay_with_jitter
from synth.simulate.lowering import lower
from synth.simulate.replaying import first_starts, run_events
from synth.topology import Duplex, SharedBy

HERE = Path(__file__).parent
ABOUT = {
    "versions": {name: version(name) for name in ("pipesynth", "numba", "numpy")},
    "python": sys.version.split()[0],
    "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    "date": time.strftime("%Y-%m-%d"),
}


def seconds(run: Callable[[], object]) -> float:
    """Processor time of a call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def large_schedule() -> Schedule:
    """The V schedule without bubble at equal times."""
    stage = StageCosts(**{kind: OpCost(ticks=ticks) for kind, ticks in TICKS.items()})
    problem = uniform_problem(
        RANKS, MICROBATCHES, stage, transfer_ticks=TRANSFER_TICKS, chunks=CHUNKS, kind=PlacementKind.V
    )
    return schedule_orders(problem, baseline_orders("v-zb", problem))


def networks(schedule: Schedule) -> dict[str, Network]:
    """From links that nobody shares to ranks that cannot compute meanwhile."""
    problem = schedule.problem
    half = nodes_of_four(RANKS, SharedBy.NODE, Duplex.HALF)
    return {
        "free links": planned_network(problem, links=Links.FREE),
        "exclusive links": planned_network(problem, links=Links.EXCLUSIVE),
        "a port per rank": network_over(nodes_of_four(RANKS, SharedBy.RANK), problem),
        "a half-duplex NIC per node": network_over(half, problem),
        "the same, no overlap": network_over(half, problem, overlaps=False),
    }


def plain_seconds(schedule: Schedule, network: Network) -> float:
    """Processor time of one replay by the event loop as Python runs it."""
    lowered, release = lower(schedule.problem, schedule.orders, network), first_starts(schedule)
    ticks = np.array(lowered.ticks, object)

    def replays() -> None:
        for _ in range(PLAIN_REPLAYS):
            run_events(lowered, ticks, np.array(release, object))

    return seconds(replays) / PLAIN_REPLAYS


def measure_speed() -> list[dict[str, Any]]:
    """One row per network and repeat."""
    schedule, rows = large_schedule(), []
    for name, network in networks(schedule).items():

        def many(network: Network = network) -> None:
            replay_with_jitter(schedule, sigma=SIGMA, samples=SAMPLES, seed=0, network=network)

        first = seconds(many)
        for repeat in range(REPEATS):
            rows.append(
                {
                    "study": "speed",
                    "network": name,
                    "way": "op by op"
                    if lower(schedule.problem, schedule.orders, network).queues_are_fixed
                    else "event by event",
                    "ops": sum(map(len, schedule.ranks)),
                    "samples": SAMPLES,
                    "repeat": repeat,
                    "first_call_s": round(first, 3),
                    "samples_s": round(seconds(many), 3),
                    "plain_replay_s": round(plain_seconds(schedule, network), 5),
                }
            )
            print(rows[-1], flush=True)
    return rows


def planned(name: str) -> Schedule:
    """A published schedule of the profile, its transfers free: the slot table's view."""
    chunks, kind = SCHEDULES[name]
    problem = load_instance(INSTANCE)
    if chunks > 1:
        problem = cut_stages(problem, chunks, PlacementKind(kind)).problem
    free = uniform_transfers(problem.num_ranks, 0)
    problem = replace(problem, transfer_ticks=free, objective=Objective.MAKESPAN)
    return schedule_orders(problem, baseline_orders(name, problem))


def measure_ranking() -> list[dict[str, Any]]:
    """One row per schedule and network: makespans in ticks of 1 µs."""
    rows = []
    for name in SCHEDULES:
        schedule = planned(name)
        for gb_per_s in (None, *NETWORKS_GB_PER_S):
            for overlaps in (True, False) if gb_per_s else (True,):
                network = (
                    network_over(two_nodes(gb_per_s), schedule.problem, overlaps=overlaps)
                    if gb_per_s
                    else planned_network(schedule.problem)
                )
                rows.append(
                    {
                        "study": "ranking",
                        "schedule": name,
                        "gb_per_s": gb_per_s,
                        "overlap": overlaps,
                        "makespan": replay_over(network, schedule).value,
                        "planned": schedule.value,
                    }
                )
    return rows


def write_speed(rows: list[dict[str, Any]]) -> None:
    """Medians and the worst, and how many plain replays take the time of one of many."""
    table = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        taken, plain = ([row[key] for row in own] for key in ("samples_s", "plain_replay_s"))
        ratios = [row["plain_replay_s"] * SAMPLES / row["samples_s"] for row in own]
        table.append(
            {
                "network": name,
                "way": own[0]["way"],
                "ops": own[0]["ops"],
                "first_call_s": own[0]["first_call_s"],
                "samples_s": round(statistics.median(taken), 3),
                "samples_s_worst": max(taken),
                "plain_replay_s": round(statistics.median(plain), 4),
                "plain_over_compiled": round(statistics.median(ratios)),
                "ratio_least": round(min(ratios)),
                "ratio_most": round(max(ratios)),
            }
        )
    frame = pd.DataFrame(table)
    frame.to_csv(HERE / "speed.csv", index=False)
    print(frame.to_string(index=False))


def write_ranking(rows: list[dict[str, Any]]) -> None:
    """Makespans in milliseconds, one column per network; n: without overlap."""
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        column = (
            "free" if row["gb_per_s"] is None else f"{row['gb_per_s']:g} GB/s" + " n" * (not row["overlap"])
        )
        table.setdefault(row["schedule"], {})[column] = round(row["makespan"] / 1000, 1)
    frame = pd.DataFrame.from_dict(table, orient="index")
    frame.to_csv(HERE / "ranking.csv", index_label="schedule")
    print(frame.to_string())


def main() -> None:
    speed, ranking = measure_speed(), measure_ranking()
    with (HERE / "runs.jsonl").open("a") as file:
        for row in (*speed, *ranking):
            file.write(json.dumps({**row, **ABOUT}) + "\n")
    write_speed(speed)
    write_ranking(ranking)


if __name__ == "__main__":
    main()
