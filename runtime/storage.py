"""Steps in which ranks store what others keep: what passes, how large it is, and what an op does with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runtime.bulletin import Bulletin
from runtime.communication import Step
from runtime.eviction import EvictingStage
from runtime.one_step import StepRun
from runtime.routes import Routes
from runtime.shapes import TensorSpec
from runtime.stage import Stage
from runtime.world import World
from synth.ops import Op, OpKind

_BACKWARDS = (OpKind.B, OpKind.BW)


def agree_on_storage(
    routes: Routes,
    stages: Mapping[int, Stage],
    specs: Mapping[int, TensorSpec],
    order: Sequence[Op],
    world: World,
    bulletin: Bulletin,
    autocast: torch.dtype | None,
) -> dict[int, TensorSpec]:
    """What passes to the stages that store, and back: those on this rank, and those that store for it.

    Parameters
    ----------
    routes, stages, specs
        This rank's stages, and what each takes.
    order
        Its ops: whether a backward is divided may change what is kept for it.
    world, bulletin
        Over what ranks agree.
    autocast
        How stages compute.
    """
    for stage, one in stages.items():
        if isinstance(one, EvictingStage):
            ways = {op.kind: op.microbatch for op in order if op.stage == stage and op.kind in _BACKWARDS}
            with torch.autocast(world.device.type, autocast, enabled=autocast is not None):
                sizes = [one.measure(i, specs[stage], world.device) for i in ways.values()]
            bulletin.put(_key(world, stage), str(max(1, *sizes)))
    found: dict[int, TensorSpec] = {}
    ranks = routes.problem.stage_to_rank
    for store in sorted(routes.storing):
        sources = routes.stored_for(store)
        if sources and world.rank in {ranks[stage] for stage in (store, *sources)}:
            notes = [bulletin.read(_key(world, stage), f"what stage {stage} keeps") for stage in sources]
            found[store] = TensorSpec((max(map(int, notes)),), torch.uint8)
    return found


def _key(world: World, stage: int) -> str:
    return f"kept/{world.replica}/{stage}"


class StoringRun(StepRun):
    """A step under way where some evict and others store.

    Takes what :class:`~runtime.one_step.StepRun` does.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._stored: dict[tuple[int, int], Tensor] = {}  # by stage and microbatch

    def run(self, step: Step) -> None:
        """One op, with what comes from storage before it and what goes there behind."""
        self._make_room(step)
        if step.op.stage in self._have.routes.storing:
            self._store(step)
            return
        self._prepare(step)
        super().run(replace(step, posts=()))
        self._take_away(step)

    def _make_room(self, step: Step) -> None:
        """Post receives; those that take the place of what leaves, once that has left."""
        transport = self._have.transport
        for message in step.posts:
            transport.post(message)
        for message in step.stored.left:
            transport.wait_until_left(message)
        for message in step.stored.posts:
            transport.post(message)

    def _store(self, step: Step) -> None:
        """F takes in, the backward hands back as it came."""
        place, stored, transport = (step.op.stage, step.op.microbatch), step.stored, self._have.transport
        came = None if stored.awaits is None else transport.receive(stored.awaits)
        self._recorder.begin(step.op)  # as with other ops, it does not run while it waits
        if came is not None:
            self._stored[place] = came
        if stored.sends is not None:
            transport.send(stored.sends, self._stored.pop(place), is_buffer=True)
        self._recorder.end()

    def _prepare(self, step: Step) -> None:
        """Give F a buffer to fill, and a backward what is in its own again."""
        _, stage, microbatch = step.op
        sends, awaits, transport = step.stored.sends, step.stored.awaits, self._have.transport
        if sends is not None:
            buffer = transport.buffers.take(self._have.specs[sends.consumer.stage])
            self._evicting(stage).provide(microbatch, buffer)
        if awaits is not None:
            buffer = transport.receive(awaits)
            self._borrowed[stage, microbatch].append(buffer)
            self._evicting(stage).bring_back(microbatch, buffer)

    def _take_away(self, step: Step) -> None:
        """Send off what F has kept; its input is not needed any more."""
        _, stage, microbatch = step.op
        transport = self._have.transport
        if step.stored.sends is not None:
            buffer = self._evicting(stage).take_away(microbatch)
            transport.send(step.stored.sends, buffer, is_buffer=True)
            for received in self._borrowed.pop((stage, microbatch), ()):
                transport.buffers.give_back(received)

    def _evicting(self, stage: int) -> EvictingStage:
        evicting = self._have.stages[stage]
        assert isinstance(evicting, EvictingStage), "routes say which evict"
        return evicting
