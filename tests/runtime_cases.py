"""What the processes of the runtime's tests do: run a schedule beside the same steps without a pipeline.

Imported by those processes, so it imports no solver.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.checkpoint import checkpoint

from costmodels.measured.storage_ledger import StorageLedger
from runtime.allocators import HostAllocator
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.deferred import defer_weights
from runtime.errors import PipelineError
from runtime.executor import Options, PipelineRunner
from runtime.gradients import Exchange
from runtime.randomness import seeded
from runtime.shapes import TensorSpec
from runtime.stage import Division
from runtime.timeline import gather_memory, gather_timeline, step_memory
from runtime.train import main
from runtime.world import World, join_at
from synth.document import write_timeline
from synth.errors import InputError
from synth.measured import Timeline
from synth.ops import Op
from synth.schedule import Schedule

FAILING_S = 8
"""What failing cases may wait for a message and a sign of life: longer than a loaded machine stands still."""

ROWS, POSITIONS, TOKENS = 2, 3, 11
EVEN_WIDTH = 4000


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to run a schedule."""

    schedule: Schedule
    division: Division | None = None
    dropout: float = 0.0
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    steps: int = 2
    model: str = "mixed"
    recompute: bool = False
    exchange: Exchange = Exchange.ALL_REDUCE
    is_staged: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one rank saw: whether all was bit-equal, the largest difference, its losses, those expected."""

    equal: bool
    difference: float
    losses: tuple[float, ...]
    expected: tuple[float, ...]
    buffers_made: int


def make_stages(case: Case) -> list[nn.Module]:
    """Stages of different widths and layers, the first one on tokens; the same in every process."""
    torch.manual_seed(7)
    count = case.schedule.problem.num_stages
    widths = [6 + 2 * (stage % 3) for stage in range(count + 1)]
    return [
        STAGES[case.model](stage, widths[stage], widths[stage + 1], case.dropout).to(case.dtype)
        for stage in range(count)
    ]


def mixed_stage(stage: int, width: int, out: int, dropout: float) -> nn.Module:
    """All the layers that can defer, and a parameter that cannot."""
    norm = nn.LayerNorm(8) if stage % 2 else nn.RMSNorm(8)
    parts = [nn.Linear(width, 8), norm, nn.GELU(), nn.Dropout(dropout), Scale(8), nn.Linear(8, out)]
    return nn.Sequential(*([nn.Embedding(TOKENS, width)] if stage == 0 else []), *parts)


def even_stage(stage: int, width: int, out: int, dropout: float) -> nn.Module:
    """Stages of which it is easily said what they keep: the input, and the tanh that is as wide as stated."""
    parts = [
        nn.Linear(10, EVEN_WIDTH, bias=False),
        nn.Tanh(),
        nn.Linear(EVEN_WIDTH, 10, bias=False),
        Counted(),
    ]
    return nn.Sequential(*([nn.Embedding(TOKENS, 10)] if stage == 0 else []), *parts)


def odd_stage(stage: int, width: int, out: int, dropout: float) -> nn.Module:
    """Stages that hand their input through, use a layer twice, or have no parameter at all."""
    if stage == 0:
        return nn.Sequential(nn.Embedding(TOKENS, 6), nn.Linear(6, 6))
    return (nn.Identity(), Twice(6), nn.Tanh())[stage % 3]


class Scale(nn.Module):
    """A parameter of its own, outside of any layer that can defer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Counted(nn.Module):
    """Notes how often it has run."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x


class Twice(nn.Module):
    """One layer used twice, with a nonlinearity between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.sin(self.layer(x)))


