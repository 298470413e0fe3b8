"""Double-buffered and stashed weights beside a flush: what they do to the loss, and to the time of a step.

Needs ``pip install -e '.[test]'``; about ten minutes on two cores. What an earlier run has written is kept:
delete ``losses.csv`` or a ``speed-*.csv`` to measure it again. Prints the README's tables in Markdown.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import config
import torch
from config import Speed
from torch import Tensor, distributed, multiprocessing, nn
from torch._subclasses.fake_tensor import FakeTensor

from runtime.deferred import defer_weights
from runtime.executor import PipelineRunner
from runtime.llama import LlamaConfig, build_stage, next_token_loss
from runtime.shapes import TensorSpec
from runtime.text import synthetic_text
from runtime.timeline import gather_timeline
from runtime.unflushed import UnflushedRunner
from runtime.versions import WeightPolicy
from runtime.world import World, join_at
from synth import OpCost, Problem, Schedule, StageCosts, baseline_orders, schedule_orders, uniform_problem
from synth.document import read_timeline, write_timeline
from synth.measured_costs import measured_problem

FOLDER = Path(__file__).parent
GUESS = StageCosts(F=OpCost(ticks=1000, alloc_bytes=1), BW=OpCost(ticks=2000, free_bytes=1))
Row = dict[str, object]


def main() -> None:
    """Both studies, their tables and the picture."""
    torch.set_num_threads(1)
    losses = FOLDER / "losses.csv"
    if not losses.exists():
        write(losses, learn())
    rows = list(csv.DictReader(losses.open()))
    draw(rows)
    learned = [summarise_losses(rows, name) for name in LINES]
    write(FOLDER / "loss-summary.csv", learned)
    for study in config.SPEEDS:
        if not speed_path(study).exists():
            write(speed_path(study), list(measure_speed(study)))
    measured = [row for study in config.SPEEDS for row in summarise(study)]
    write(FOLDER / "summary.csv", measured)
    (FOLDER / "versions.json").write_text(json.dumps(provenance(), indent=1) + "\n")
    print(markdown([*learned[0]], [[str(cell) for cell in row.values()] for row in learned]))
    print(markdown(SPEED_HEADINGS, speed_rows(measured)))


# --- What becomes of the loss -----------------------------------------------------------------------------


def learn() -> list[Row]:
    """The loss of every step: without a pipeline, and in it by each policy."""
    models = [replace(config.LEARNING_MODEL, seed=seed) for seed in range(config.LEARNING["seeds"])]
    found = {("plain", model.seed): plain_losses(model) for model in models}
    for name, seed, losses in in_processes(config.LEARNING["ranks"], learning_rank, models):
        found[name, seed] = losses
    return [
        {"seed": seed, "weights": name, "step": step, "loss": loss}
        for (name, seed), losses in found.items()
        for step, loss in enumerate(losses)
    ]


def plain_losses(model: LlamaConfig) -> list[float]:
    """An ordinary training loop on the whole model."""
    c = config.LEARNING
    stages = [build_stage(model, s, c["ranks"]) for s in range(c["ranks"])]
    optimizer = torch.optim.AdamW([p for s in stages for p in s.parameters()], lr=config.LEARNING_RATE)
    losses = []
    for step in range(c["steps"]):
        batch, target = text(model, step, c["rows"], c["microbatches"], c["positions"])
        optimizer.zero_grad()
        loss = next_token_loss(nn.Sequential(*stages)(batch), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learning_rank(world: World, models: list[LlamaConfig]) -> list[tuple[str, int, list[float]]]:
    """One rank of all runs; the losses where the last stage is."""
    runs = [(policy, model) for model in models for policy in WeightPolicy]
    found = [(policy.value, model.seed, learn_once(world, model, policy)) for policy, model in runs]
    return found if world.rank == world.num_ranks - 1 else []


def learn_once(world: World, model: LlamaConfig, policy: WeightPolicy) -> list[float]:
    """One rank of a run."""
    c = config.LEARNING
    runner = make_runner(world, model, c["microbatches"], c["rows"], c["positions"])
    runner.begin(policy, c["steps"])
    losses = []
    for step in range(c["steps"]):
        loss = runner.step(*text(model, step, c["rows"], c["microbatches"], c["positions"]))
        losses += [] if loss is None else [loss.item()]
    runner.close()
    return losses


# --- What becomes of the time -----------------------------------------------------------------------------


def speed_path(study: Speed) -> Path:
    """Where its rows are."""
    return FOLDER / f"speed-{study.name}.csv"


def measure_speed(study: Speed) -> Iterator[Row]:
    """Seconds per step of each policy, round by round, beside what a plan on measured costs says."""
    timeline, measured = in_processes(study.ranks, speed_rank, study)
    costs = measured_problem(read_timeline(timeline))
    planned = {m: planned_s(costs, m, study.batches) for m in study.microbatches}
    for m, round_, policy, seconds, load in measured:
        yield {
            "microbatches": m,
            "round": round_,
            "weights": policy,
            "seconds_per_step": round(seconds, 5),
            "planned_seconds_per_step": round(planned[m][policy], 5),
            "load": load,
        }


def planned_s(costs: Problem, m: int, batches: int) -> dict[str, float]:
    """A step by plan: one batch flushed, and a share of as many without a flush as are run in a row."""

    def makespan_s(microbatches: int) -> float:
        problem = replace(costs, num_microbatches=microbatches)
        schedule = schedule_orders(problem, baseline_orders("1f1b", problem))
        return max(rank[-1].end for rank in schedule.ranks) * problem.tick_seconds

    unflushed = makespan_s(batches * m) / batches
    return {"flush": makespan_s(m), "2bw": unflushed, "stash": unflushed}


def speed_rank(world: World, study: Speed) -> list[object]:
    """A timeline document and all rows, on rank 0."""
    timeline = profile(world, study)
    rows = [row for m in study.microbatches for row in speed_of(world, study, m)]
    return [timeline, rows] if world.rank == 0 else []


def profile(world: World, study: Speed) -> str | None:
    """The timeline document of a step of 1F1B, on rank 0: what ops and transfers take."""
    m = max(study.microbatches)
    like = TensorSpec((study.rows, study.positions), torch.int64)
    runner = PipelineRunner(
        plan(study.ranks, m, batches=1),
        stages_of(world, study.model, study.forward_s),
        world=world,
        microbatch=like,
        loss=next_token_loss,
    )
    for step in range(3):
        runner.step(*text(study.model, step, study.rows, m, study.positions))
    timeline = gather_timeline(runner, "results/2026-11-21-double-buffering")
    runner.close()
    return None if timeline is None else write_timeline(timeline)


def speed_of(world: World, study: Speed, m: int) -> list[tuple[int, int, str, float, float]]:
    """Policies taking turns in the same processes, from when all begin until all have ended."""
    runner = make_runner(world, study.model, m, study.rows, study.positions, study.forward_s)
    batch = text(study.model, 0, study.rows, m, study.positions)
    found = []
    for round_ in range(-1, study.rounds):
        for policy in WeightPolicy:
            distributed.barrier()
            began = time.monotonic()
            runner.begin(policy, study.batches)
            for _ in range(study.batches):
                runner.step(*batch)
            distributed.barrier()
            took = (time.monotonic() - began) / study.batches
            if round_ >= 0:
                found.append((m, round_, policy.value, took, round(os.getloadavg()[0], 1)))
    runner.close()
    return found


class Wait(torch.autograd.Function):
    """Takes a time without computing, as work on a device of its own does: forward once, backward twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        if not isinstance(x, FakeTensor):  # the runner asks for shapes first
            time.sleep(seconds)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        time.sleep(2 * ctx.seconds)
        return grad, None


