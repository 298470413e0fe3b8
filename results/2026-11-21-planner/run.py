"""What the planner chooses for published settings, beside what was published.

    python results/2026-11-21-planner/run.py [PART ...] [--workers N]

Writes a CSV for each part, rows as they are found, and about.json; prints the README's tables (tables.py).
About five minutes on two quiet cores: most of it searches by the clock, SEARCH_S or twice that for each plan.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tables
from config import (
    ADDED,
    FAMILIES,
    GPT_SETTINGS,
    GPT_SIZES,
    GPT_TRAINING,
    SPEED,
    Hybrid,
    gpt,
    hybrids,
    v100s,
)

from costmodels.architectures import read_model
from costmodels.layers import model_layers
from costmodels.planning import Pipeline, make_plan
from costmodels.plans.fleet import Fleet, read_fleet
from costmodels.plans.recipe import TICK_SECONDS, PlanRecipe
from costmodels.plans.shapes import Shape, Space
from costmodels.plans.stashing import stashing_plan
from costmodels.roofline import transfer_seconds
from costmodels.training import Recompute, Training
from synth.drafts import Recipe, WeightPolicy
from synth.errors import InfeasibleError
from synth.placement import PlacementKind
from synth.planner.executors import SerialExecutor
from synth.planner.judging import Verdict
from synth.planner.steps import flushed_step_ticks
from synth.planner.sweeping import Sweep, sweep
from synth.search.synthesizer import synthesize

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "tests" / "configs"
CONFIG = CONFIGS / "llama-3-70b.json"
FLUSH, BUFFERED = (WeightPolicy.FLUSH,), (WeightPolicy.DOUBLE_BUFFERED,)
SEARCH_S = 15.0


class Table:
    """A CSV that is whole after every row."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self._path, self._columns = HERE / name, columns
        self._rows: list[dict[str, object]] = []

    def add(self, **row: object) -> None:
        """Add a row, and say it."""
        self._rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        with self._path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)


def best(recipe: Recipe, schedules: Sequence[str]) -> Verdict | None:
    """The best plan with one of these schedules."""
    ranking = sweep(recipe, SerialExecutor(), keep=1, schedules=schedules).ranking()
    return ranking[0] if ranking else None


def described(verdict: Verdict | None, batch: int) -> dict[str, object]:
    """The cells of a plan."""
    if verdict is None or verdict.best is None or verdict.step_ticks is None:
        return {"plan": "does not fit"}
    step_s = verdict.step_ticks * TICK_SECONDS
    return {
        "plan": verdict.key,
        "schedule": verdict.best.schedule,
        "step_s": round(step_s, 6),
        "sequences_per_s": round(batch / step_s, 3),
        "peak_gib": round(verdict.best.peak_bytes / 2**30, 2),
    }


PLAN = ("plan", "schedule", "step_s", "sequences_per_s", "peak_gib")


def run_gpt(workers: int) -> None:
    """2BW, PipeDream-Flush, GPipe and tensor parallelism alone."""
    table = Table("gpt.csv", ("size", "gpus", "batch", "kind", *PLAN))
    settings = [(size, *setting, kind) for size in GPT_SIZES for setting in GPT_SETTINGS for kind in KINDS]
    for setting, cells in _spread(_gpt_row, settings, workers):
        size, gpus, batch, kind = setting
        table.add(size=size, gpus=gpus, batch=batch, kind=kind, **cells)


KINDS = ("2bw", "flush", "gpipe", "tensor", "tensor in nodes")
"""What is planned; as in 2BW's paper, plans of pipelines have no tensor degree. Tensor parallelism alone
spans as many GPUs as it can, or the eight of a node with replicas over nodes."""


def _gpt_row(size: str, gpus: int, batch: int, kind: str) -> dict[str, object]:
    fleet = v100s(gpus)
    match kind:
        case "2bw":
            recipe, schedules = _recipe(size, fleet, batch, weights=BUFFERED, tp=(1,)), ("pipedream-2bw",)
        case "flush":
            recipe, schedules = _recipe(size, fleet, batch, weights=FLUSH, tp=(1,)), ("1f1b",)
        case "gpipe":
            recipe, schedules = _recipe(size, fleet, batch, weights=FLUSH, tp=(1,)), ("gpipe",)
        case "tensor in nodes":
            recipe = _recipe(size, fleet, batch, weights=FLUSH, pp=(1,), tp=(8,))
            schedules = ("1f1b",)
        case _:
            return _tensor_only(size, fleet, batch)
    return described(best(recipe, schedules), batch)


def run_added(workers: int) -> None:
    """What synthesis adds to PipeDream-Flush's plans at the same memory."""
    table = Table(
        "added.csv",
        ("size", "gpus", "batch", "plan", "1f1b_s", "synthesized_s", "saved", "at_least_s", "limit_gib"),
    )
    settings = [(size, gpus, batch) for size in GPT_SIZES for gpus, batch in ADDED]
    for (size, gpus, batch), cells in _spread(_added, settings, workers):
        table.add(size=size, gpus=gpus, batch=batch, **cells)