class Recomputed(nn.Module):
    """Activation checkpointing: keeps its input alone and runs again in backward."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inside, x, use_reentrant=False)


def recomputed_stage(stage: int, width: int, out: int, dropout: float) -> nn.Module:
    return Recomputed(mixed_stage(stage, width, out, dropout))


def blocks_stage(stage: int, width: int, out: int, dropout: float) -> nn.Module:
    """Single layers around two blocks, the second inside of another."""
    inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.Dropout(dropout), nn.GELU()), nn.Sequential(inner)]
    first = nn.Embedding(TOKENS, 8) if stage == 0 else nn.Linear(width, 8)
    return nn.Sequential(first, *blocks, nn.Linear(8, out))


STAGES = {
    "mixed": mixed_stage,
    "blocks": blocks_stage,
    "odd": odd_stage,
    "even": even_stage,
    "recomputed": recomputed_stage,
}


def mean_square(y: Tensor, target: Tensor) -> Tensor:
    return ((y - target[..., : y.shape[-1]]) ** 2).mean()


def make_batch(case: Case, step: int, replica: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(100 * step + replica)
    rows = ROWS * case.schedule.problem.num_microbatches
    tokens = torch.randint(TOKENS, (rows, POSITIONS), generator=random)
    return tokens, torch.randn((rows, POSITIONS, 10), generator=random, dtype=case.dtype)


def make_runner(
    case: Case, world: World, stages: list[nn.Module], *, timeout_s: float = 30, patience_s: float = 20
) -> PipelineRunner:
    held = case.schedule.problem.stages_by_rank[world.rank]
    # However a caller puts its modules in order, replicas go through them alike.
    own = {stage: stages[stage] for stage in (held[::-1] if world.replica else held)}
    if case.division is not Division.NATIVE:
        for module in own.values():
            defer_weights(module)
    return PipelineRunner(
        case.schedule,
        own,
        world=world,
        microbatch=TensorSpec((ROWS, POSITIONS), torch.int64),
        loss=mean_square,
        options=Options(
            timeout_s=timeout_s,
            patience_s=patience_s,
            seed=3,
            autocast=case.autocast,
            division=case.division,
            recompute=case.recompute,
            exchange=case.exchange,
        ),
    )


def reference_step(case: Case, stages: list[nn.Module], step: int, num_replicas: int) -> float:
    """The same step without a pipeline: microbatch by microbatch, gradients summed in their order."""
    count, losses = case.schedule.problem.num_microbatches, []
    for replica in range(num_replicas):
        batch, targets = make_batch(case, step, replica)
        for i, (x, target) in enumerate(zip(batch.split(ROWS), targets.split(ROWS), strict=True)):
            for s, stage in enumerate(stages):
                with (
                    seeded(3, step, s, replica * count + i, torch.device("cpu")),
                    torch.autocast("cpu", case.autocast, enabled=case.autocast is not None),
                ):
                    x = stage(x)
                    if s == len(stages) - 1:
                        loss = mean_square(x, target)
            losses.append(loss.detach())
            (loss / (count * num_replicas)).backward()
    return torch.stack(losses).mean().item()


def against_reference(store, number: int, count: int, case: Case) -> Outcome:
    """Run optimizer steps with and without a pipeline and compare losses and all gradients."""
    ranks = case.schedule.problem.num_ranks
    world = join_at(store, number, count, ranks, is_staged=case.is_staged, timeout_s=60)
    stages, reference = make_stages(case), make_stages(case)
    runner = make_runner(case, world, stages)
    optimizer = torch.optim.SGD([*runner.parameters(), nn.Parameter(torch.zeros(1))], lr=0.1)
    expected_optimizer = torch.optim.SGD([p for s in reference for p in s.parameters()], lr=0.1)
    equal, difference, losses, expected = True, 0.0, [], []
    for step in range(case.steps):
        expected_optimizer.zero_grad()
        wanted = reference_step(case, reference, step, world.num_replicas)
        loss = runner.step(*make_batch(case, step, world.replica))
        if loss is not None:
            losses.append(loss.item())
            expected.append(wanted)
        for stage, module in runner.modules.items():
            for ours, theirs in zip(module.parameters(), reference[stage].parameters(), strict=True):
                equal &= torch.equal(ours.grad, theirs.grad)
                difference = max(difference, (ours.grad - theirs.grad).abs().max().item())
        optimizer.step()
        expected_optimizer.step()
    made = runner._transport.buffers.made
    runner.close()
    return Outcome(equal, difference, tuple(losses), tuple(expected), made)


def failing(store, number: int, count: int, case: Case, fault: str) -> tuple[str, str, float]:
    """Run a case in which something goes wrong; the error's type, its text, and after how many seconds."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    stages = make_stages(case)
    if fault == "shapes" and number == 1:
        stages[1] = nn.Linear(5, 5)
    if fault == "orders" and number == 1:
        case = replace(case, schedule=reordered(case.schedule))
    if fault == "costs" and number == 1:
        case = replace(case, schedule=slower(case.schedule))
    if fault == "options" and number == 1:
        case = replace(case, autocast=torch.bfloat16)
    began = time.monotonic()
    try:
        runner = make_runner(case, world, stages, timeout_s=FAILING_S, patience_s=FAILING_S)
        batch, target = make_batch(case, 0, 0)
        if fault == "loss":
            target = target * float("nan")
        if fault == "raises" and number == 1:
            stages[1].register_forward_hook(fail)
        if fault == "sleeps" and number == 1:
            stages[1].register_forward_hook(sleep)
        if fault == "dies" and number == 1:
            stages[1].register_forward_hook(lambda *_: os._exit(9))
        if fault == "rows":
            batch = batch[:-1]
        runner.step(batch, target)
        runner.step(batch, target)
        if fault == "measuring":
            if number == 1:
                stages[1].register_forward_hook(fail)
            step_memory(runner, batch, target)
        if fault == "clock":
            with runner.watch.spreading(lambda: "the clock"):
                gather_timeline(runner) if number != 1 else fail()
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic() - began
    return "nothing", "", 0.0


