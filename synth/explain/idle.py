"""Idle time: what every rank waits for, from its first tick of the value to its last.

Each idle moment of a rank has one cause, the first of these that holds: order, memory, transfer, then by
phase warm-up, cool-down or imbalance (:data:`WAIT_MEANS`). So causes add up to the idle time, to the tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from synth.graph import build_graph, divided_in_orders
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Objective, Problem
from synth.schedule import Schedule
from synth.timeline import transfers

NEVER = 2**63
"""Later than any tick."""


class Wait(StrEnum):
    """What an idle rank waits for."""

    WARM_UP = "warm-up"
    COOL_DOWN = "cool-down"
    MEMORY = "memory"
    TRANSFER = "transfer"
    IMBALANCE = "imbalance"
    ORDER = "order"


WAIT_MEANS = MappingProxyType(
    {
        Wait.WARM_UP: "the next op waits for other ranks' work, and the rank has run no backward yet",
        Wait.COOL_DOWN: "behind the rank's last forward, the next op waits for other ranks' work; and "
        "what is left behind its last op",
        Wait.MEMORY: "an op has its inputs, but what it allocates does not fit the rank's limit",
        Wait.TRANSFER: "the next op's last input is on its way, or queues for an exclusive link",
        Wait.IMBALANCE: "between its first backward and its last forward, the next op waits for other ranks' "
        "work: they have more of it, or get to it later",
        Wait.ORDER: "an op has its inputs and fits the memory, but comes later in the rank's order, perhaps "
        "because it would keep what others wait for from starting in time",
    }
)
"""Every cause in words."""


@dataclass(frozen=True, slots=True)
class RankIdle:
    """A rank's share of the value.

    Parameters
    ----------
    work_ticks
        What it spends in ops.
    waits_ticks
        What it spends idle, by cause; work and waits add up to its window: the makespan, or its own span.
    """

    work_ticks: int
    waits_ticks: Mapping[Wait, int]

    @property
    def idle_ticks(self) -> int:
        """All waits together."""
        return sum(self.waits_ticks.values())


def idle_times(schedule: Schedule) -> tuple[RankIdle, ...]:
    """How every rank's idle time divides into causes (:data:`WAIT_MEANS`).

    Parameters
    ----------
    schedule
        Its times may be any, also measured ones.

    Returns
    -------
    One entry per rank. Under ``makespan`` every rank's window is the whole schedule, under ``rank_span`` the
    time from the rank's own first start to its last end.
    """
    inputs = _inputs(schedule)
    return tuple(_rank_idle(schedule, inputs, rank) for rank in range(len(schedule.ranks)))


class _Inputs(NamedTuple):
    """When an op has all its inputs, and since when the last of them is done where it comes from."""

    ready: int
    sent: int


def _inputs(schedule: Schedule) -> dict[Op, _Inputs]:
    problem = schedule.problem
    graph = build_graph(problem, divided_in_orders(problem, schedule.orders))
    ends = {timed.op: timed.end for ran in schedule.ranks for timed in ran}
    arrivals = {(transfer.producer, transfer.consumer): transfer.end for transfer in transfers(schedule)}
    found = {}
    for number in range(graph.num_ops):
        op = graph.op(number)
        producers = [graph.op(producer) for producer, _ in graph.predecessors(number)]
        ready = (_Inputs(arrivals.get((p, op), ends[p]), ends[p]) for p in producers)
        found[op] = max(ready, default=_Inputs(-NEVER, -NEVER))
    return found


def _rank_idle(schedule: Schedule, inputs: dict[Op, _Inputs], rank: int) -> RankIdle:
    ran = schedule.ranks[rank]
    start, end = _window(schedule, rank)
    first_backward = next((t.start for t in ran if t.op.kind in (OpKind.B, OpKind.BW)), end)
    last_forward = max((t.end for t in ran if t.op.kind is OpKind.F), default=start)
    waits = dict.fromkeys(Wait, 0)
    pending = _Pending(schedule.problem, inputs, rank, ran)
    at = start
    for timed in ran:
        elsewhere = Wait.IMBALANCE
        if at < first_backward:
            elsewhere = Wait.WARM_UP
        elif at >= last_forward:
            elsewhere = Wait.COOL_DOWN
        for wait, ticks in pending.divide(at, timed, elsewhere):
            waits[wait] += ticks
        at = timed.end
        pending.run(timed.op)
    waits[Wait.COOL_DOWN] += end - at
    return RankIdle(sum(t.end - t.start for t in ran), waits)


def _window(schedule: Schedule, rank: int) -> tuple[int, int]:
    ranks = schedule.ranks if schedule.problem.objective is Objective.MAKESPAN else [schedule.ranks[rank]]
    return min(ran[0].start for ran in ranks), max(ran[-1].end for ran in ranks)


class _Pending:
    """The ops that a rank has not run yet, and what it holds.

    The ops of one kind on one stage allocate the same, so of each such stream only the earliest matters.
    """

    def __init__(
        self, problem: Problem, inputs: dict[Op, _Inputs], rank: int, ran: tuple[TimedOp, ...]
    ) -> None:
        self._inputs, self._stages = inputs, problem.stages
        self._live = problem.static_bytes_by_rank[rank]
        limits = problem.memory_limit_bytes
        self._limit = None if limits is None else limits[rank]
        # Of every stream, from its last op to its next: when the earliest of those left has its inputs.
        self._earliest: dict[tuple[int, OpKind], list[int]] = {}
        for timed in reversed(ran):
            stream = self._earliest.setdefault((timed.op.stage, timed.op.kind), [])
            stream.append(min(inputs[timed.op].ready, stream[-1] if stream else NEVER))

    def run(self, op: Op) -> None:
        """The rank has run its next op."""
        self._earliest[op.stage, op.kind].pop()
        cost = self._stages[op.stage].cost(op.kind)
        self._live += cost.alloc_bytes - cost.free_bytes

    def divide(self, since: int, upcoming: TimedOp, elsewhere: Wait) -> list[tuple[Wait, int]]:
        """The idle ticks before the next op by cause; ``elsewhere`` is the one where nothing else holds."""
        order = memory = upcoming.start
        for (stage, kind), earliest in self._earliest.items():
            if earliest and self._fits(stage, kind):
                order = min(order, max(since, earliest[-1]))
            elif earliest:
                memory = min(memory, max(since, earliest[-1]))
        memory = min(memory, order)
        transfer = min(memory, max(since, self._inputs[upcoming.op].sent))
        return [
            (elsewhere, transfer - since),
            (Wait.TRANSFER, memory - transfer),
            (Wait.MEMORY, order - memory),
            (Wait.ORDER, upcoming.start - order),
        ]

    def _fits(self, stage: int, kind: OpKind) -> bool:
        alloc_bytes = self._stages[stage].cost(kind).alloc_bytes
        return self._limit is None or self._live + alloc_bytes <= self._limit
