"""What the processes of the unflushed runtime's tests do: train in a pipeline, and as the papers define it.

Imported by those processes, so it imports no solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.deferred import defer_weights
from runtime.executor import Options
from runtime.randomness import seeded
from runtime.shapes import TensorSpec
from runtime.stage import Division
from runtime.unflushed import UnflushedRunner
from runtime.versions import WeightPolicy
from runtime.world import World, join_at
from synth.errors import InputError
from tests.runtime_cases import POSITIONS, ROWS, Case, make_batch, make_stages, mean_square

Phases = tuple[tuple[WeightPolicy, int], ...]
"""How many batches train by which policy, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Unflushed:
    """How to train."""

    case: Case
    batch_microbatches: int
    phases: Phases
    optimizer: str = "adamw"


@dataclass(frozen=True)
class Trained:
    """What one rank saw.

    ``equal`` and ``difference`` compare every weight of every version it made, and of the older one it kept.
    """

    equal: bool
    difference: float
    versions_made: int
    losses: tuple[float, ...]
    expected: tuple[float, ...]
    most_versions: dict[int, int]


def make_optimizer(name: str, parameters) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.1)
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1)


def data(how: Unflushed, step: int, replica: int) -> tuple[Tensor, Tensor]:
    """The rows of one batch."""
    rows = ROWS * how.batch_microbatches
    batch, target = make_batch(how.case, step, replica)
    return batch[:rows], target[:rows]


def make_unflushed(how: Unflushed, world: World, stages: list[nn.Module]) -> UnflushedRunner:
    case = how.case
    own = {stage: stages[stage] for stage in case.schedule.problem.stages_by_rank[world.rank]}
    if case.division is not Division.NATIVE:
        for module in own.values():
            defer_weights(module)
    return UnflushedRunner(
        case.schedule,
        own,
        world=world,
        microbatch=TensorSpec((ROWS, POSITIONS), torch.int64),
        loss=mean_square,
        optimizers={s: make_optimizer(how.optimizer, module.parameters()) for s, module in own.items()},
        batch_microbatches=how.batch_microbatches,
        options=Options(timeout_s=30, patience_s=20, seed=3, autocast=case.autocast, division=case.division),
    )


class Definition:
    """A plain training loop in one process that keeps every version of every stage's weights."""

    def __init__(self, how: Unflushed, num_replicas: int) -> None:
        self.how, self.num_replicas = how, num_replicas
        self.stages, newest = make_stages(how.case), make_stages(how.case)
        self.newest = [list(module.parameters()) for module in newest]
        self.optimizers = [make_optimizer(how.optimizer, own) for own in self.newest]
        self.history = [[snapshot(own)] for own in self.newest]
        self.losses: list[float] = []
        self.step = 0

    def train(self) -> None:
        """All phases, one after the other."""
        before = None
        for policy, num_batches in self.how.phases:
            train = {
                WeightPolicy.FLUSH: self.flush,
                WeightPolicy.DOUBLE_BUFFERED: self.double_buffered,
                WeightPolicy.STASHED: self.stashed,
            }[policy]
            train(num_batches, before is policy)
            before = policy

    def flush(self, num_batches: int, _: bool) -> None:
        """W(t+1) = W(t) - lr·∇f(W(t))."""
        for _ in range(num_batches):
            self.update_by_batch(len(self.history[0]) - 1)

    def double_buffered(self, num_batches: int, goes_on: bool) -> None:
        """W(t+1) = W(t) - lr·∇f(W(t-1)), the first batch at its first weights."""
        first = len(self.history[0]) - 1
        oldest = first - 1 if goes_on else first
        for batch in range(num_batches):
            self.update_by_batch(max(first + batch - 1, oldest))

    def stashed(self, num_batches: int, _: bool) -> None:
        """w(t+1) = w(t) - lr·∇f(w of stage 0 of p-1 updates ago, …, of the last stage of none ago)."""
        first, last = len(self.history[0]) - 1, len(self.stages) - 1
        for batch in range(num_batches):
            losses = []
            for i in range(self.how.batch_microbatches):
                done = batch * self.how.batch_microbatches + i
                self.show([first + max(done - (last - s), 0) for s in range(len(self.stages))])
                losses += [self.accumulate(replica, i, 1) for replica in range(self.num_replicas)]
                self.update()
            self.losses.append(torch.stack(losses).mean().item())
            self.step += 1

    def update_by_batch(self, version: int) -> None:
        """One batch at a version, one update."""
        m = self.how.batch_microbatches
        self.show([version] * len(self.stages))
        losses = [self.accumulate(replica, i, m) for replica in range(self.num_replicas) for i in range(m)]
        self.losses.append(torch.stack(losses).mean().item())
        self.update()
        self.step += 1

    def show(self, versions: list[int]) -> None:
        """Compute with these versions from here on, and forget all gradients."""
        for stage, version, history in zip(self.stages, versions, self.history, strict=True):
            stage.zero_grad()
            with torch.no_grad():
                for parameter, weight in zip(stage.parameters(), history[version], strict=True):
                    parameter.copy_(weight)

    def accumulate(self, replica: int, microbatch: int, unit: int) -> Tensor:
        """Add the gradients of one microbatch."""
        m, case = self.how.batch_microbatches, self.how.case
        batch, targets = data(self.how, self.step, replica)
        x, target = batch.split(ROWS)[microbatch], targets.split(ROWS)[microbatch]
        for s, stage in enumerate(self.stages):
            with (
                seeded(3, self.step, s, replica * m + microbatch, torch.device("cpu")),
                torch.autocast("cpu", case.autocast, enabled=case.autocast is not None),
            ):
                x = stage(x)
                if s == len(self.stages) - 1:
                    x = mean_square(x, target)
        (x / (unit * self.num_replicas)).backward()
        return x.detach()

    def update(self) -> None:
        """Step the newest weights with the gradients found at older ones."""
        for stage, own, optimizer, history in zip(
            self.stages, self.newest, self.optimizers, self.history, strict=True
        ):
            for parameter, older in zip(own, stage.parameters(), strict=True):
                parameter.grad = older.grad
            optimizer.step()
            history.append(snapshot(own))