class Waiting(nn.Module):
    """A layer that only takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        waited: Tensor = Wait.apply(x, self.seconds)
        return waited


# --- Both --------------------------------------------------------------------------------------------------


def plan(ranks: int, m: int, batches: int) -> Schedule:
    """The 1F1B order through some batches."""
    problem = uniform_problem(ranks, batches * m, GUESS)
    return schedule_orders(problem, baseline_orders("1f1b", problem))


def stages_of(world: World, model: LlamaConfig, forward_s: float) -> dict[int, nn.Module]:
    """This rank's stage."""
    layers = defer_weights(build_stage(model, world.rank, world.num_ranks))
    return {world.rank: nn.Sequential(layers, Waiting(forward_s)) if forward_s else layers}


def make_runner(
    world: World, model: LlamaConfig, m: int, rows: int, positions: int, forward_s: float = 0.0
) -> UnflushedRunner:
    """A runner that trains with AdamW."""
    modules = stages_of(world, model, forward_s)
    return UnflushedRunner(
        plan(world.num_ranks, m, batches=2),
        modules,
        world=world,
        microbatch=TensorSpec((rows, positions), torch.int64),
        loss=next_token_loss,
        optimizers={
            s: torch.optim.AdamW(module.parameters(), lr=config.LEARNING_RATE)
            for s, module in modules.items()
        },
        batch_microbatches=m,
    )


def text(model: LlamaConfig, step: int, rows: int, m: int, positions: int) -> tuple[Tensor, Tensor]:
    """A batch and its targets."""
    tokens = synthetic_text(
        seed=model.seed, step=step, rows=rows * m, positions=positions, vocabulary=model.vocabulary
    )
    return tokens[:, :-1], tokens[:, 1:]