def fail(*_) -> None:
    raise RuntimeError("the layer is broken")


def sleep(*_) -> None:
    time.sleep(6)


def reordered(schedule: Schedule) -> Schedule:
    """The same ops, the last two of rank 0 the other way round."""
    first, *others = schedule.ranks
    return Schedule(schedule.problem, ((*first[:-2], first[-1], first[-2]), *others))


def slower(schedule: Schedule) -> Schedule:
    """The same orders, the first forwards long."""
    first, *others = schedule.problem.stages
    first = replace(first, F=replace(first.F, ticks=50 * first.F.ticks))
    return Schedule(replace(schedule.problem, stages=(first, *others)), schedule.ranks)


def tied(store, number: int, count: int, case: Case) -> str:
    """What is said where stages 0 and 2, on one rank, share a weight."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    stages = make_stages(case)
    stages[2].register_parameter("shared", stages[0][0].weight)
    try:
        make_runner(case, world, stages, timeout_s=FAILING_S, patience_s=FAILING_S)
    except Exception as error:
        return str(error)
    return "nothing"


def train(
    store, number: int, count: int, port: int, arguments: list[str], odd: list[str] | None = None
) -> tuple[int, str, str]:
    """What ``torchrun`` would start: the exit code and what goes to standard output and error.

    ``odd`` are arguments that process 1 alone gets.
    """
    out, err = io.StringIO(), io.StringIO()
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(address, RANK=str(number), WORLD_SIZE=str(count))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments + (odd or []) * (number == 1))
    return code, out.getvalue(), err.getvalue()


def train_without_measuring(
    store, number: int, count: int, port: int, arguments: list[str]
) -> tuple[int, str, str]:
    """The same, the step that measures memory failing in process 1."""
    with pytest.MonkeyPatch.context() as patch:
        if number == 1:
            patch.setattr("runtime.train.step_memory", fail)
        return train(store, number, count, port, arguments)


def timeline_of_a_step(store, number: int, count: int, case: Case) -> str | None:
    """The timeline document of a second step, on the pipeline's rank 0: the same when asked for twice."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_runner(case, world, make_stages(case))
    with pytest.raises(InputError, match="no step has run"):
        gather_timeline(runner)
    for step in range(2):
        runner.step(*make_batch(case, step, 0))
    timeline, again = gather_timeline(runner, "a test"), gather_timeline(runner, "a test")
    assert durations(timeline) == durations(again)
    runner.close()
    return None if timeline is None else write_timeline(timeline)


def measured_step(store, number: int, count: int, case: Case) -> str | None:
    """The timeline document of the median of some steps with what ranks held, on the pipeline's rank 0."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_runner(case, world, make_stages(case))
    seen = []
    for step in range(case.steps):
        runner.step(*make_batch(case, step, world.replica))
        seen.append(runner.times())
    timeline = gather_timeline(runner, "a test", seen)
    timeline = gather_memory(runner, timeline, step_memory(runner, *make_batch(case, case.steps, 0)))
    runner.close()
    return None if timeline is None else write_timeline(timeline)


def median_of_lengths(store, number: int, count: int, case: Case, lengths_ns: list[int]) -> int | None:
    """How long the step is that is chosen of some, each as long as stated on one rank and short elsewhere."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_runner(case, world, make_stages(case))
    runner.step(*make_batch(case, 0, 0))
    (first, *others), offset = runner.times(), time.monotonic_ns()
    begun = first._replace(start_ns=offset, end_ns=offset + 1)
    steps = []
    for n, length in enumerate(lengths_ns):
        end = offset + (length if n % count == number else 2)
        steps.append([begun, *(ran._replace(start_ns=end - 1, end_ns=end) for ran in others)])
    timeline = gather_timeline(runner, "a test", steps)
    runner.close()
    return None if timeline is None else timeline.length_ns