def snapshot(parameters) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def against_definition(store, number: int, count: int, how: Unflushed) -> Trained:
    """Train in a pipeline and by definition; compare every version of every weight, and the losses."""
    world = join_at(store, number, count, how.case.schedule.problem.num_ranks, timeout_s=60)
    runner = make_unflushed(how, world, make_stages(how.case))
    made = watch_updates(runner)
    losses = train(runner, how, world)
    definition = Definition(how, world.num_replicas)
    definition.train()
    equal, difference = True, 0.0
    for stage, versions in made.items():
        wanted = definition.history[stage][1:]
        assert len(versions) == len(wanted)
        older = list(runner.extra_state(stage).values())
        for ours, theirs in zip([*versions, older], [*wanted, definition.history[stage][-2]], strict=True):
            for a, b in zip(ours, theirs, strict=bool(ours)):
                equal &= torch.equal(a, b)
                difference = max(difference, (a - b).abs().max().item())
        shown = list(runner.modules[stage].parameters())
        assert all(torch.equal(a, b) for a, b in zip(shown, versions[-1], strict=True))
    runner.close()
    most = {stage: versions.most for stage, versions in runner.versions.items()}
    expected = tuple(definition.losses) if losses else ()
    return Trained(equal, difference, len(versions), losses, expected, most)


def watch_updates(runner: UnflushedRunner) -> dict[int, list[list[Tensor]]]:
    """Note the weights of every stage after each of its updates, as they come."""
    made: dict[int, list[list[Tensor]]] = {stage: [] for stage in runner.modules}
    for stage, optimizer in runner._optimizers.items():
        own, module = made[stage], runner.modules[stage]
        optimizer.register_step_post_hook(
            lambda *_, own=own, module=module: own.append(snapshot(module.parameters()))
        )
    return made


def train(runner: UnflushedRunner, how: Unflushed, world: World) -> tuple[float, ...]:
    """The losses of all phases, where the last stage is."""
    losses = []
    for policy, num_batches in how.phases:
        runner.begin(policy, num_batches)
        for _ in range(num_batches):
            losses.append(runner.step(*data(how, runner.completed_steps, world.replica)))
    return tuple(loss.item() for loss in losses if loss is not None)


def resumed(store, number: int, count: int, how: Unflushed, folder: str, at: int) -> Trained:
    """Train by one policy, stopping after some batches to go on from a checkpoint with new objects."""
    world = join_at(store, number, count, how.case.schedule.problem.num_ranks, timeout_s=60)
    ((policy, num_batches),) = how.phases
    first = make_unflushed(how, world, make_stages(how.case))
    losses = train(first, Unflushed(**{**vars(how), "phases": ((policy, at),)}), world)
    save_checkpoint(Path(folder), first, first._optimizers)
    first.close()
    with torch.no_grad():
        strange = make_stages(how.case)
        for module in strange:
            for parameter in module.parameters():
                parameter.add_(1.0)
    second = make_unflushed(how, world, strange)
    load_checkpoint(Path(folder), second, second._optimizers)
    losses += train(second, Unflushed(**{**vars(how), "phases": ((policy, num_batches - at),)}), world)
    definition = Definition(how, world.num_replicas)
    definition.train()
    equal = True
    for stage, module in second.modules.items():
        for ours, theirs in zip(module.parameters(), definition.history[stage][-1], strict=True):
            equal &= torch.equal(ours, theirs)
        older = list(second.extra_state(stage).values())
        assert bool(older) == (policy is WeightPolicy.DOUBLE_BUFFERED)
        equal &= all(map(torch.equal, older, definition.history[stage][-2]))
    second.close()
    return Trained(equal, 0.0, num_batches, losses, tuple(definition.losses) if losses else (), {})


