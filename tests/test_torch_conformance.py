"""PyTorch executes what is exported: its loader takes every CSV, and its runtime's gradients are right.

The processes, ``torch_processes.py``, run the exported modules. Gradients are compared in double precision
with a step that runs microbatch after microbatch in one process; only the order of sums may differ, hence the
tolerance.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from builders import DIVIDED, EITHER, UNDIVIDED
from hypothesis import given, settings
from strategies import problems_with_orders, random_orders
from torch.distributed.pipelining import schedules as torch_schedules
from torch_processes import reference

from synth.baselines import baseline_orders
from synth.export.torch_csv import from_torch_csv, schedule_from_torch_csv, to_torch_csv
from synth.export.torch_files import torch_csv_files
from synth.export.trainers import schedule_name
from synth.placement import Placement, PlacementKind, place
from synth.problem import Problem, uniform_problem, uniform_transfers
from synth.schedule import Schedule
from synth.search.synthesizer import synthesize
from synth.timing import schedule_orders
from synth.verify import verify_schedule

TOLERANCE = 1e-12
"""Largest difference of a loss or a gradient; their size is about 1, in double precision."""

PATIENCE_S = 300
"""For all cases of a number of processes together; they take about ten, most of it to import PyTorch."""


OF_SHARDING = {"UNSHARD", "RESHARD", "REDUCE_GRAD", "WAIT_REDUCE_GRAD"}
"""Actions that PyTorch's dry run does not know, though its own lowering adds them."""


def baseline(name, problem):
    return schedule_orders(problem, baseline_orders(name, problem))


def on_map(stage_to_rank, stage, num_microbatches):
    """A problem with these stages on these ranks."""
    num_ranks = max(stage_to_rank) + 1
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=num_microbatches,
        placement=Placement.explicit(stage_to_rank),
        stages=(stage,) * len(stage_to_rank),
        transfer_ticks=uniform_transfers(num_ranks, 1),
    )


def any_order(problem, seed):
    """Some order that does not deadlock, with the microbatches as they come, also on the last stage."""
    return schedule_orders(problem, random_orders(problem, random.Random(seed)))


def synthesized(num_ranks, num_microbatches):
    """The best schedule of a V found within a limit below what the published one holds."""
    problem = uniform_problem(
        num_ranks,
        num_microbatches,
        DIVIDED,
        transfer_ticks=1,
        chunks=2,
        kind=PlacementKind.V,
        memory_limit_bytes=6,
    )
    return synthesize(problem, time_limit=60, workers=1).schedule


def v(num_ranks, num_microbatches, stage=DIVIDED):
    return uniform_problem(num_ranks, num_microbatches, stage, chunks=2, kind=PlacementKind.V)


SCHEDULES = {
    "1f1b on 2": lambda: baseline("1f1b", uniform_problem(2, 4, UNDIVIDED)),
    "zb-h1 on 2": lambda: baseline("zb-h1", uniform_problem(2, 4, DIVIDED)),
    "v-half on 2": lambda: baseline("v-half", v(2, 5)),
    "synthesized V on 2": lambda: synthesized(2, 4),
    "contiguous stages on 2": lambda: any_order(on_map((0, 0, 1, 1), EITHER, 4), 1),
    "uneven free map on 3": lambda: any_order(on_map((0, 1, 2, 1, 0, 0), EITHER, 5), 2),
    "1f1b on 4": lambda: baseline("1f1b", uniform_problem(4, 6, UNDIVIDED)),
    "interleaved on 4": lambda: baseline("interleaved-1f1b", uniform_problem(4, 8, UNDIVIDED, chunks=2)),
    "zb-h1 on 4": lambda: baseline("zb-h1", uniform_problem(4, 6, DIVIDED)),
    "zb-h2 on 4": lambda: baseline("zb-h2", uniform_problem(4, 8, DIVIDED)),
    "v-half on 4": lambda: baseline("v-half", v(4, 6)),
    "permuted chain on 4": lambda: any_order(on_map((2, 0, 3, 1), EITHER, 5), 3),
    "any order of a V on 4": lambda: any_order(v(4, 5, EITHER), 4),
}


def stand_in_stage(problem):
    """What the loader asks of a stage, without a process group."""
    return SimpleNamespace(num_stages=problem.num_stages, group_size=problem.num_ranks, group_rank=0)


def loaded(schedule: Schedule, path: Path):
    """The runtime after PyTorch has loaded, checked and lowered the exported CSV."""
    path.write_text(to_torch_csv(schedule))
    problem = schedule.problem
    runtime = torch_schedules._PipelineScheduleRuntime([stand_in_stage(problem)], problem.num_microbatches)
    runtime._load_csv(str(path))
    return runtime


def check_loads(schedule: Schedule, path: Path):
    """PyTorch finds every stage on its rank, and its dry run with communication ends."""
    runtime = loaded(schedule, path)
    assert runtime.stage_index_to_group_rank == dict(enumerate(schedule.problem.stage_to_rank))
    lowered = {
        rank: [each for each in actions if each.computation_type.name not in OF_SHARDING]
        for rank, actions in runtime.pipeline_order_with_comms.items()
    }
    simulated = torch_schedules._simulate_comms_compute(
        lowered, runtime.stage_index_to_group_rank.__getitem__, schedule.problem.num_stages
    )
    done = {rank: [str(each) for each in row if each] for rank, row in simulated.items()}
    assert done == {rank: list(map(str, actions)) for rank, actions in lowered.items()}