def durations(timeline: Timeline | None) -> list[tuple[Op, int]] | None:
    """Of all ops, which no clock of another rank changes."""
    return timeline and [(op, end - start) for rank in timeline.ranks for op, start, end in rank]


@dataclass(frozen=True)
class Peak:
    """What one rank held: at most and at the start of a step, by two counts, and whether no trace is left."""

    bytes: int
    start: int
    live: int
    untraced: bool


def peak_of_a_step(store, number: int, count: int, case: Case) -> Peak:
    """The peak of a third step, beside that of the tensors that its ops make."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_runner(case, world, make_stages(case))
    for step in range(2):
        runner.step(*make_batch(case, step, 0))
    before, batch = runner._recorder, make_batch(case, 2, 0)
    buffers = [buffer for module in runner.modules.values() for buffer in module.buffers()]
    contents = [buffer.clone() for buffer in buffers]
    batch[1].fill_(torch.nan)  # no loss of a step that does not count
    peak = step_memory(runner, *batch).peak_bytes
    untraced = runner.completed_steps == 2 and runner._recorder is before
    untraced &= all(map(torch.equal, buffers, contents)) and any(content.any() for content in contents)
    for module in runner.modules.values():
        module.zero_grad()
    batch = make_batch(case, 2, 0)
    start = HostAllocator().held_bytes()
    live = StorageLedger().watch(lambda: runner.step(*batch)).highest
    runner.close()
    return Peak(peak, start, live, untraced)


def meet_alone(store, number: int, count: int) -> str:
    """One process of two that are to meet."""
    try:
        join_at(store, 0, 2, 2, timeout_s=2)
    except PipelineError as error:
        return str(error)
    return "met"


def meet_with(store, number: int, count: int, *ranks: int) -> str:
    """What is said to processes whose schedules are for so many ranks, each its own."""
    try:
        join_at(store, number, count, ranks[number], timeout_s=30)
    except InputError as error:
        return str(error)
    return "met"


def updated(store, number: int, count: int, case: Case) -> tuple[dict[int, list[Tensor]], int]:
    """The parameters after some AdamW updates, by stage, and how many numbers the optimizers keep."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner, optimizers = with_optimizers(case, world)
    take_steps(case, runner, optimizers)
    kept = sum(
        value.numel()
        for optimizer in optimizers.values()
        for state in optimizer.state.values()
        for value in state.values()
    )
    runner.close()
    return parameters_of(runner), kept


def with_optimizers(case: Case, world: World) -> tuple[PipelineRunner, dict[int, torch.optim.Optimizer]]:
    runner = make_runner(case, world, make_stages(case))
    optimizers = {s: torch.optim.AdamW(runner.parameters(s), lr=0.01) for s in runner.modules}
    return runner, optimizers


def take_steps(case: Case, runner: PipelineRunner, optimizers: dict[int, torch.optim.Optimizer]) -> None:
    for _ in range(case.steps):
        runner.step(*make_batch(case, runner.completed_steps, runner.world.replica))
        for optimizer in optimizers.values():
            optimizer.step()
        runner.gather()


def parameters_of(runner: PipelineRunner) -> dict[int, list[Tensor]]:
    """Copies that can be sent to another process."""
    return {
        stage: [parameter.detach().clone() for parameter in module.parameters()]
        for stage, module in runner.modules.items()
    }


def resumed(
    store, number: int, count: int, first: Case, second: Case, folder: str
) -> tuple[dict[int, list[Tensor]], dict[int, list[Tensor]]]:
    """The parameters after a checkpoint on the way, resumed in another way, and those without it."""
    world = join_at(store, number, count, first.schedule.problem.num_ranks, timeout_s=60)
    runner, optimizers = with_optimizers(first, world)
    take_steps(first, runner, optimizers)
    save_checkpoint(Path(folder), runner, optimizers)
    take_steps(first, runner, optimizers)
    without = parameters_of(runner)
    dist.barrier()  # the checkpoint is there
    other, its_optimizers = with_optimizers(second, world)
    load_checkpoint(Path(folder), other, its_optimizers)
    take_steps(second, other, its_optimizers)
    dist.barrier()
    runner.close()
    other.close()
    return parameters_of(other), without