class Storages(TorchDispatchMode):
    """The storages of one size in memory, whoever holds them, counted at every operation of torch."""

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        self.nbytes = nbytes
        self.peak = 0
        self._seen: dict[int, StorageWeakRef] = {}

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.nbytes() == self.nbytes:
            self._seen[storage._cdata] = StorageWeakRef(storage)

    def count(self, beside: Tensor | None = None) -> int:
        """How many are alive, one that is known not counted."""
        other = None if beside is None else beside.untyped_storage()._cdata
        return sum(not seen.expired() for key, seen in self._seen.items() if key != other)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.note(tensor)
        self.peak = max(self.peak, self.count())
        return made


ODD_WIDTH = 37
"""A weight of so many squared elements is unlike any other tensor."""


def versions_in_memory(store, number: int, count: int, how: Unflushed) -> tuple[int, int]:
    """How many storages of the stage's weight were in memory at once, before ops and behind updates; at most.

    The first number leaves the gradient out, the second counts everything, also within an operation.
    """
    world = join_at(store, number, count, how.case.schedule.problem.num_ranks, timeout_s=60)
    num_stages = how.case.schedule.problem.num_stages
    stages = [wide_stage(stage, num_stages) for stage in range(num_stages)]
    weight = next(p for p in stages[world.rank].parameters() if p.shape == (ODD_WIDTH, ODD_WIDTH))
    runner = make_unflushed(how, world, stages)
    most = 0
    with Storages(weight.nbytes) as storages:
        storages.note(weight.data)

        def look(*_) -> None:
            nonlocal most
            most = max(most, storages.count(weight.grad))

        runner.modules[world.rank].register_forward_pre_hook(look)
        runner._optimizers[world.rank].register_step_pre_hook(look)
        runner._optimizers[world.rank].register_step_post_hook(look)
        train(runner, how, world)
    runner.close()
    return most, storages.peak


def accumulators_in_memory(store, number: int, count: int, how: Unflushed) -> int:
    """With replicas: how many sums of all the stage's gradients were in memory at once, at most."""
    world = join_at(store, number, count, how.case.schedule.problem.num_ranks, timeout_s=60)
    num_stages = how.case.schedule.problem.num_stages
    stages = [wide_stage(stage, num_stages) for stage in range(num_stages)]
    with Storages(sum(p.nbytes for p in stages[world.rank].parameters())) as storages:
        runner = make_unflushed(how, world, stages)

        def look(*_) -> None:
            for parameter in runner.modules[world.rank].parameters():
                storages.note(parameter.grad)
                assert storages.count(), "gradients are views into such a sum"

        runner._optimizers[world.rank].register_step_pre_hook(look)
        train(runner, how, world)
    runner.close()
    return storages.peak


def wide_stage(stage: int, count: int) -> nn.Module:
    """A stage with one weight of the size that is counted."""
    ahead = [nn.Embedding(11, ODD_WIDTH)] if stage == 0 else []
    behind = [nn.Linear(ODD_WIDTH, 10)] if stage == count - 1 else []
    return nn.Sequential(*ahead, nn.Linear(ODD_WIDTH, ODD_WIDTH), nn.Tanh(), *behind)


def refused(store, number: int, count: int, how: Unflushed, fault: str) -> str:
    """The message of what is refused."""
    world = join_at(store, number, count, how.case.schedule.problem.num_ranks, timeout_s=60)
    try:
        runner = make_unflushed(how, world, make_stages(how.case))
        batch = data(how, 0, 0)
        if fault == "not begun":
            runner.step(*batch)
        runner.begin(how.phases[0][0], how.phases[0][1])
        runner.step(*batch)
        if fault == "saved on the way":
            save_checkpoint(Path(__file__), runner, runner._optimizers)
        if fault == "begun again":
            runner.begin(WeightPolicy.FLUSH, 1)
    except InputError as error:
        return str(error)
    return "nothing"