def in_processes(ranks: int, function: Callable, *arguments: object) -> list:
    """Run a function on all ranks, in processes of their own; the answer of the one that has any."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, (folder, ranks, function, arguments), nprocs=ranks)
        answers = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("answer-*"))]
    return next(answer for answer in answers if answer)


def rank_main(rank: int, folder: str, ranks: int, function: Callable, arguments: Iterable[object]) -> None:
    """One process."""
    torch.set_num_threads(1)
    world = join_at(distributed.FileStore(f"{folder}/store", ranks), rank, ranks, ranks)
    answer = function(world, *arguments)
    Path(folder, f"answer-{rank}").write_text(json.dumps(answer))
    distributed.destroy_process_group()


def write(path: Path, rows: list[Row]) -> None:
    """A table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


LINES = {
    "plain": ("tab:gray", "no pipeline"),
    "flush": ("black", "flush"),
    "2bw": ("tab:orange", "2bw: double-buffered"),
    "stash": ("tab:blue", "stash: an update per microbatch, four per step"),
}


def smoothed(rows: list[dict[str, str]], name: str, steps: int) -> list[float]:
    """The mean loss over seeds and so many last steps, by step."""
    by_step = defaultdict(list)
    for row in rows:
        if row["weights"] == name:
            by_step[int(row["step"])].append(float(row["loss"]))
    means = [statistics.mean(by_step[step]) for step in sorted(by_step)]
    return [statistics.mean(means[max(0, n + 1 - steps) : n + 1]) for n in range(len(means))]


def summarise_losses(rows: list[dict[str, str]], name: str) -> Row:
    """After how many steps the mean of ten is down to a loss, the mean of the last 50, how far off plain."""
    reached = smoothed(rows, name, 10)
    steps = {
        f"steps_to_{level}": next((n for n, loss in enumerate(reached) if loss <= level), "")
        for level in (2.5, 2.0, 1.6, 1.5)
    }
    pairs = zip(smoothed(rows, name, 1), smoothed(rows, "plain", 1), strict=True)
    apart = max(abs(ours - plain) for ours, plain in pairs)
    last = smoothed(rows, name, 50)[-1]
    return {"weights": name, **steps, "last_50": f"{last:.4f}", "furthest_from_plain": f"{apart:.1e}"}


def draw(rows: list[dict[str, str]]) -> None:
    """Loss against steps, the mean over seeds and the last five steps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, (colour, label) in LINES.items():
        style = {"linewidth": 5, "alpha": 0.5} if name == "plain" else {"linewidth": 1.5}
        axes.plot(smoothed(rows, name, 5), color=colour, label=label, **style)
    axes.axhline(1.386, color="black", linewidth=0.8, linestyle=":")
    axes.text(1, 1.38, "the best possible", va="top", fontsize=8)
    axes.set(xlabel="step", ylabel="loss", xlim=(0, None), ylim=(1.25, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(FOLDER / "loss.png", dpi=150)


def summarise(study: Speed) -> Iterator[Row]:
    """How many times the steps of a flush each policy does: median and quartiles over rounds, and by plan."""
    rows = list(csv.DictReader(speed_path(study).open()))
    for m in study.microbatches:
        own = [row for row in rows if int(row["microbatches"]) == m]
        took = {(row["round"], row["weights"]): float(row["seconds_per_step"]) for row in own}
        planned = {row["weights"]: float(row["planned_seconds_per_step"]) for row in own}
        flush = statistics.median(t for (_, weights), t in took.items() if weights == "flush")
        for name in ("2bw", "stash"):
            ratios = [took[r, "flush"] / took[r, name] for r in sorted({row["round"] for row in own})]
            low, median, high = statistics.quantiles(ratios, n=4)
            yield {
                "stages": study.name,
                "ranks": study.ranks,
                "microbatches": m,
                "weights": name,
                "flush_s": f"{flush:.3f}",
                "seconds": f"{statistics.median(t for (_, w), t in took.items() if w == name):.3f}",
                "steps_per_flushed_step": f"{median:.3f}",
                "quartile_1": f"{low:.3f}",
                "quartile_3": f"{high:.3f}",
                "by_plan": f"{planned['flush'] / planned[name]:.3f}",
                "load": "{} to {}".format(*(f(float(row["load"]) for row in own) for f in (min, max))),
            }


SPEED_HEADINGS = ["stages", "ranks", "microbatches", "flush s", "2BW", "stash", "plan", "load"]


def speed_rows(measured: list[Row]) -> Iterator[list[str]]:
    """A line for each setting: steps in the time of a flushed one, the quartiles, the plan, the load."""
    for two, stash in zip(measured[::2], measured[1::2], strict=True):
        ratios = [
            f"{float(str(row['steps_per_flushed_step'])):.2f} "
            f"({float(str(row['quartile_1'])):.2f}, {float(str(row['quartile_3'])):.2f})"
            for row in (two, stash)
        ]
        given = [str(two[name]) for name in ("stages", "ranks", "microbatches", "flush_s")]
        yield [*given, *ratios, f"{float(str(two['by_plan'])):.2f}", str(two["load"])]


def markdown(headings: list[str], rows: Iterable[list[str]]) -> str:
    """A table for the README."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def provenance() -> Row:
    """Versions, machine and date."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
