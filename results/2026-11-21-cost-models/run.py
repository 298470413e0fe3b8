"""Set the analytic cost model beside published figures: times, memory, parameter counts.

Writes ``times.csv``, ``bubbles.csv``, ``memory.csv``, ``parameters.csv`` and ``example.csv`` (30 s),
and prints what is calibrated.

    python results/2026-11-21-cost-models/run.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from config import (
    CALIBRATED_ON,
    EXAMPLE,
    EXAMPLE_SEARCH,
    GPU,
    GPUS_PER_NODE,
    PARAMETERS,
    PEAK_1F1B_GB,
    RECOMPUTE_SAVINGS,
    UNIFORM_MB,
    VOCABULARY,
)

from costmodels.architectures import read_model
from costmodels.cluster import Cluster
from costmodels.described import Style, describe_model
from costmodels.fitting import memory_by_rank
from costmodels.hardware import find_gpu
from costmodels.layers import model_layers
from costmodels.planning import Pipeline, Plan, make_plan
from costmodels.roofline import Efficiencies
from costmodels.training import AttentionKernel, Recompute, Training
from synth import Objective, OpCost, StageCosts, baseline_orders, measure, schedule_orders, uniform_problem

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_FIGURES = json.loads((ROOT / "tests" / "data" / "published.json").read_text())
PUBLISHED, BUBBLES = _FIGURES["table9_profiles"], _FIGURES["table5_bubble"]["rows"]
KINDS = ("F", "B", "W")
STATED = Efficiencies()


def plan_of(row: dict, efficiencies: Efficiencies) -> Plan:
    """The published model on the published ranks: first and last stage have one block fewer.

    Gradients are in half precision: with them the published peaks of memory come out (``memory.csv``).
    """
    blocks = (row["layers"] + 2) // row["p"]
    model = describe_model(
        Style.GPT,
        layers=row["layers"],
        hidden=row["hidden"],
        heads=row["heads"],
        vocabulary=VOCABULARY,
        positions=row["seq"],
    )
    training = Training(
        microbatch_size=row["microbatch_size"],
        sequence_length=row["seq"],
        gradient_bytes=2,
        attention=AttentionKernel.CORE,
    )
    pipeline = Pipeline(
        num_ranks=row["p"], num_microbatches=row["m"], first_blocks=blocks - 1, last_blocks=blocks - 1
    )
    cluster = Cluster(gpu=find_gpu(GPU), gpus_per_node=GPUS_PER_NODE, efficiencies=efficiencies)
    return make_plan(model, training, pipeline, cluster)


def middle_us(row: dict, efficiencies: Efficiencies) -> dict[str, float]:
    """F, B and W of a stage in the middle, and the mean transfer between neighbours, microseconds."""
    problem = plan_of(row, efficiencies).problem
    stage = problem.stages[row["p"] // 2]
    hops = [problem.transfer_ticks[rank][rank + 1] for rank in range(row["p"] - 1)]
    return {
        "F": stage.F.ticks,
        "B": stage.B.ticks,
        "W": stage.W.ticks,
        "transfer": sum(hops) / len(hops),
    }


def calibrate() -> float:
    """The memory efficiency at which F + B + W of one profile is what was measured, by bisection."""
    row = next(row for row in PUBLISHED if row["id"] == CALIBRATED_ON)
    measured = sum(row[f"{kind}_us"] for kind in KINDS)
    low, high = 0.1, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        predicted = middle_us(row, replace(STATED, memory=middle))
        low, high = (middle, high) if sum(predicted[k] for k in KINDS) > measured else (low, middle)
    return (low + high) / 2


def times() -> pd.DataFrame:
    rows = []
    for row in PUBLISHED:
        stated = with_total(middle_us(row, STATED))
        uncalibrated = with_total(middle_us(row, replace(STATED, memory=STATED.matmul)))
        published = with_total({kind: row[f"{kind}_us"] for kind in (*KINDS, "transfer")})
        for kind, measured in published.items():
            rows.append(
                {
                    "profile": row["id"],
                    "pass": kind,
                    "published_us": measured,
                    "predicted_us": round(stated[kind]),
                    "error": round(stated[kind] / measured - 1, 4),
                    "error_uncalibrated": round(uncalibrated[kind] / measured - 1, 4),
                    "calibrated_on": row["id"] == CALIBRATED_ON and kind != "transfer",
                }
            )
    return pd.DataFrame(rows)


def with_total(times_us: dict[str, float]) -> dict[str, float]:
    return {**times_us, "F+B+W": sum(times_us[kind] for kind in KINDS)}


def bubbles() -> pd.DataFrame:
    """What the errors of the times mean for bubbles of equal stages."""
    rows = []
    for row, published in zip(PUBLISHED, BUBBLES, strict=True):
        for baseline in ("1f1b", "zb-h1"):
            times_us = middle_us(row, STATED)
            predicted = bubble(row, times_us, baseline)
            measured_transfer = bubble(row, {**times_us, "transfer": row["transfer_us"]}, baseline)
            value = published[baseline.upper()]
            rows.append(
                {
                    "profile": row["id"],
                    "baseline": baseline,
                    "published": value,
                    "predicted": round(predicted, 4),
                    "difference": round(predicted - value, 4),
                    "difference_with_published_transfer": round(measured_transfer - value, 4),
                }
            )
    return pd.DataFrame(rows)


def bubble(row: dict, times_us: dict[str, float], baseline: str) -> float:
    """The bubble of a baseline on equal stages of these times."""
    f, b, w = (OpCost(ticks=round(times_us[kind])) for kind in KINDS)
    stage = StageCosts(F=f, B=b, W=w, BW=OpCost(ticks=b.ticks + w.ticks))
    problem = uniform_problem(
        row["p"],
        row["m"],
        stage,
        transfer_ticks=round(times_us["transfer"]),
        objective=Objective.RANK_SPAN,
    )
    return measure(schedule_orders(problem, baseline_orders(baseline, problem))).bubble_ratio


def transfer_line() -> tuple[float, float]:
    """The published transfers of the twelve profiles as a start-up time and a bandwidth, by least squares."""
    sizes = [2 * row["seq"] * row["microbatch_size"] * row["hidden"] for row in PUBLISHED]
    slope, start_us = np.polyfit(sizes, [row["transfer_us"] for row in PUBLISHED], 1)
    return start_us, 1e-3 / slope


def memory() -> pd.DataFrame:
    rows = []

    def add(what: str, unit: str, published: float, predicted: float) -> None:
        error = round(predicted / published - 1, 4)
        rows.append(
            {
                "what": what,
                "unit": unit,
                "published": published,
                "predicted": round(predicted, 4),
                "error": error,
            }
        )

    for row in PUBLISHED[::3]:
        plan = plan_of(row, STATED)
        middle = plan.problem.stages[row["p"] // 2]
        per = (
            row["microbatch_size"]
            * row["seq"]
            * sum(layer.is_block for layer in plan.stage_layers[row["p"] // 2])
        )
        steps = row["memory_steps_authors"]
        for name, value in (
            ("F_alloc", middle.F.alloc_bytes),
            ("B_free", middle.B.free_bytes - middle.B.alloc_bytes),
            ("W_free", middle.W.free_bytes),
        ):
            add(f"{row['model']} {name} per token and block", "bytes", steps[name], value / per)
        for gradient_bytes in (2, 4):
            changed = replace(plan.training, gradient_bytes=gradient_bytes)
            again = make_plan(plan.model, changed, plan.pipeline, plan.cluster)
            peak = max(rank.one_f_one_b_bytes for rank in memory_by_rank(again))
            label = f"{row['model']} 1F1B peak, gradients of {gradient_bytes} bytes"
            add(label, "GB", PEAK_1F1B_GB[row["model"]], peak / 1e9)
    stage = plan_of(next(row for row in PUBLISHED if row["id"] == CALIBRATED_ON), STATED).problem.stages[4]
    add("6.2B middle stage, F_alloc", "MB", UNIFORM_MB["F_alloc"], stage.F.alloc_bytes / 1e6)
    add("6.2B middle stage, B_free", "MB", UNIFORM_MB["B_free"], stage.B.free_bytes / 1e6)
    add("6.2B middle stage, W_free", "MB", UNIFORM_MB["W_free"], stage.W.free_bytes / 1e6)
    for name, (hidden, heads, sequence, published) in RECOMPUTE_SAVINGS.items():
        add(f"{name}, saved by selective recomputation", "share", published, saved(hidden, heads, sequence))
    return pd.DataFrame(rows)


def saved(hidden: int, heads: int, sequence: int) -> float:
    """The share of a block's activations that selective recomputation saves."""
    model = describe_model(
        Style.GPT, layers=1, hidden=hidden, heads=heads, vocabulary=VOCABULARY, positions=sequence
    )
    kept = []
    for recompute in (Recompute.NONE, Recompute.SELECTIVE):
        training = Training(
            microbatch_size=1, sequence_length=sequence, attention=AttentionKernel.CORE, recompute=recompute
        )
        kept.append(model_layers(model, training)[1].kept_bytes)
    return 1 - kept[1] / kept[0]


