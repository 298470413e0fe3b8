"""Two ranks on two cores: what a replay of measured costs predicts, and what a step takes.

First one profile round for each number of chunks: GPipe, its backward divided and not, on made-up costs; the
costs of every op and transfer are those of its last step, as ``measured_problem`` has them. Every schedule is
then made for those costs, and executed. Needs ``pip install -e '.[test]'``; about five minutes on a quiet
machine.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import config
import torch
from torch import distributed as dist
from torch import multiprocessing

from runtime.deferred import defer_weights
from runtime.executor import Options, PipelineRunner
from runtime.llama import LlamaConfig, build_stage, next_token_loss
from runtime.shapes import TensorSpec
from runtime.text import synthetic_text
from runtime.timeline import gather_timeline
from runtime.world import join_at
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
from synth.document import read_problem, read_timeline, write_problem, write_timeline
from synth.measured import Timeline
from synth.measured_costs import measured_problem, with_time_before
from synth.ops import Op, OpKind, RankOrders
from synth.schedule import measure
from synth.simulate import simulate_orders

FOLDER = Path(__file__).parent
HEADINGS = (
    "schedule",
    "predicted_s",
    "median_s",
    "quartile_1_s",
    "quartile_3_s",
    "steps",
    "error",
    "error_with_own_op_times",
)
GUESS = StageCosts(
    F=OpCost(ticks=1000, alloc_bytes=2),
    B=OpCost(ticks=1000, free_bytes=1),
    W=OpCost(ticks=1000, free_bytes=1),
    BW=OpCost(ticks=2000, free_bytes=2),
)


def main() -> None:
    """Profile, plan, execute, and write rows and summary; what an earlier run has done is kept."""
    problems = {}
    for chunks, kind in ((1, PlacementKind.LOOP), (2, PlacementKind.V)):
        path = FOLDER / f"measured-{chunks}.json"
        if not path.exists():
            path.write_text(write_problem(profile(chunks, kind)))
        problems[chunks] = read_problem(path.read_text())
    ledger = FOLDER / "runs.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    done = {(row["schedule"], row["round"]) for row in rows}
    for round_ in range(config.ROUNDS):
        for name, chunks, _ in config.SCHEDULES:
            if (name, round_) not in done:
                rows.append(
                    {"schedule": name, "round": round_, **run(plan(name, problems[chunks])), **provenance()}
                )
                with ledger.open("a") as file:
                    print(json.dumps(rows[-1]), file=file)
                print(name, rows[-1]["predicted_s"], statistics.median(rows[-1]["measured_s"]), flush=True)
    summarise(rows)


def profile(chunks: int, kind: PlacementKind) -> Problem:
    """The costs of every stage's ops and of transfers, measured; odd microbatches divide their backward."""
    guess = replace(
        uniform_problem(
            config.RANKS, config.MICROBATCHES, GUESS, chunks=chunks, kind=kind, transfer_ticks=100
        ),
        name=f"{config.LAYERS} layers of {config.HIDDEN} on two cores, {chunks} chunks",
    )
    orders = baseline_orders("gpipe", guess)
    return measured_problem(execute(schedule_orders(guess, divide_every_other(orders)))[-1])


def divide_every_other(orders: RankOrders) -> RankOrders:
    """BW of odd microbatches as B and W, so that one run measures all kinds."""
    return tuple(
        tuple(
            part
            for op in order
            for part in (
                (Op(OpKind.B, op.stage, op.microbatch), Op(OpKind.W, op.stage, op.microbatch))
                if op.kind is OpKind.BW and op.microbatch % 2
                else (op,)
            )
        )
        for order in orders
    )


def plan(name: str, problem: Problem) -> Schedule:
    """A baseline, or the best schedule found in the memory of 1F1B."""
    if not name.startswith("synthesized"):
        return schedule_orders(problem, baseline_orders(name, problem))
    limit = 2 * config.RANKS * len(problem.stages) // config.RANKS
    limited = problem.with_memory_limit(limit)
    return synthesize(limited, time_limit=config.SEARCH_SECONDS, seed=config.SEED).schedule


