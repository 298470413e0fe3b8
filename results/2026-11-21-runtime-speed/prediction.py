"""From measured steps to a predicted one, and from what ops hold to a predicted peak."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import config
import ranks
import torch

from costmodels.measured.profiles import Split
from costmodels.measured.stage_runs import StageRun, is_divided
from runtime.allocators import Change, HostAllocator
from runtime.deferred import defer_weights
from runtime.llama import build_stage, next_token_loss
from runtime.stage import Stage
from synth import OpCost, Problem, Schedule, StageCosts, schedule_orders
from synth.comparison import measured_problem, with_op_times
from synth.measured import MeasuredOp, Timeline
from synth.ops import Op, OpKind
from synth.schedule import measure

Step = Sequence[Sequence[MeasuredOp]]
"""By rank, its ops with their times."""


@dataclass(frozen=True)
class Round:
    """Some steps of a schedule that serve as a profile.

    Parameters
    ----------
    schedule
        What was run.
    steps
        What was seen of it.
    """

    schedule: Schedule
    steps: Sequence[Step]

    def problem(self) -> Problem:
        """The problem with what was measured: medians over microbatches and steps.

        To every op belongs what its rank does between the op before and its start when it need not wait. A
        transfer is what a message took beyond that.
        """
        gaps = self._gaps_ns()
        times: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
        for step in self.steps:
            for rank in step:
                for op, start, end in rank:
                    times[op.stage, op.kind].append(end - start)
        whole = {key: [round(statistics.median(found) + gaps[key])] for key, found in times.items()}
        timed = with_op_times(self.schedule.problem, whole)
        return replace(timed, transfer_ticks=self._transfer_ticks(round(statistics.median(gaps.values()))))

    def predicted_s(self) -> float:
        """What a replay of the schedule on those costs takes."""
        replayed = schedule_orders(self.problem(), self.schedule.orders)
        return measure(replayed).makespan * self.schedule.problem.tick_seconds

    def _gaps_ns(self) -> dict[tuple[int, OpKind], float]:
        """By stage and kind: how long a rank is between the op before and this, if it does not wait."""
        problem, found, by_rank = self.schedule.problem, defaultdict(list), defaultdict(list)
        for step in self.steps:
            for number, rank in enumerate(step):
                for before, here in pairwise(rank):
                    if not awaits_message(here.op, problem):
                        gap = here.start_ns - before.end_ns
                        found[here.op.stage, here.op.kind].append(gap)
                        by_rank[number].append(gap)
        keys = {(op.stage, op.kind) for order in self.schedule.orders for op in order}
        return {
            key: statistics.median(found.get(key) or by_rank[problem.stage_to_rank[key[0]]]) for key in keys
        }

    def _transfer_ticks(self, gap_ns: int) -> tuple[tuple[int, ...], ...]:
        gap = round(gap_ns / 1e9 / self.schedule.problem.tick_seconds)
        matrices = [
            measured_problem(
                Timeline(problem=self.schedule.problem, ranks=tuple(map(tuple, step)))
            ).transfer_ticks
            for step in self.steps
        ]
        size = range(self.schedule.problem.num_ranks)
        return tuple(
            tuple(max(0, round(statistics.median(m[a][b] for m in matrices)) - gap) for b in size)
            for a in size
        )


def awaits_message(op: Op, problem: Problem) -> bool:
    """Whether an op takes something from another rank."""
    if op.kind is OpKind.W:
        return False
    source = op.stage - 1 if op.kind is OpKind.F else op.stage + 1
    on_map = 0 <= source < problem.num_stages
    return on_map and problem.stage_to_rank[source] != problem.stage_to_rank[op.stage]


def memory_of(problem: Problem) -> Problem:
    """The problem with the bytes that the allocator says, under deferred division."""
    stages = tuple(
        with_bytes(costs, changes(stage, problem.num_stages, Split.DEFERRED))
        for stage, costs in enumerate(problem.stages)
    )
    return replace(problem, stages=stages)


def with_bytes(costs: StageCosts, changed: dict[OpKind, Change]) -> StageCosts:
    """What ops leave behind, or leave less."""

    def cost(kind: OpKind) -> OpCost:
        net = changed[kind].net
        return OpCost(ticks=costs.cost(kind).ticks, alloc_bytes=max(0, net), free_bytes=max(0, -net))

    return replace(costs, F=cost(OpKind.F), B=cost(OpKind.B), W=cost(OpKind.W), BW=cost(OpKind.BW))


@cache
def changes(stage: int, num_stages: int, split: Split) -> dict[OpKind, Change]:
    """What every op of a stage leaves allocated, and how high it rises meanwhile."""
    module = defer_weights(build_stage(ranks.MODEL, stage, num_stages))
    is_last = stage == num_stages - 1
    tokens = torch.zeros(ranks.MICROBATCH.shape, dtype=torch.int64)
    features = torch.randn(*ranks.MICROBATCH.shape, config.HIDDEN)
    run = StageRun(
        stage=Stage(stage, module, divides=is_divided),
        layers=("all",),
        x=features if stage else tokens,
        grad=torch.ones(()) if is_last else torch.ones_like(features),
        loss=(lambda y: next_token_loss(y, tokens)) if is_last else None,
        is_last=is_last,
    )
    works = run.ops(split)
    for _, work in works:  # the weights get their gradients, which are static
        work()
    found: dict[OpKind, Change] = {}
    for kind, work in works:
        found[kind] = HostAllocator().watch(work)
    return found


def predict_peaks(schedule: Schedule) -> list[int]:
    """Every rank's weights, and the highest that its ops in their order come to.

    A stage's gradients come with its first W or BW and stay.
    """
    problem, peaks = schedule.problem, []
    divided = {op.stage for order in schedule.orders for op in order if op.kind is OpKind.B}
    changed = [
        changes(stage, problem.num_stages, Split.DEFERRED if stage in divided else Split.NONE)
        for stage in range(problem.num_stages)
    ]
    for rank, order in enumerate(schedule.orders):
        weights = {
            stage: sum(weight.numel() * weight.element_size() for weight in module.parameters())
            for stage, module in ranks.make_modules(schedule, rank, True).items()
        }
        gradients = dict(weights)
        held = highest = 0
        for op in order:
            change = changed[op.stage][op.kind]
            highest = max(highest, held + change.highest)
            held += change.net
            if op.kind in (OpKind.W, OpKind.BW):
                held += gradients.pop(op.stage, 0)
        peaks.append(sum(weights.values()) + highest)
    return peaks
