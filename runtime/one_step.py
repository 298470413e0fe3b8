"""One step of one rank: what each op takes, what becomes of what it makes, and the loss at the end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from runtime.clock import Recorder
from runtime.communication import Step
from runtime.cuts import Cuts
from runtime.errors import LossError
from runtime.gradients import Gradients
from runtime.randomness import seeded
from runtime.replicas import Groups
from runtime.routes import Routes
from runtime.shapes import TensorSpec
from runtime.stage import Stage, shares_memory
from runtime.transport import Transport
from runtime.world import World
from synth.errors import InputError
from synth.ops import Op, OpKind
from synth.problem import Problem

Loss = Callable[[Tensor, Tensor], Tensor]
"""From the last stage's output and the target of one microbatch to their mean loss, a scalar."""


@dataclass(frozen=True, slots=True, eq=False)
class Equipment:
    """What a rank has from step to step.

    Parameters
    ----------
    problem, routes, world
        The placement, what passes from stage to stage, and which rank this is.
    cuts
        How microbatches are cut into slices.
    stages, specs
        By stage: this rank's stages, and what they and those they feed take.
    gradients, groups
        By stage of the model: its gradients, and who holds it too.
    transport
        Carries messages.
    loss
        Called on the last stage.
    seed, autocast
        As in the executor's options.
    checks_loss
        Whether a loss that is not finite ends the step.
    """

    problem: Problem
    routes: Routes
    world: World
    cuts: Cuts
    stages: Mapping[int, Stage]
    specs: Mapping[int, TensorSpec]
    gradients: Mapping[int, Gradients]
    groups: Groups
    transport: Transport
    loss: Loss
    seed: int
    autocast: torch.dtype | None
    checks_loss: bool = True