def run(schedule: Schedule) -> dict[str, object]:
    """Execute a schedule and set what was measured beside what was planned."""
    timelines = execute(schedule)[config.WARM_UP_STEPS :]
    tick_s = schedule.problem.tick_seconds
    return {
        "predicted_s": measure(schedule).makespan * tick_s,
        "measured_s": [measure(timeline.schedule).makespan * tick_s for timeline in timelines],
        "replayed_s": [replayed_s(timeline) for timeline in timelines],
        "bubble_predicted": measure(schedule).bubble_ratio,
        "peak_units": list(measure(schedule).peak_memory_bytes),
    }


def replayed_s(timeline: Timeline) -> float:
    """What a replay makes of a step when it is told how long each of its ops took."""
    schedule = with_time_before(timeline).schedule
    took = {timed.op: max(1, timed.end - timed.start) for rank in schedule.ranks for timed in rank}
    replayed = simulate_orders(measured_problem(timeline), schedule.orders, ticks=took)
    return measure(replayed).makespan * timeline.problem.tick_seconds


def execute(schedule: Schedule) -> list[Timeline]:
    """The timelines of all steps, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (folder, schedule), nprocs=config.RANKS)
        lines = (Path(folder) / "timelines.jsonl").read_text().splitlines()
    return [read_timeline(json.loads(line)) for line in lines]


def rank_main(rank: int, folder: str, schedule: Schedule) -> None:
    """One rank: run all steps, and on rank 0 write their timelines."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", config.RANKS)
    world = join_at(store, rank, config.RANKS, config.RANKS)
    stages = schedule.problem.num_stages
    model = LlamaConfig(
        vocabulary=config.VOCABULARY, hidden=config.HIDDEN, layers=config.LAYERS, heads=config.HEADS
    )
    modules = {s: defer_weights(build_stage(model, s, stages)) for s in schedule.problem.stages_by_rank[rank]}
    like = TensorSpec((config.ROWS, config.POSITIONS), torch.int64)
    runner = PipelineRunner(
        schedule, modules, world=world, microbatch=like, loss=next_token_loss, options=Options()
    )
    rows = config.ROWS * config.MICROBATCHES
    written = []
    for step in range(config.WARM_UP_STEPS + config.STEPS):
        text = synthetic_text(
            seed=0, step=step, rows=rows, positions=config.POSITIONS, vocabulary=config.VOCABULARY
        )
        runner.step(text[:, :-1], text[:, 1:])
        timeline = gather_timeline(runner, f"two ranks on two cores, torch {torch.__version__}")
        if timeline is not None:
            written.append(json.dumps(write_timeline(timeline)))
    if written:
        (Path(folder) / "timelines.jsonl").write_text("\n".join(written))
    runner.close()
    dist.destroy_process_group()


def summarise(rows: list[dict[str, object]]) -> None:
    """One line per schedule: the prediction, and median and quartiles of all its steps."""
    with (FOLDER / "summary.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADINGS)
        for name, _, _ in config.SCHEDULES:
            own = [row for row in rows if row["schedule"] == name]
            steps = [step for row in own for step in row["measured_s"]]
            low, median, high = statistics.quantiles(steps, n=4)
            predicted = own[0]["predicted_s"]
            figures = [f"{value:.4f}" for value in (predicted, median, low, high)]
            errors = [
                replayed / step - 1
                for row in own
                for replayed, step in zip(row["replayed_s"], row["measured_s"], strict=True)
            ]
            error, replay_error = predicted / median - 1, statistics.median(errors)
            writer.writerow([name, *figures, len(steps), f"{error:+.1%}", f"{replay_error:+.1%}"])


def provenance() -> dict[str, object]:
    """Versions, machine and date."""
    return {
        "torch": torch.__version__,
        "pipesynth": version("pipesynth"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