def _spread(
    call: Callable[..., dict[str, object]], settings: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[tuple[Any, ...], dict[str, object]]]:
    """Every setting with what the call gives for it, worked out in processes, in order."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(call, *setting) for setting in settings]
        for setting, future in zip(settings, futures, strict=True):
            yield setting, future.result()


def _recipe(size: str, fleet: Fleet, batch: int, **fixed: object) -> PlanRecipe:
    return PlanRecipe(gpt(size), GPT_TRAINING, fleet, Space(**{"batch": batch, "chunks": (1,), **fixed}))


def _tensor_only(size: str, fleet: Fleet, batch: int) -> dict[str, object]:
    """No pipeline: tensor parallelism over all GPUs, over 32 and two replicas where there are 64."""
    tp = min(fleet.num_gpus, 32)
    dp, ways = fleet.num_gpus // tp, []
    for recompute in Recompute:
        for microbatch in (1, 2, 4, 8, 16, 32):
            training = replace(
                GPT_TRAINING, microbatch_size=microbatch, tensor_parallel=tp, recompute=recompute
            )
            pipeline = Pipeline(num_ranks=1, num_microbatches=batch // dp // microbatch)
            plan = make_plan(gpt(size), training, pipeline, fleet.cluster)
            if plan.cut_fits:
                layers = model_layers(gpt(size), training)
                sums = 2 * sum(layer.parameters for layer in layers)
                link = fleet.link(8)
                summed_s = 2 * (dp - 1) * transfer_seconds(sums // dp, link, fleet.cluster.efficiencies)
                ways.append((plan.problem.work_ticks * TICK_SECONDS + summed_s, microbatch, recompute))
    step_s, microbatch, recompute = min(ways)
    return {
        "plan": f"pp=1 dp={dp} tp={tp} microbatch={microbatch} recompute={recompute}",
        "step_s": round(step_s, 6),
        "sequences_per_s": round(batch / step_s, 3),
    }


def _added(size: str, gpus: int, batch: int) -> dict[str, object]:
    """Synthesize at the memory of the best plan's 1F1B, with one stage per rank and with a V of two."""
    recipe = _recipe(size, v100s(gpus), batch, weights=FLUSH, tp=(1,))
    verdict = best(recipe, ("1f1b",))
    assert verdict is not None
    assert verdict.step_ticks is not None
    assert verdict.best is not None
    limit = verdict.best.peak_bytes
    two = replace(Shape.of(verdict.key), chunks=2, placement=PlacementKind.V)
    results = []
    for draft in (recipe.draft(verdict.key), recipe.draft(two.key)):
        try:
            result = synthesize(draft.problem.with_memory_limit(limit), SEARCH_S, 1, 0)
        except InfeasibleError:
            continue
        step = flushed_step_ticks(result.schedule, draft.all_reduce_ticks)
        results.append((step, result.lower_bound))
    step = min(results)[0]
    return {
        "plan": verdict.key,
        "1f1b_s": round(verdict.step_ticks * TICK_SECONDS, 6),
        "synthesized_s": round(step * TICK_SECONDS, 6),
        "saved": round(1 - step / verdict.step_ticks, 4),
        "at_least_s": round(min(bound for _, bound in results) * TICK_SECONDS, 6),
        "limit_gib": round(limit / 2**30, 2),
    }


def run_pipedream(_: int) -> None:
    """PipeDream's own planner on the same models: its stages, its period, and what stashing would need."""
    table = Table(
        "pipedream.csv",
        (
            "size",
            "gpus",
            "microbatch",
            "recompute",
            "stages",
            "sequences_per_s",
            "versions",
            "peak_gib",
            "fits",
        ),
    )
    for size in GPT_SIZES:
        for gpus in (8, 64):
            fleet = v100s(gpus)
            for recompute in (Recompute.NONE, Recompute.FULL):
                _pipedream(table, size, fleet, replace(GPT_TRAINING, microbatch_size=4, recompute=recompute))


def _pipedream(table: Table, size: str, fleet: Fleet, training: Training) -> None:
    found = stashing_plan(gpt(size), training, fleet)
    table.add(
        size=size,
        gpus=fleet.num_gpus,
        microbatch=training.microbatch_size,
        recompute=training.recompute,
        stages=" ".join(f"{s.last - s.first}x{s.replicas}" for s in found.plan.stages),
        sequences_per_s=round(found.sequences_per_s, 3),
        versions=max(found.plan.versions()),
        peak_gib=round(max(found.bytes_by_stage) / 2**30, 2),
        fits=found.fits,
    )


def run_hybrid(workers: int) -> None:
    """The best plan with each family of schedules; then what the synthesizer adds to the best of all."""
    _run_hybrid("hybrid.csv", range(4), workers)


def run_bound(workers: int) -> None:
    """The same where memory or transfers bind."""
    _run_hybrid("bound.csv", range(4, 7), workers)