class StepRun:
    """A step under way.

    Parameters
    ----------
    equipment
        What it runs with.
    recorder
        Notes when ops run.
    number
        Of the step, for its random numbers.
    inputs, targets
        One tensor per microbatch where the first and the last stage are, empty elsewhere.
    """

    def __init__(
        self,
        equipment: Equipment,
        recorder: Recorder,
        number: int,
        inputs: tuple[Tensor, ...],
        targets: tuple[Tensor, ...],
    ) -> None:
        self._have, self._recorder, self._number = equipment, recorder, number
        self._inputs, self._targets = dict(enumerate(inputs)), dict(enumerate(targets))
        self._losses: dict[int, dict[int, Tensor]] = {}  # by microbatch and slice
        self._handed: dict[tuple[bool, int, int], Tensor] = {}  # within the rank: is F, stage, microbatch
        self._borrowed: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        self._reducing: list[dist.Work] = []
        # What the loss of one microbatch counts in the mean over all: the gradient that backward starts from.
        self._loss_weight = 1 / (equipment.problem.num_microbatches * equipment.world.num_replicas)
        stages = equipment.stages
        self._ops: dict[OpKind, Callable[[Op, Any], Tensor | None]] = {
            OpKind.F: self._forward,
            OpKind.B: lambda op, grad: stages[op.stage].backward_input(op.microbatch, grad),
            OpKind.W: lambda op, _: stages[op.stage].backward_weights(op.microbatch),
            OpKind.BW: lambda op, grad: stages[op.stage].backward(op.microbatch, grad),
            OpKind.R: lambda op, _: None,  # what it starts is in the plan
        }
        for gradients in equipment.gradients.values():
            gradients.clear()

    @property
    def recorder(self) -> Recorder:
        """What notes when ops run."""
        return self._recorder

    def run(self, step: Step) -> None:
        """One op: receive, compute, hand on."""
        for message in step.posts:
            self._have.transport.post(message)
        given = self._take(step)
        self._recorder.begin(step.op)
        made = self._ops[step.op.kind](step.op, given)
        self._recorder.end()
        if made is not None:
            self._hand_on(step, made)
        if step.op.kind in (OpKind.W, OpKind.BW):
            for buffer in self._borrowed.pop((step.op.stage, step.op.microbatch), ()):
                self._have.transport.buffers.give_back(buffer)
        for model_stage in step.sums:
            self._reducing += self._have.gradients[model_stage].reduce()

    def _take(self, step: Step) -> Any:
        """What an op works on: a message, what this rank made, the batch, a loss's weight; or nothing."""
        kind, stage, microbatch = step.op
        if kind in (OpKind.W, OpKind.R):
            return None
        if step.awaits is not None:
            buffer = self._have.transport.receive(step.awaits)
            self._borrowed[stage, microbatch].append(buffer)
            return buffer
        routes, cuts = self._have.routes, self._have.cuts
        number = routes.slice_of(stage)
        if kind is OpKind.F and routes.source(stage, microbatch) is None:
            return cuts.part(self._inputs[microbatch], number)
        if kind is not OpKind.F and routes.target(stage, microbatch) is None:
            weight = self._loss_weight * cuts.share(number)
            return torch.full_like(self._losses[microbatch][number], weight)
        return self._handed.pop((kind is OpKind.F, stage, microbatch))

    def _forward(self, op: Op, x: Tensor) -> Tensor:
        stage, microbatch, world = self._have.stages[op.stage], op.microbatch, self._have.world
        routes = self._have.routes
        number, fed = routes.slice_of(op.stage), routes.target(op.stage, microbatch)
        target = self._have.cuts.part(self._targets[microbatch], number) if fed is None else None
        step, place = self._place(microbatch)
        place += number * world.num_replicas * self._have.problem.num_microbatches
        autocast = self._have.autocast
        with (
            seeded(self._have.seed, step, routes.model_stage(op.stage), place, world.device),
            torch.autocast(world.device.type, autocast, enabled=autocast is not None),
        ):
            made = stage.forward(
                microbatch, x, None if target is None else lambda y: self._have.loss(y, target)
            )
        if fed is None:
            self._note_loss(op, made)
        elif TensorSpec.of(made) != self._have.specs[fed]:
            raise InputError(
                f"{op} gives {TensorSpec.of(made)}: give {self._have.specs[fed]}, as at the start"
            )
        return made

    def _place(self, microbatch: int) -> tuple[int, int]:
        """The step of a microbatch, and which of the step's it is: replicas share one numbering."""
        return self._number, self._have.world.replica * self._have.problem.num_microbatches + microbatch

    def _note_loss(self, op: Op, loss: Tensor) -> None:
        if loss.ndim:
            raise InputError(f"the loss has shape {tuple(loss.shape)}: give its mean, a scalar")
        # Where it costs no waiting for the device, before anything goes back: no rank then ends the step.
        if self._have.checks_loss and loss.device.type == "cpu":
            _check_finite(loss, op.microbatch)
        self._losses.setdefault(op.microbatch, {})[self._have.routes.slice_of(op.stage)] = loss

    def _hand_on(self, step: Step, made: Tensor) -> None:
        """Send what an op made, or keep it for the stage beside it on this rank."""
        kind, stage, microbatch = step.op
        # A module may hand its input through; that buffer is given back before others are done with it.
        borrowed = self._borrowed.get((stage, microbatch), ())
        if any(shares_memory(made, buffer) for buffer in borrowed):
            made = made.clone()
        if step.sends is not None:
            self._have.transport.send(step.sends, made.contiguous())
        else:
            routes = self._have.routes
            beside = (routes.target if kind is OpKind.F else routes.source)(stage, microbatch)
            if beside is not None:
                self._handed[kind is OpKind.F, beside, microbatch] = made

    def finish(self) -> Tensor | None:
        """Wait for what still runs beside; the loss where the last stage is."""
        self._have.transport.finish()
        self._settle_sums()
        return self._mean_loss() if self._losses else None

    def _settle_sums(self) -> None:
        for work in self._reducing:
            self._have.transport.settle(work, lambda: "the sum of gradients over the replicas")
        self._reducing.clear()

    def _mean_loss(self) -> Tensor:
        """Over slices, microbatches and replicas; of this rank's microbatches it is its part in that."""
        have, whole = self._have, {}
        for microbatch, parts in sorted(self._losses.items()):
            weighted = [loss * have.cuts.share(number) for number, loss in sorted(parts.items())]
            whole[microbatch] = torch.stack(weighted).sum()
        losses = torch.stack(list(whole.values()))
        if have.checks_loss and not losses.isfinite().all():  # once a step the device is waited for
            for microbatch, loss in zip(whole, losses, strict=True):
                _check_finite(loss, microbatch)
        mean = losses.mean() * (len(losses) / have.problem.num_microbatches)
        group = have.groups[have.routes.num_model_stages - 1]
        if group is not None:
            mean = mean / have.world.num_replicas
            work = dist.all_reduce(mean, group=group, async_op=True)
            assert work is not None
            have.transport.settle(work, lambda: "the mean loss over the replicas")
        return mean


def _check_finite(loss: Tensor, microbatch: int) -> None:
    if not math.isfinite(value := loss.item()):
        raise LossError(
            f"the loss of microbatch {microbatch} is {value}: lower the learning rate, or look at the batch"
        )
