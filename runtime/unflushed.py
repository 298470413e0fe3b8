"""Training without flushes: batches follow one another through the pipeline, and stages update on the way.

A stage updates its weights behind its own last backward of an update's microbatches, while batches that began
before are still under way on it with the versions they began with (:mod:`runtime.versions`). The orders are
a document's, its steady state repeated (:mod:`runtime.rolling`); the pipeline empties only where the caller
said that it would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.optim import Optimizer

from runtime.clock import make_recorder
from runtime.communication import Step
from runtime.executor import Options, PipelineRunner
from runtime.gradients import Exchange
from runtime.one_step import Equipment, Loss, StepRun
from runtime.preparation import check_alike
from runtime.replicas import check_own_parameters
from runtime.rolling import check_updates, plan_rolling, roll
from runtime.shapes import TensorSpec
from runtime.versions import Versions, WeightPolicy
from runtime.world import World
from synth.errors import InputError
from synth.ops import OpKind
from synth.schedule import Schedule


class RollingRun(StepRun):
    """Batches under way, several at a time; microbatches count on from the first batch's.

    Parameters
    ----------
    equipment
        What it runs with; its problem has the microbatches of one batch.
    policy
        Which version a microbatch uses.
    versions, optimizers
        By stage.
    number
        Of the step that the first batch is.
    """

    def __init__(
        self,
        equipment: Equipment,
        policy: WeightPolicy,
        versions: Mapping[int, Versions],
        optimizers: Mapping[int, Optimizer],
        number: int,
    ) -> None:
        super().__init__(equipment, make_recorder(equipment.world.device), number, (), ())
        self._policy, self._versions, self._optimizers = policy, versions, optimizers
        self._batch_microbatches = equipment.problem.num_microbatches
        self._first = {stage: (v.oldest, v.newest) for stage, v in versions.items()}
        self._used: dict[int, dict[int, int]] = defaultdict(dict)  # by stage and microbatch under way
        unit = policy.unit(self._batch_microbatches)
        self._loss_weight = 1 / (unit * equipment.world.num_replicas)

    def enter(self, batch: int, inputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> None:
        """Take the data of a batch; all forwards of the one before have run."""
        first = batch * self._batch_microbatches
        self._recorder = make_recorder(self._have.world.device)
        self._inputs = dict(enumerate(inputs, first))
        self._targets = dict(enumerate(targets, first))

    def run(self, step: Step) -> None:
        """One op, with the weights of its microbatch; behind an update's last backward, the update."""
        kind, stage, microbatch = step.op
        used = self._used[stage]
        if kind is OpKind.F:
            used[microbatch] = self._version(stage, microbatch)
        self._versions[stage].use(used[microbatch])
        super().run(step)
        if kind in (OpKind.W, OpKind.BW):
            del used[microbatch]
        if step.sums:
            self._update(stage)

    def loss(self, batch: int) -> Tensor | None:
        """The mean loss of a batch whose segment has run, where the last stage is.

        The batch before has run its backwards by then, and its losses go.
        """
        first = batch * self._batch_microbatches
        self._losses = {i: loss for i, loss in self._losses.items() if i >= first}
        return self._mean_loss() if self._losses else None

    def _version(self, stage: int, microbatch: int) -> int:
        """The version that a microbatch uses, by the policy."""
        if self._policy is not WeightPolicy.DOUBLE_BUFFERED:
            return self._versions[stage].newest
        oldest, newest = self._first[stage]
        return max(newest + microbatch // self._batch_microbatches - 1, oldest)

    def _update(self, stage: int) -> None:
        self._settle_sums()
        newest = self._versions[stage].newest
        next_batch = newest if self._policy is WeightPolicy.DOUBLE_BUFFERED else newest + 1
        self._versions[stage].advance(self._optimizers[stage], min([*self._used[stage].values(), next_batch]))
        self._have.gradients[stage].clear()

    def _place(self, microbatch: int) -> tuple[int, int]:
        batch, within = divmod(microbatch, self._batch_microbatches)
        step, number = super()._place(within)
        return step + batch, number


class UnflushedRunner(PipelineRunner):
    """One rank of a pipeline that trains by a schedule of several batches, and does the updates itself.

    With replicas the gradients of an update are summed before it. Between steps the parameters show whichever
    version ran last; after the last batch of :meth:`begin` they show the newest.

    Parameters
    ----------
    schedule
        What to execute: two or more batches, from the second on a steady state that is repeated.
    modules, world, microbatch, loss, options
        As :class:`~runtime.executor.PipelineRunner` takes them.
    optimizers
        Of this rank's stages, by stage; each is stepped behind the last backward of an update on its stage.
    batch_microbatches
        How many microbatches, one after the other, are a batch: that of one step.

    Raises
    ------
    InputError
        When they do not fit one another, or the schedule has no steady state of such batches.
    """

    def __init__(
        self,
        schedule: Schedule,
        modules: Mapping[int, nn.Module],
        *,
        world: World,
        microbatch: TensorSpec,
        loss: Loss,
        optimizers: Mapping[int, Optimizer],
        batch_microbatches: int,
        options: Options | None = None,
    ) -> None:
        self._batch_microbatches = batch_microbatches
        super().__init__(schedule, modules, world=world, microbatch=microbatch, loss=loss, options=options)
        with self._spreading():
            if self.options.exchange is not Exchange.ALL_REDUCE:
                raise InputError("without flushes every replica updates all weights: exchange by all-reduce")
            self._rolling = roll(schedule.problem, schedule.orders, batch_microbatches)
            check_own_parameters(self.modules, "without flushes every stage has versions of its own")
            if set(optimizers) != set(modules):
                raise InputError(
                    f"rank {world.rank} is given optimizers of stages {sorted(optimizers)} and modules of "
                    f"stages {sorted(modules)}: give one for each"
                )
        self.versions = {stage: Versions(module) for stage, module in modules.items()}
        self._optimizers = dict(optimizers)
        self._one_batch = replace(
            self._equipment, problem=replace(schedule.problem, num_microbatches=batch_microbatches)
        )
        self._policy = WeightPolicy.FLUSH
        self._to_come = self._announced = 0
        self._run: RollingRun | None = None
        self._steps: Iterator[Step] = iter(())
        self._next: Step | None = None
        self._batch = 0

    @property
    def microbatches_per_step(self) -> int:
        """How many microbatches the batch of one step is."""
        return self._rolling.batch_microbatches

    def begin(self, policy: WeightPolicy, num_batches: int) -> None:
        """Say how the next batches train, and how many come before the pipeline empties.

        After double buffering, or a checkpoint of it, double buffering goes on where it was: emptying the
        pipeline changes no number. Otherwise the first batch uses the newest version.

        Raises
        ------
        InputError
            When batches announced before are still to come, the schedule mixes the gradients of updates, or
            another rank announces something else.
        """
        self._doing = "beginning"
        with self._spreading():
            if self._to_come:
                raise InputError(f"{self._to_come} announced batches are still to come: run them before")
            if num_batches < 1:
                raise InputError(f"num_batches is {num_batches}: give an integer ≥ 1")
            unit = policy.unit(self.microbatches_per_step)
            check_updates(self.schedule.problem, self.schedule.orders, unit)
            self._announced += 1
            given = {"weights": policy, "num_batches": num_batches}
            check_alike(f"announcement {self._announced}", given, self.world, self.bulletin)
        self._policy, self._to_come = policy, num_batches
        if policy is not WeightPolicy.DOUBLE_BUFFERED:
            for versions in self.versions.values():
                versions.forget_older()

    def step(self, batch: Tensor | None = None, target: Tensor | None = None) -> Tensor | None:
        """Run what the order holds from the first op of this batch to the first of the next one.

        Parameters
        ----------
        batch, target
            This replica's, as :meth:`~runtime.executor.PipelineRunner.step` takes them.

        Returns
        -------
        The mean loss over microbatches and replicas where the last stage is, else None.

        Raises
        ------
        InputError
            When batch or target are missing or of another shape, or :meth:`begin` announced fewer batches.
        LossError
            When the loss of a microbatch is not finite.
        PipelineError
            When a message does not come in time, or another rank failed.
        """
        self._doing = f"step {self.completed_steps}"
        with self._spreading():
            self._watch.check()
            if not self._to_come:
                raise InputError("no batch is announced: call begin before step")
            run = self._run or self._start()
            run.enter(self._batch, self._inputs(batch), self._targets(target))
            self._recorder = run.recorder
            self._run_segment(run)
            loss = run.loss(self._batch)
            self._batch += 1
            self._to_come -= 1
            if self._next is None:
                self._end()
        self.completed_steps += 1
        return loss

    def extra_state(self, stage: int) -> dict[str, Tensor]:
        """The weights before the newest, where double buffering goes on with them.

        Raises
        ------
        InputError
            While batches are under way.
        """
        if self._run is not None:
            raise InputError(f"{self._to_come} announced batches are still to come: save behind the last one")
        return self.versions[stage].older()

    def load_extra_state(self, stage: int, state: Mapping[str, Tensor]) -> None:
        """Go on with such weights before the newest."""
        self.versions[stage].restore(state)

    def _shared_options(self) -> dict[str, object]:
        """What has to be the same on all ranks."""
        return super()._shared_options() | {"batch_microbatches": self._batch_microbatches}

    def _divides(self, stage: int, microbatch: int) -> bool:
        """Whether a stage of this rank runs B and W of a microbatch: every batch is divided alike."""
        return super()._divides(stage, microbatch % self._batch_microbatches)

    def _start(self) -> RollingRun:
        """Fill the pipeline anew."""
        num_batches = 1 if self._policy is WeightPolicy.FLUSH else self._to_come
        unit = self._policy.unit(self.microbatches_per_step)
        self._run = RollingRun(
            self._one_batch, self._policy, self.versions, self._optimizers, self.completed_steps
        )
        self._steps = plan_rolling(self._rolling, self.world.rank, num_batches, unit)
        self._next, self._batch = next(self._steps, None), 0
        return self._run

    def _run_segment(self, run: RollingRun) -> None:
        behind = (self._batch + 1) * self.microbatches_per_step
        while self._next is not None and self._next.op.microbatch < behind:
            self._doing = f"{self._next.op} of step {self.completed_steps}"
            run.run(self._next)
            self._next = next(self._steps, None)

    def _end(self) -> None:
        """The pipeline is empty."""
        self._transport.finish()
        self._run = None
        for versions in self.versions.values():
            versions.use(versions.newest)