def parameters() -> pd.DataFrame:
    rows = []
    for name, published in PARAMETERS.items():
        counted = read_model(str(ROOT / "tests" / "configs" / f"{name}.json")).parameters
        rows.append(
            {"model": name, "published": published, "counted": counted, "difference": counted - published}
        )
    return pd.DataFrame(rows)


def example() -> pd.DataFrame:
    """The README's example: ``model``, then ``synthesize``, as typed; 1F1B beside what was found."""
    with tempfile.TemporaryDirectory() as folder:
        problem = f"{folder}/problem.json"
        pipesynth("model", str(ROOT / "tests/configs/llama-3-70b.json"), *EXAMPLE, "-o", problem)
        found = json.loads(
            pipesynth("synthesize", problem, *EXAMPLE_SEARCH, "--json", "-o", f"{folder}/schedule.json")
        )
    rows = {"synthesized": found["metrics"], "1f1b": found["baseline_1f1b"]}
    return pd.DataFrame(
        {
            "schedule": name,
            "makespan_us": row["makespan"],
            "lower_bound_us": found["lower_bound"] if name == "synthesized" else None,
            "bubble_ratio": round(row["bubble_ratio"], 4),
            "peak_gib": round(max(row["peak_memory_bytes"]) / 2**30, 2),
            "limit_gib": found["memory_limit_bytes"][0] / 2**30,
            "peaks_bytes": " ".join(map(str, row["peak_memory_bytes"])),
        }
        for name, row in rows.items()
    ).astype({"lower_bound_us": "Int64"})


def pipesynth(*words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "synth.cli", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def main() -> None:
    print(f"memory efficiency that fits {CALIBRATED_ON}: {calibrate():.4f}; stated: {STATED.memory}")
    start_us, gb_per_s = transfer_line()
    print(f"published transfers: {start_us:.0f} us and {gb_per_s:.0f} GB/s beyond, least squares")
    tables = {
        "times": times(),
        "memory": memory(),
        "parameters": parameters(),
        "bubbles": bubbles(),
        "example": example(),
    }
    for name, table in tables.items():
        table.to_csv(HERE / f"{name}.csv", index=False)
        print(table.to_string(index=False))
    print(tables["times"].groupby("pass")["error"].agg(["min", "max"]))
    for column in ("difference", "difference_with_published_transfer"):
        print(tables["bubbles"].groupby("baseline")[column].agg(["min", "max"]))


if __name__ == "__main__":
    main()