@pytest.mark.parametrize("name", SCHEDULES)
def test_loader_takes_the_export(name, tmp_path):
    check_loads(SCHEDULES[name](), tmp_path / "orders.csv")


@given(drawn=problems_with_orders())
@settings(max_examples=60, deadline=None)
def test_loader_takes_any_order(drawn, tmp_path_factory):
    problem, orders = drawn
    check_loads(schedule_orders(problem, orders), tmp_path_factory.getbasetemp() / "drawn.csv")


TORCH_SCHEDULES = {
    "Interleaved1F1B": (PlacementKind.LOOP, 8),
    "LoopedBFS": (PlacementKind.LOOP, 8),
    "InterleavedZeroBubble": (PlacementKind.LOOP, 8),
    "ZBVZeroBubble": (PlacementKind.V, 8),
    "DualPipeV": (PlacementKind.V, 10),
}
"""PyTorch's own schedules of two stages on each of four ranks, where they put them, and microbatches."""


def dumped(name, num_microbatches, path):
    """The CSV that PyTorch writes of its own schedule."""
    stages = [
        SimpleNamespace(num_stages=8, group_size=4, group_rank=0, submod=torch.nn.Identity())
        for _ in range(2)
    ]
    made = torch_schedules.get_schedule_class(name)(stages, num_microbatches, loss_fn=lambda *_: None)
    made._dump_csv(str(path), format="compute_only")
    return path.read_text()


@pytest.mark.parametrize("name", TORCH_SCHEDULES)
def test_torch_schedules_are_read(name, tmp_path):
    """With their idle cells and overlapped pairs; the rows tell the placement, and no rule is broken."""
    kind, num_microbatches = TORCH_SCHEDULES[name]
    text = dumped(name, num_microbatches, tmp_path / "dumped.csv")
    auto = uniform_problem(4, num_microbatches, EITHER, chunks=2, kind=PlacementKind.AUTO)
    schedule = schedule_from_torch_csv(text, auto)
    assert schedule.problem.stage_to_rank == place(kind, 4, 8).stage_to_rank
    assert not verify_schedule(schedule)
    check_loads(schedule, tmp_path / "exported.csv")


def test_interleaved_order_is_that_of_torch(tmp_path):
    """Two independent writings of arXiv 2104.04473's schedule."""
    problem = uniform_problem(4, 8, UNDIVIDED, chunks=2)
    text = dumped("Interleaved1F1B", 8, tmp_path / "dumped.csv")
    assert from_torch_csv(text, problem) == baseline_orders("interleaved-1f1b", problem)


@contextmanager
def processes(num_processes, folder):
    """That many, each writing a log; none is left behind."""
    worker = Path(__file__).with_name("torch_processes.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = []
    try:
        for rank in range(num_processes):
            with (folder / f"rank{rank}.log").open("w") as log:
                words = [sys.executable, str(worker), str(rank), str(num_processes), str(folder)]
                streams = {"stdout": log, "stderr": subprocess.STDOUT}
                running.append(subprocess.Popen(words, env=environment, **streams))
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def run_on_gloo(schedules, num_processes, folder):
    """What every rank saved of each schedule."""
    for name, schedule in schedules.items():
        (folder / name).mkdir()
        for file, text in torch_csv_files(schedule, "plan.csv").items():
            (folder / name / file).write_text(text)
    with processes(num_processes, folder) as running:
        codes = [process.wait(timeout=PATIENCE_S) for process in running]
    logs = [(folder / f"rank{rank}.log").read_text()[-2000:] for rank in range(num_processes)]
    assert codes == [0] * num_processes, "\n".join(logs)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(num_processes)]


@pytest.mark.parametrize(("num_processes", "on"), [(2, ("on 2",)), (4, ("on 3", "on 4"))])
def test_gradients_on_gloo(num_processes, on, tmp_path):
    schedules = {name: make() for name, make in SCHEDULES.items() if name.endswith(on)}
    saved = run_on_gloo(schedules, num_processes, tmp_path)
    for name, schedule in schedules.items():
        problem = schedule.problem
        losses, gradients = reference(problem.num_stages, problem.num_microbatches)
        results = [of_rank[name] for of_rank in saved]
        assert results[problem.stage_to_rank[-1]]["losses"] == pytest.approx(losses, rel=TOLERANCE), name
        for stage, rank in enumerate(problem.stage_to_rank):
            found = results[rank]["gradients"][stage]
            errors = [(a - b).abs().max().item() for a, b in zip(found, gradients[stage], strict=True)]
            assert max(errors) < TOLERANCE, (name, stage, errors)
            assert min(b.abs().max().item() for b in gradients[stage]) > 1e3 * TOLERANCE


@pytest.mark.parametrize(
    ("problem", "base"),
    [
        (uniform_problem(2, 2, DIVIDED), "PipelineScheduleSingle"),
        (uniform_problem(2, 2, DIVIDED, chunks=3), "PipelineScheduleMulti"),
        (v(2, 2), "ScheduleZBVZeroBubble"),
    ],
)
def test_schedule_names_are_known_to_torch(problem, base):
    """The trainers look the names up here and derive the placement from the class."""
    name = schedule_name(problem, "torchtitan")
    assert torch_schedules.get_schedule_class(name) is getattr(torch_schedules, base)
