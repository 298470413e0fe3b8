"""The executor: walks one rank's part of a schedule, op by op, in exactly the order given.

Whatever depends on rank, stage or order is in the plan (:mod:`runtime.communication`) or in a table; there
is no branch on the name of a schedule.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from runtime.bulletin import Bulletin
from runtime.clock import Recorder, make_recorder
from runtime.communication import Step, plan_rank
from runtime.errors import LossError
from runtime.gradients import Gradients
from runtime.preparation import agree_on_specs, check_fit, check_same_schedule, meet
from runtime.randomness import seeded
from runtime.shapes import TensorSpec
from runtime.stage import Division, Stage
from runtime.transport import Transport
from runtime.watch import Watch
from runtime.world import World
from synth.errors import InputError
from synth.measured import MeasuredOp
from synth.ops import Op, OpKind
from synth.schedule import Schedule

Loss = Callable[[Tensor, Tensor], Tensor]
"""From the last stage's output and the target of one microbatch to their mean loss, a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a schedule is executed.

    Parameters
    ----------
    timeout_s
        For how long a rank waits for a message or a note.
    patience_s
        For how long a process may give no sign of life.
    seed
        Of the random numbers in the modules' forwards (:mod:`runtime.randomness`).
    autocast
        The dtype of mixed precision; parameters and their gradients keep theirs.
    division
        How B and W divide a backward, for all stages; by default what each stage's layers allow.
    """

    timeout_s: float = 60.0
    patience_s: float = 10.0
    seed: int = 0
    autocast: torch.dtype | None = None
    division: Division | None = None


class PipelineRunner:
    """One rank of a pipeline that executes a schedule.

    Parameters
    ----------
    schedule
        What to execute, the same on all ranks.
    modules
        The modules of this rank's stages, by stage, on the world's device.
    world
        This process among all (:func:`runtime.world.join`).
    microbatch
        The shape and dtype of one microbatch of the batch.
    loss
        Called where the last stage is.
    options
        How.

    Raises
    ------
    InputError
        When schedule, modules, shapes and ranks do not fit one another.
    PeerError
        When another rank finds so.
    """

    def __init__(
        self,
        schedule: Schedule,
        modules: Mapping[int, nn.Module],
        *,
        world: World,
        microbatch: TensorSpec,
        loss: Loss,
        options: Options | None = None,
    ) -> None:
        self.world, self.schedule, self.modules = world, schedule, dict(modules)
        self.options = options or Options()
        self.completed_steps = 0
        self._loss, self._problem = loss, schedule.problem
        self._doing = "starting"
        num_processes = world.num_ranks * world.num_replicas
        self._watch = Watch(world.store, world.number, num_processes, self.options.patience_s)
        generation = world.store.add(f"runners/{world.number}", 1)
        notes = dist.PrefixStore(f"runner/{generation}", world.store)
        self.bulletin = Bulletin(notes, self._watch, self.options.timeout_s)
        with self._spreading():
            check_fit(schedule, modules, world)
            check_same_schedule(schedule, world, self.bulletin)
            self._plan = plan_rank(self._problem, schedule.orders, world.rank)
            self._stages = {s: Stage(s, module, self.options.division) for s, module in modules.items()}
            self._specs = agree_on_specs(
                modules, self._problem.num_stages, microbatch, world, self.bulletin, self.options.autocast
            )
            meet(world, self.bulletin, num_processes)
        self._gradients = {s: Gradients(module, world.replicas) for s, module in modules.items()}
        self._transport = Transport(world, self._watch, self._specs, self.options.timeout_s)
        self._recorder: Recorder = make_recorder(world.device)
        self._microbatch = microbatch
        # What the loss of one microbatch counts in the mean over all: the gradient that backward starts from.
        self._loss_weight = 1 / (self._problem.num_microbatches * world.num_replicas)
        self._ops: dict[OpKind, Callable[[Op, Any], Tensor | None]] = {
            OpKind.F: self._forward,
            OpKind.B: lambda op, grad: self._stages[op.stage].backward_input(op.microbatch, grad),
            OpKind.W: lambda op, _: self._stages[op.stage].backward_weights(op.microbatch),
            OpKind.BW: lambda op, grad: self._stages[op.stage].backward(op.microbatch, grad),
        }

    @property
    def holds_first_stage(self) -> bool:
        """Whether this rank takes the batch."""
        return 0 in self._stages

    @property
    def holds_last_stage(self) -> bool:
        """Whether this rank takes the target and knows the loss."""
        return self._problem.num_stages - 1 in self._stages

    @property
    def watch(self) -> Watch:
        """Where failures of other ranks become known."""
        return self._watch

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of this rank's stages, for an optimizer."""
        for stage in sorted(self.modules):
            yield from self.modules[stage].parameters()

    def step(self, batch: Tensor | None = None, target: Tensor | None = None) -> Tensor | None:
        """Run forward and backward of one batch; afterwards every parameter's ``.grad`` is this batch's.

        Parameters
        ----------
        batch, target
            This replica's; rows are the microbatches' one after another. The batch is needed where the first
            stage is, the target where the last one is, and both are ignored elsewhere.

        Returns
        -------
        The mean loss over microbatches and replicas where the last stage is, else None.

        Raises
        ------
        InputError
            When batch or target are missing or of another shape.
        LossError
            When the loss of a microbatch is not finite.
        PipelineError
            When a message does not come in time, or another rank failed.
        """
        self._doing = f"step {self.completed_steps}"
        with self._spreading():
            self._watch.check()
            self._begin(batch, target)
            for step in self._plan:
                self._doing = f"{step.op} of step {self.completed_steps}"
                self._run(step)
            loss = self._finish()
        self.completed_steps += 1
        return loss

    def times(self) -> list[MeasuredOp]:
        """When the ops of the last step ran, by this process's clock; once."""
        return self._recorder.times()

    def close(self) -> None:
        """Leave; the other ranks go on to wait for what this one owes them, so leave together."""
        self._transport.close()
        self._watch.close()

    # One step.

    def _begin(self, batch: Tensor | None, target: Tensor | None) -> None:
        self._inputs = self._split("batch", batch) if self.holds_first_stage else ()
        if self.holds_first_stage and TensorSpec.of(self._inputs[0]) != self._microbatch:
            given = TensorSpec.of(self._inputs[0])
            raise InputError(f"a microbatch of the batch is {given}: give {self._microbatch}")
        self._targets = self._split("target", target) if self.holds_last_stage else ()
        self._losses: dict[int, Tensor] = {}
        self._handed: dict[tuple[bool, int, int], Tensor] = {}
        self._borrowed: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        self._reducing: list[dist.Work] = []
        self._recorder = make_recorder(self.world.device)
        for gradients in self._gradients.values():
            gradients.clear()

    def _split(self, name: str, whole: Tensor | None) -> tuple[Tensor, ...]:
        """The microbatches of a batch or target, on the device."""
        count = self._problem.num_microbatches
        if whole is None:
            raise InputError(f"rank {self.world.rank} is given no {name}, which its stage needs: give it")
        if whole.ndim == 0 or whole.shape[0] == 0 or whole.shape[0] % count:
            rows = whole.shape[0] if whole.ndim else 0
            raise InputError(f"the {name} has {rows} rows: give a multiple of the {count} microbatches")
        return tuple(whole.to(self.world.device).split(whole.shape[0] // count))

    def _run(self, step: Step) -> None:
        """One op: receive, compute, hand on."""
        for message in step.posts:
            self._transport.post(message)
        given = self._take(step)
        self._recorder.begin(step.op)
        made = self._ops[step.op.kind](step.op, given)
        self._recorder.end()
        if made is not None:
            self._hand_on(step, made)
        if step.op.kind in (OpKind.W, OpKind.BW):
            for buffer in self._borrowed.pop((step.op.stage, step.op.microbatch), ()):
                self._transport.buffers.give_back(buffer)
        if step.ends_stage:
            self._reducing += self._gradients[step.op.stage].reduce()

    def _take(self, step: Step) -> Any:
        """What an op works on: a message, what this rank made, the batch, or a loss's weight; W: nothing."""
        kind, stage, microbatch = step.op
        if kind is OpKind.W:
            return None
        if step.awaits is not None:
            buffer = self._transport.receive(step.awaits)
            self._borrowed[stage, microbatch].append(buffer)
            return buffer
        if kind is OpKind.F and stage == 0:
            return self._inputs[microbatch]
        if kind is not OpKind.F and stage + 1 == self._problem.num_stages:
            return torch.full_like(self._losses[microbatch], self._loss_weight)
        return self._handed.pop((kind is OpKind.F, stage, microbatch))

    def _forward(self, op: Op, x: Tensor) -> Tensor:
        stage, microbatch, world = self._stages[op.stage], op.microbatch, self.world
        is_last = op.stage + 1 == self._problem.num_stages
        target = self._targets[microbatch] if is_last else None
        # Replicas share one numbering of microbatches.
        number = world.replica * self._problem.num_microbatches + microbatch
        autocast = self.options.autocast
        with (
            seeded(self.options.seed, self.completed_steps, op.stage, number, world.device),
            torch.autocast(world.device.type, autocast, enabled=autocast is not None),
        ):
            made = stage.forward(microbatch, x, None if target is None else lambda y: self._loss(y, target))
        if is_last:
            self._note_loss(op, made)
        elif TensorSpec.of(made) != self._specs[op.stage + 1]:
            raise InputError(
                f"{op} gives {TensorSpec.of(made)}: give {self._specs[op.stage + 1]}, as at the start"
            )
        return made

    def _note_loss(self, op: Op, loss: Tensor) -> None:
        if loss.ndim:
            raise InputError(f"the loss has shape {tuple(loss.shape)}: give its mean, a scalar")
        # Where it costs no waiting for the device, before anything goes back: no rank then ends the step.
        if loss.device.type == "cpu":
            _check_finite(loss, op.microbatch)
        self._losses[op.microbatch] = loss

    def _hand_on(self, step: Step, made: Tensor) -> None:
        """Send what an op made, or keep it for the stage beside it on this rank."""
        kind, stage, microbatch = step.op
        # A module may hand its input through; that buffer is given back before others are done with it.
        borrowed = self._borrowed.get((stage, microbatch), ())
        if any(made.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for b in borrowed):
            made = made.clone()
        if step.sends is not None:
            self._transport.send(step.sends, made.contiguous())
        elif kind is not OpKind.F or stage + 1 < self._problem.num_stages:
            beside = stage + 1 if kind is OpKind.F else stage - 1
            self._handed[kind is OpKind.F, beside, microbatch] = made

    def _finish(self) -> Tensor | None:
        """Wait for what still runs beside; the loss where the last stage is."""
        self._doing = f"the end of step {self.completed_steps}"
        self._transport.finish()
        for work in self._reducing:
            self._transport.settle(work, lambda: "the sum of gradients over the replicas")
        if not self.holds_last_stage:
            return None
        losses = torch.stack([loss for _, loss in sorted(self._losses.items())])
        for microbatch, loss in enumerate(losses):
            _check_finite(loss, microbatch)
        mean = losses.mean()
        if self.world.replicas is not None:
            mean = mean / self.world.num_replicas
            work = dist.all_reduce(mean, group=self.world.replicas, async_op=True)
            assert work is not None
            self._transport.settle(work, lambda: "the mean loss over the replicas")
        return mean

    @contextmanager
    def _spreading(self) -> Iterator[None]:
        """Tell the other ranks of any error inside."""
        with self._watch.spreading(lambda: self._doing):
            yield


def _check_finite(loss: Tensor, microbatch: int) -> None:
    if not math.isfinite(value := loss.item()):
        raise LossError(
            f"the loss of microbatch {microbatch} is {value}: lower the learning rate, or look at the batch"
        )
