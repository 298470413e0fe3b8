"""Time orders of growing size with pipesynth's longest path and PyTorch's dry-run simulator.

Appends one row per size to ``runs.jsonl`` and rewrites ``summary.csv``. Both get the same orders: a building
block (V placement, unit times, period 6) laid down for every microbatch. Ours: from per-rank op numbers to
start times, and the whole way from ops to a timed schedule. PyTorch's: its lowering with sends and receives,
and ``_simulate_comms_compute``, which counts steps and knows no durations.

    python results/2026-11-21-timing/run.py
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from config import REPEATS, SIZES, TORCH_LIMIT_SECONDS

from synth import OpCost, OpKind, PlacementKind, StageCosts, schedule_orders, uniform_problem
from synth.building_block import BlockOp, BuildingBlock, unroll
from synth.graph import build_graph
from synth.ops import RankOrders
from synth.problem import Problem
from synth.timing import earliest_starts

HERE = Path(__file__).parent


def make(num_ranks: int, chunks: int, microbatches: int) -> tuple[Problem, RankOrders]:
    """A problem in unit times and the orders of a block that no wait in it can deadlock."""
    one = OpCost(ticks=1)
    problem = uniform_problem(
        num_ranks, microbatches, StageCosts(F=one, B=one, W=one), chunks=chunks, kind=PlacementKind.WAVE
    )
    last = problem.num_stages
    starts = {OpKind.F: lambda s: s, OpKind.B: lambda s: 2 * last - 1 - s, OpKind.W: lambda s: 2 * last - s}
    ops = tuple(BlockOp(kind, s, start(s)) for kind, start in starts.items() for s in range(last))
    return problem, unroll(BuildingBlock(period_ticks=3 * chunks, ops=ops), problem)


def time_ours(problem: Problem, orders: RankOrders) -> tuple[list[float], list[float]]:
    """Seconds of the longest path alone, and from ops to a timed schedule."""
    graph = build_graph(problem)
    ids = graph.orders_to_ids(orders)
    earliest_starts(graph, ids)
    paths, wholes = [], []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        earliest_starts(graph, ids)
        paths.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        schedule_orders(problem, orders)
        wholes.append(time.perf_counter() - begun)
    return paths, wholes


def time_torch(size: tuple[int, int, int], answer: multiprocessing.Queue) -> None:
    """Seconds of PyTorch's lowering and of its simulator, put on the queue one after the other."""
    from torch.distributed.pipelining import schedules

    problem, orders = make(*size)
    letter = {OpKind.F: "F", OpKind.B: "I", OpKind.W: "W"}
    actions = {
        rank: [schedules._Action.from_str(f"{op.stage}{letter[op.kind]}{op.microbatch}") for op in order]
        for rank, order in enumerate(orders)
    }
    ranks = problem.stage_to_rank
    begun = time.perf_counter()
    lowered = schedules._add_send_recv(actions, lambda stage: ranks[stage], problem.num_stages)
    answer.put(time.perf_counter() - begun)
    begun = time.perf_counter()
    schedules._simulate_comms_compute(lowered, lambda stage: ranks[stage], problem.num_stages)
    answer.put(time.perf_counter() - begun)


def time_torch_within(size: tuple[int, int, int]) -> tuple[float | None, float | None]:
    """What :func:`time_torch` measures, None for what is not finished within the limit."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=time_torch, args=(size, answer), daemon=True)
    process.start()
    process.join(TORCH_LIMIT_SECONDS)
    process.kill()
    process.join()
    measured = [answer.get() for _ in range(2) if not answer.empty()]
    lowering, simulation = [*measured, None, None][:2]
    return lowering, simulation


def main() -> None:
    rows = []
    for size in SIZES:
        problem, orders = make(*size)
        paths, wholes = time_ours(problem, orders)
        lowering, simulation = time_torch_within(size)
        row = {
            "ranks": size[0],
            "chunks": size[1],
            "microbatches": size[2],
            "ops": sum(map(len, orders)),
            "longest_path_s": [round(seconds, 6) for seconds in paths],
            "ops_to_schedule_s": [round(seconds, 6) for seconds in wholes],
            "torch_lowering_s": lowering and round(lowering, 3),
            "torch_simulation_s": simulation and round(simulation, 3),
            "torch_limit_s": TORCH_LIMIT_SECONDS,
            "versions": {name: version(name) for name in ("pipesynth", "numba", "numpy", "torch")},
            "python": sys.version.split()[0],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "date": time.strftime("%Y-%m-%d"),
        }
        rows.append(row)
        with (HERE / "runs.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    table = pd.DataFrame(rows)[["ranks", "chunks", "microbatches", "ops"]]
    for column in ("longest_path_s", "ops_to_schedule_s"):
        table[column] = [round(statistics.median(row[column]), 6) for row in rows]
        table[f"{column}_worst"] = [round(max(row[column]), 6) for row in rows]
    table["torch_lowering_s"] = [row["torch_lowering_s"] for row in rows]
    table["torch_simulation_s"] = [row["torch_simulation_s"] for row in rows]
    table["torch_over_longest_path"] = (table["torch_simulation_s"] / table["longest_path_s"]).round()
    table.to_csv(HERE / "summary.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
