"""What the processes of the flow tests do: directions and slices beside the same steps without a pipeline.

Imported by those processes, so it imports no solver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.allocators import HostAllocator
from runtime.deferred import defer_weights
from runtime.executor import Options, PipelineRunner
from runtime.gradients import Exchange
from runtime.llama import LlamaConfig, build_stage
from runtime.randomness import seeded
from runtime.routes import Routes, storing_stages
from runtime.shapes import TensorSpec
from runtime.stage import Division
from runtime.timeline import gather_memory, gather_timeline, step_memory
from runtime.world import World, join_at
from synth.document import write_timeline
from synth.schedule import Schedule
from tests.runtime_cases import mixed_stage

ROWS, POSITIONS, TOKENS, WIDTH = 2, 6, 11, 8
SEED = 3


@dataclass(frozen=True, kw_only=True)
class FlowCase:
    """How to run a schedule of directions and slices."""

    schedule: Schedule
    model: str = "llama"
    division: Division | None = None
    dropout: float = 0.0
    dtype: torch.dtype = torch.float64
    steps: int = 3
    slice_positions: tuple[int, ...] | None = None
    recompute: bool = False
    exchange: Exchange = Exchange.ALL_REDUCE
    autocast: torch.dtype | None = None
    is_staged: bool = False


@dataclass(frozen=True)
class FlowOutcome:
    """What one rank saw.

    Whether all gradients were bit-equal, the largest difference of a gradient or weight, its losses and those
    expected, and a digest of the weights of every stage of the model it holds.
    """

    equal: bool
    difference: float
    losses: tuple[float, ...]
    expected: tuple[float, ...]
    weights: dict[int, str]


class Running(nn.Module):
    """Every position sees those before it; a slice keeps its very input, which later ones give to a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer, self.gain = (
            nn.Linear(width, width, bias=False),
            nn.Parameter(torch.linspace(0.5, 1, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_slice(x, ())[0]

    def forward_slice(self, x: Tensor, past: Sequence) -> tuple[Tensor, tuple]:
        sums = self.layer(x).cumsum(1)
        for (kept,), count in past:
            sums = sums + self.layer(kept).sum(1, keepdim=True) * count / count
        count = torch.tensor(float(x.shape[1]), dtype=x.dtype)
        return x + torch.tanh(sums) * self.gain, ((x,), count)


class Carry(nn.Module):
    """Adds up along the positions; what a slice keeps gets, from one position, its very gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_slice(x, ())[0]

    def forward_slice(self, x: Tensor, past: Sequence) -> tuple[Tensor, tuple]:
        y = x.cumsum(1)
        if past:
            y = y + past[-1][0]
        return y, (y[:, -1:],)


def llama_stage(stage: int, num_stages: int, dropout: float) -> nn.Module:
    config = LlamaConfig(vocabulary=TOKENS, hidden=WIDTH, layers=num_stages, heads=2, seed=1)
    return build_stage(config, stage, num_stages)


def running_stage(stage: int, num_stages: int, dropout: float) -> nn.Module:
    inside = nn.Sequential(Running(WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), Running(WIDTH))
    first = [nn.Embedding(TOKENS, WIDTH)] if stage == 0 else []
    last = [nn.Linear(WIDTH, TOKENS)] if stage == num_stages - 1 else []
    return nn.Sequential(*first, inside, *last)


def carrying_stage(stage: int, num_stages: int, dropout: float) -> nn.Module:
    first = [nn.Embedding(TOKENS, WIDTH)] if stage == 0 else []
    last = [nn.Linear(WIDTH, TOKENS)] if stage == num_stages - 1 else []
    return nn.Sequential(*first, nn.Linear(WIDTH, WIDTH), Carry(), *last)


def plain_stage(stage: int, num_stages: int, dropout: float) -> nn.Module:
    return mixed_stage(stage, WIDTH, TOKENS if stage == num_stages - 1 else WIDTH, dropout)


class Deep(nn.Module):
    """Keeps so many large tensors for its backward, with hardly any parameter."""

    def __init__(self, count: int, times: int) -> None:
        super().__init__()
        self.count, self.times = count, times

    def forward(self, x: Tensor) -> Tensor:
        wide = x.unsqueeze(-1).repeat(*[1] * x.ndim, self.times)
        for _ in range(self.count):
            wide = torch.sin(wide)
        return wide.mean(-1)


DEEP_COUNT, DEEP_TIMES = 32, 512
DEEP_BYTES = ROWS * POSITIONS * WIDTH * 8 * DEEP_TIMES
"""Of one of the tensors that a stage keeps."""


def deep_stage(stage: int, num_stages: int, dropout: float) -> nn.Module:
    first = [nn.Embedding(TOKENS, WIDTH)] if stage == 0 else []
    last = [nn.Linear(WIDTH, TOKENS)] if stage == num_stages - 1 else []
    return nn.Sequential(*first, nn.Linear(WIDTH, WIDTH), Deep(DEEP_COUNT, DEEP_TIMES), *last)


STAGES = {
    "deep": deep_stage,
    "llama": llama_stage,
    "running": running_stage,
    "carrying": carrying_stage,
    "mixed": plain_stage,
}


def make_modules(case: FlowCase) -> list[nn.Module]:
    """The stages of the model, the same in every process."""
    torch.manual_seed(7)
    count = Routes(case.schedule.problem).num_model_stages
    return [STAGES[case.model](stage, count, case.dropout).to(case.dtype) for stage in range(count)]


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def make_batch(case: FlowCase, step: int, replica: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(100 * step + replica)
    rows = ROWS * case.schedule.problem.num_microbatches
    tokens = torch.randint(TOKENS, (rows, POSITIONS + 1), generator=random)
    return tokens[:, :-1], tokens[:, 1:]


def make_runner(case: FlowCase, world: World, stages: list[nn.Module], **options) -> PipelineRunner:
    own = {stage: stages[stage] for stage in Routes(case.schedule.problem).held_by(world.rank)}
    if case.division is not Division.NATIVE:
        for module in own.values():
            defer_weights(module)
    return PipelineRunner(
        case.schedule,
        own,
        world=world,
        microbatch=TensorSpec((ROWS, POSITIONS), torch.int64),
        loss=cross_entropy,
        options=Options(
            **{"timeout_s": 30, "patience_s": 20, **options},
            seed=SEED,
            division=case.division,
            slice_positions=case.slice_positions,
            recompute=case.recompute,
            exchange=case.exchange,
            autocast=case.autocast,
        ),
    )


def reference_step(case: FlowCase, stages: list[nn.Module], step: int, num_replicas: int) -> float:
    """The same step without a pipeline and without slices.

    The gradients of each direction of each replica are summed by themselves, and then together: as they are
    where each direction's ranks add up first.
    """
    problem = case.schedule.problem
    count = problem.num_microbatches
    parts = sorted({tuple(problem.microbatches_of(stage)) for stage in range(problem.num_stages)})
    if storing_stages(problem):  # what a stage evicts and what it keeps is one direction
        parts = [tuple(range(count))]
    parameters = [parameter for stage in stages for parameter in stage.parameters()]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    losses = {}
    for replica in range(num_replicas):
        batch, targets = (whole.split(ROWS) for whole in make_batch(case, step, replica))
        for part in parts:
            for parameter in parameters:
                parameter.grad = None
            for i in part:
                x = batch[i]
                for s, stage in enumerate(stages):
                    with (
                        seeded(SEED, step, s, replica * count + i, torch.device("cpu")),
                        torch.autocast("cpu", case.autocast, enabled=case.autocast is not None),
                    ):
                        x = stage(x)
                        if s == len(stages) - 1:
                            loss = cross_entropy(x, targets[i])
                losses[replica, i] = loss.item()
                (loss / (count * num_replicas)).backward()
            for total, parameter in zip(sums, parameters, strict=True):
                total += parameter.grad
    for total, parameter in zip(sums, parameters, strict=True):
        parameter.grad = total
    return sum(losses.values()) / len(losses)


def flow_against_reference(store, number: int, count: int, case: FlowCase) -> FlowOutcome:
    """Run optimizer steps with and without a pipeline and compare losses, all gradients and all weights."""
    ranks = case.schedule.problem.num_ranks
    world = join_at(store, number, count, ranks, is_staged=case.is_staged, timeout_s=60)
    stages, reference = make_modules(case), make_modules(case)
    runner = make_runner(case, world, stages)
    own = [*runner.parameters(), nn.Parameter(torch.zeros(1))]  # a rank that only stores has none
    optimizer = torch.optim.SGD(own, lr=0.1, momentum=0.9)
    expected_optimizer = torch.optim.SGD([p for s in reference for p in s.parameters()], lr=0.1, momentum=0.9)
    equal, difference, losses, expected = True, 0.0, [], []
    for step in range(case.steps):
        wanted = reference_step(case, reference, step, world.num_replicas)
        loss = runner.step(*make_batch(case, step, world.replica))
        assert (loss is not None) == runner.holds_last_stage
        if loss is not None:
            losses.append(loss.item())
            expected.append(wanted)
        pairs = [
            pair
            for stage, module in runner.modules.items()
            for pair in zip(module.parameters(), reference[stage].parameters(), strict=True)
        ]
        for ours, theirs in pairs if case.exchange is Exchange.ALL_REDUCE else ():
            equal &= torch.equal(ours.grad, theirs.grad)
            difference = max(difference, (ours.grad - theirs.grad).abs().max().item())
        optimizer.step()
        runner.gather()
        expected_optimizer.step()
        difference = max([difference, *((a - b).abs().max().item() for a, b in pairs)])
    weights = {stage: _digest(module) for stage, module in runner.modules.items()}
    runner.close()
    return FlowOutcome(equal, difference, tuple(losses), tuple(expected), weights)


def _digest(module: nn.Module) -> str:
    whole = b"".join(parameter.detach().numpy().tobytes() for parameter in module.parameters())
    return hashlib.sha256(whole).hexdigest()


def peak_of_three_steps(store, number: int, count: int, case: FlowCase) -> float:
    """What a rank allocates at most in three steps and between them, in tensors of :class:`Deep`."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_runner(case, world, make_modules(case))

    def steps() -> None:
        for _ in range(3):
            runner.step(*make_batch(case, 0, 0))

    highest = HostAllocator().watch(steps).highest
    runner.close()
    return highest / DEEP_BYTES


def flow_timeline(store, number: int, count: int, case: FlowCase) -> str | None:
    """The timeline document of a step with what ranks held, on the pipeline's rank 0."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_runner(case, world, make_modules(case))
    runner.step(*make_batch(case, 0, 0))
    timeline = gather_timeline(runner, "a test")
    timeline = gather_memory(runner, timeline, step_memory(runner, *make_batch(case, 0, 0)))
    runner.close()
    return None if timeline is None else write_timeline(timeline)


def flow_refused(store, number: int, count: int, case: FlowCase, fault: str) -> tuple[str, str]:
    """Start a case that is to be refused; the error's type and its text."""
    world = join_at(store, number, count, case.schedule.problem.num_ranks, timeout_s=60)
    try:
        stages = make_modules(case)
        if fault == "weights" and number == 1:
            with torch.no_grad():
                next(stages[0].parameters()).add_(1e-9)
        runner = make_runner(case, world, stages, timeout_s=8, patience_s=8)
        batch, target = make_batch(case, 0, 0)
        runner.step(batch, target[:, :-1] if fault == "target" else target)
    except Exception as error:
        return type(error).__name__, str(error)
    return "nothing", ""
