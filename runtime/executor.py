"""The executor: walks one rank's part of a schedule, op by op, in exactly the order given.

Whatever depends on rank, stage or order is in the plan (:mod:`runtime.communication`) or in a table; there
is no branch on the name of a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from runtime.batches import take_batch, take_target
from runtime.bulletin import Bulletin
from runtime.clock import clock_offset_ns, make_recorder
from runtime.cuts import Cuts
from runtime.gradients import Exchange, make_gradients
from runtime.one_step import Equipment, Loss, StepRun
from runtime.posting import plan_rank_within_memory
from runtime.preparation import agree_on_specs, check_alike, check_fit, check_same_schedule, meet
from runtime.replicas import check_own_parameters, check_same_weights, make_groups
from runtime.routes import Routes
from runtime.shapes import TensorSpec
from runtime.slices import make_stages
from runtime.stage import Division, Stage, check_recomputing
from runtime.storage import StoringRun, agree_on_storage
from runtime.transport import Transport
from runtime.watch import Watch
from runtime.world import World
from synth.measured import MeasuredOp
from synth.ops import OpKind
from synth.schedule import Schedule


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
    recompute
        Whether stages keep their blocks' inputs alone and compute the rest again in their backward.
    exchange
        What replicas do with their gradients.
    slice_positions
        How many positions each sequence slice has, where the schedule has slices; by default as equal as can
        be.
    """

    timeout_s: float = 60.0
    patience_s: float = 10.0
    seed: int = 0
    autocast: torch.dtype | None = None
    division: Division | None = None
    recompute: bool = False
    exchange: Exchange = Exchange.ALL_REDUCE
    slice_positions: tuple[int, ...] | None = None


class _Aside(NamedTuple):
    """How steps that do not count are called, and what follows each of their ops."""

    name: str
    behind_op: Callable[[], None]