def run_shared(workers: int) -> None:
    """The same where memory binds and replicas share the optimizer's state."""
    _run_hybrid("shared.csv", range(7, 9), workers)


def _run_hybrid(name: str, numbers: Sequence[int], workers: int) -> None:
    table = Table(name, ("model", "sequence", "batch", "family", *PLAN, "at_least_s"))
    settings = [(number, family) for number in numbers for family in FAMILIES]
    plans: dict[int, set[str]] = {number: set() for number in numbers}
    for (number, family), cells in _spread(_hybrid_row, settings, workers):
        table.add(**_named(number), family=family, **cells)
        if "schedule" in cells:
            plans[number].add(str(cells["plan"]))
    searches = [(number, key) for number in numbers for key in sorted(plans[number])]
    found: dict[int, list[dict[str, object]]] = {number: [] for number in numbers}
    for (number, _), cells in _spread(_hybrid_synthesized, searches, workers):
        found[number].append(cells)
    for number in numbers:
        if found[number]:
            fastest = min(found[number], key=lambda cells: float(str(cells["step_s"])))
            table.add(**_named(number), family="synthesized", **fastest)


def _hybrid_row(number: int, family: str) -> dict[str, object]:
    setting = hybrids(str(CONFIG))[number]
    verdict = best(_hybrid_recipe(setting), FAMILIES[family])
    least = {} if verdict is None else {"at_least_s": round(verdict.least_ticks * TICK_SECONDS, 6)}
    return described(verdict, setting.batch) | least


def _hybrid_recipe(setting: Hybrid) -> PlanRecipe:
    training = Training(microbatch_size=1, sequence_length=setting.sequence_length)
    space = Space(
        batch=setting.batch,
        weights=FLUSH,
        tp=(4, 8),
        microbatch=(1, 2),
        chunks=(1, 2),
        recompute=(Recompute.NONE, Recompute.FULL),
    )
    return PlanRecipe(
        setting.model,
        training,
        setting.fleet,
        space,
        sequence_parallel=True,
        zero_stage=setting.zero_stage,
    )


def _named(number: int) -> dict[str, object]:
    setting = hybrids(str(CONFIG))[number]
    return {"model": setting.name, "sequence": setting.sequence_length, "batch": setting.batch}


def _hybrid_synthesized(number: int, key: str) -> dict[str, object]:
    """Search the schedule of one plan within the ranks' limits."""
    setting = hybrids(str(CONFIG))[number]
    draft = _hybrid_recipe(setting).draft(key)
    result = synthesize(draft.problem, 2 * SEARCH_S, 1, 0)
    step_s = flushed_step_ticks(result.schedule, draft.all_reduce_ticks) * TICK_SECONDS
    return {
        "plan": key,
        "schedule": "synthesized",
        "step_s": round(step_s, 6),
        "sequences_per_s": round(setting.batch / step_s, 3),
        "peak_gib": round(max(result.metrics.peak_memory_bytes) / 2**30, 2),
        "at_least_s": round(result.lower_bound * TICK_SECONDS, 6),
    }


def run_speed(_: int) -> None:
    """How many configurations are judged in how many seconds, in one process."""
    table = Table(
        "speed.csv",
        ("setting", "configurations", "too_large", "laid_out", "schedules", "cpu_s", "bounds_cpu_s"),
    )
    sweep(_recipe("2.2B", v100s(8), 8), SerialExecutor(), keep=1)  # compiles what is compiled
    for config, fleet, batch in SPEED:
        recipe = PlanRecipe(
            read_model(str(CONFIGS / f"{config}.json")),
            Training(microbatch_size=1, sequence_length=4096),
            read_fleet(fleet),
            Space(batch=batch, recompute=(Recompute.NONE, Recompute.FULL)),
            sequence_parallel=True,
        )
        begun = time.process_time()
        outlines = [recipe.outline(key) for key in recipe.keys]
        bounds_s = time.process_time() - begun
        begun = time.process_time()
        swept: Sweep = sweep(recipe, SerialExecutor(), keep=10)
        table.add(
            setting=f"{config} on {fleet}, batch {batch}",
            configurations=len(outlines),
            too_large=sum(bool(outline.refusal) for outline in outlines),
            laid_out=len(swept.verdicts),
            schedules=sum(len(verdict.rows) for verdict in swept.verdicts.values()),
            cpu_s=ceil(10 * (time.process_time() - begun)) / 10,
            bounds_cpu_s=round(bounds_s, 2),
        )


def about() -> dict[str, object]:
    """Versions, machine and date."""
    return {
        "pipesynth": version("pipesynth"),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
        ).stdout.strip(),
        "ortools": version("ortools"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


PARTS = {
    "gpt": run_gpt,
    "added": run_added,
    "pipedream": run_pipedream,
    "hybrid": run_hybrid,
    "bound": run_bound,
    "shared": run_shared,
    "speed": run_speed,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    for part in options.parts or PARTS:
        PARTS[part](options.workers)
    (HERE / "about.json").write_text(json.dumps(about(), indent=1) + "\n", encoding="utf-8")
    print()
    tables.main()