class PipelineRunner:
    """One rank of a pipeline that executes a schedule.

    Parameters
    ----------
    schedule
        What to execute, the same on all ranks.
    modules
        The modules of this rank's stages, by stage of the model (:attr:`synth.feed.Feed.model_stage`; in a
        plain chain the stage), on the world's device. Stages that run one stage of the model share it; on
        other ranks its replicas have the same weights and get the same gradients.
    world
        This process among all (:func:`runtime.world.join`).
    microbatch
        The shape and dtype of one microbatch of the batch.
    loss
        Called where the last stage is; a mean over the second dimension where that is cut into slices.
    options
        How.

    Raises
    ------
    InputError
        When schedule, modules, shapes and ranks do not fit one another, or the schedule's stages are no
        directions and slices of a chain.
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
        self.world, self.schedule = world, schedule
        self.modules = dict(sorted(modules.items()))  # replicas exchange stage by stage, in one order
        self.options = options or Options()
        self._microbatch = microbatch
        self.completed_steps = 0
        self._problem = schedule.problem
        self._doing = "starting"
        self._aside: _Aside | None = None
        num_processes = world.num_ranks * world.num_replicas
        self._watch = Watch(world.store, world.number, num_processes, self.options.patience_s)
        generation = world.store.add(f"runners/{world.number}", 1)
        notes = dist.PrefixStore(f"runner/{generation}", world.store)
        self.bulletin = Bulletin(notes, self._watch, self.options.timeout_s)
        with self._spreading():
            self.routes = Routes(self._problem)
            check_fit(self.routes, modules, world)
            check_same_schedule(schedule, world, self.bulletin)
            check_alike("options", self._shared_options(), world, self.bulletin)
            self._plan = plan_rank_within_memory(self._problem, schedule.orders, world.rank)
            cuts = Cuts(self.routes.num_slices, microbatch, self.options.slice_positions)
            self._stages = self._make_stages()
            specs = agree_on_specs(
                self.routes, modules, microbatch, cuts, world, self.bulletin, self.options.autocast
            )
            order, autocast = schedule.orders[world.rank], self.options.autocast
            specs |= agree_on_storage(self.routes, self._stages, specs, order, world, self.bulletin, autocast)
            check_same_weights(self.routes, modules, world, self.bulletin)
            if world.num_replicas > 1 or any(len(self.routes.holders(stage)) > 1 for stage in modules):
                check_own_parameters(self.modules, "replicas sum gradients stage by stage")
            meet(world, self.bulletin, num_processes)
            groups = make_groups(self.routes, world, self.options.timeout_s)
        self._transport = Transport(world, self._watch, specs, self.options.timeout_s, self.routes.storing)
        self._equipment = Equipment(
            problem=self._problem,
            routes=self.routes,
            cuts=cuts,
            world=world,
            groups=groups,
            stages=self._stages,
            gradients={
                stage: make_gradients(module, groups[stage], self.options.exchange)
                for stage, module in self.modules.items()
            },
            specs=specs,
            transport=self._transport,
            loss=loss,
            seed=self.options.seed,
            autocast=self.options.autocast,
        )
        self._recorder = make_recorder(world.device)

    @property
    def holds_first_stage(self) -> bool:
        """Whether this rank takes the batch."""
        return 0 in self.modules

    @property
    def holds_last_stage(self) -> bool:
        """Whether this rank takes the target and knows the loss."""
        return self.routes.num_model_stages - 1 in self.modules

    @property
    def is_first_with_loss(self) -> bool:
        """Whether this is the first of the processes that know the loss."""
        last = self.routes.holders(self.routes.num_model_stages - 1)
        return self.world.replica == 0 and self.world.rank == last[0]

    @property
    def microbatches_per_step(self) -> int:
        """Into how many microbatches the batch of one step is split."""
        return self._problem.num_microbatches

    @property
    def idle_bytes(self) -> int:
        """What buffers for messages hold while nothing uses them."""
        return self._transport.buffers.idle_bytes

    @property
    def watch(self) -> Watch:
        """Where failures of other ranks become known."""
        return self._watch

    def parameters(self, stage: int | None = None) -> Iterator[nn.Parameter]:
        """What an optimizer of this rank updates: the parameters of a stage of it, or of all.

        With ``reduce-scatter`` this replica's shares of them; :meth:`gather` follows the update.
        """
        for own in sorted(self.modules) if stage is None else (stage,):
            yield from self._equipment.gradients[own].parameters()

    def gather(self) -> None:
        """After an update: every replica gets what the others updated, where each has updated a share."""
        self._doing = f"the gathering of parameters behind step {self.completed_steps - 1}"
        with self._spreading():
            started = [work for each in self._equipment.gradients.values() for work in each.gather()]
            for work in started:
                self._transport.settle(work, lambda: "the parameters that other replicas update")

    def optimizer_state(self, stage: int, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's state by its stage's parameters; where replicas have shares, all of them call it."""
        return self._equipment.gradients[stage].whole_state(optimizer)

    def load_optimizer_state(
        self, stage: int, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Give an optimizer of :meth:`parameters` a state that :meth:`optimizer_state` gave."""
        self._equipment.gradients[stage].load_state(optimizer, state)

    def step(self, batch: Tensor | None = None, target: Tensor | None = None) -> Tensor | None:
        """Run forward and backward of one batch; afterwards :meth:`parameters` have its gradients.

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
        name = f"step {self.completed_steps}" if self._aside is None else self._aside.name
        self._doing = name
        with self._spreading():
            self._watch.check()
            self._recorder = make_recorder(self.world.device)
            inputs, targets = self._inputs(batch), self._targets(target)
            kind = StoringRun if self.routes.storing else StepRun
            run = kind(self._equipment, self._recorder, self.completed_steps, inputs, targets)
            for step in self._plan:
                self._doing = f"{step.op} of {name}"
                run.run(step)
                if self._aside is not None:
                    self._aside.behind_op()
            self._doing = f"the end of {name}"
            loss = run.finish()
        self.completed_steps += 1
        return loss

    @contextmanager
    def aside(self, name: str, behind_op: Callable[[], None]) -> Iterator[None]:
        """Steps inside, called ``name``, do not count, whatever their loss is; each op is followed by a call.

        Of the last one before the times stay and the gradients go.
        """
        before = self.completed_steps, self._recorder, self._equipment, self._aside
        self._equipment, self._aside = replace(self._equipment, checks_loss=False), _Aside(name, behind_op)
        for gradients in self._equipment.gradients.values():
            gradients.clear()
        try:
            yield
        finally:
            self.completed_steps, self._recorder, self._equipment, self._aside = before

    def times(self) -> list[MeasuredOp]:
        """When the ops of the last step ran, by this process's clock."""
        return self._recorder.times()

    def clock_offset_ns(self) -> int:
        """What to subtract from :meth:`times` to have them by rank 0's clock; every rank calls this."""
        self._doing = "the search for the clocks' differences"
        with self._spreading():
            return clock_offset_ns(self.world, self._transport)

    def extra_state(self, stage: int) -> dict[str, Tensor]:
        """What a checkpoint of a stage holds beside the module and its optimizer: nothing here."""
        return {}

    def load_extra_state(self, stage: int, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`extra_state` gave, maybe of another kind of run, which leaves it out here."""

    def close(self) -> None:
        """Leave; the other ranks go on to wait for what this one owes them, so leave together."""
        self._transport.close()
        self._watch.close()

    def _shared_options(self) -> dict[str, object]:
        """What has to be the same on all ranks."""
        options = self.options
        return {
            "microbatches": self._microbatch,
            "seed": options.seed,
            "autocast": options.autocast,
            "exchange": options.exchange,
            "slice_positions": options.slice_positions,
        }

    def _make_stages(self) -> dict[int, Stage]:
        order = self.schedule.orders[self.world.rank]
        self._divided = frozenset((op.stage, op.microbatch) for op in order if op.kind is OpKind.B)
        made = make_stages(
            self.routes,
            self.modules,
            self.world.rank,
            self.options.division,
            divides=self._divides,
            recompute=self.options.recompute,
        )
        check_recomputing(made, {stage for stage, _ in self._divided})
        return made

    def _divides(self, stage: int, microbatch: int) -> bool:
        """Whether a stage of this rank runs B and W of a microbatch."""
        return (stage, microbatch) in self._divided

    def _inputs(self, batch: Tensor | None) -> tuple[Tensor, ...]:
        """The microbatches that this rank takes."""
        count = self.microbatches_per_step
        return take_batch(batch, count, self.world, self._microbatch) if self.holds_first_stage else ()

    def _targets(self, target: Tensor | None) -> tuple[Tensor, ...]:
        """The targets of the microbatches whose loss this rank knows."""
        count, positions = self.microbatches_per_step, self._equipment.cuts.num_positions
        return take_target(target, count, self.world, positions) if self.holds_last_stage else ()

    @contextmanager
    def _spreading(self) -> Iterator[None]:
        """Tell the other ranks of any error inside."""
        with self._watch.spreading(lambda: self._doing):
            yield
