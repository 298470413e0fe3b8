"""What happens along a schedule's time axis beside its ops: memory going up and down, and transfers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from synth.graph import KINDS, build_graph, divided_in_orders
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Links, OpCost
from synth.schedule import Schedule


class MemoryStep(NamedTuple):
    """From this tick on a rank holds so many bytes, until its next step."""

    tick: int
    live_bytes: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one op hands to an op of another rank, and when it is on its way, in ticks."""

    producer: Op
    consumer: Op
    from_rank: int
    to_rank: int
    start: int
    end: int


def memory_steps(schedule: Schedule) -> tuple[tuple[MemoryStep, ...], ...]:
    """What every rank holds over time: an op allocates at its start and frees at its end.

    Returns
    -------
    For every rank, steps in order of time, one for each moment at which something changes; the first is at
    the rank's first start, before which it holds its static bytes. Where one op ends and the next starts at
    once there is one step, behind both; the highest step is the rank's peak.
    """
    problem = schedule.problem
    cost = {(s, kind): cost for s, costs in enumerate(problem.stages) for kind, cost in costs.offered}
    return tuple(
        _steps(static, rank, [cost[timed.op.stage, timed.op.kind] for timed in rank])
        for static, rank in zip(problem.static_bytes_by_rank, schedule.ranks, strict=True)
    )


def _steps(static: int, rank: tuple[TimedOp, ...], costs: list[OpCost]) -> tuple[MemoryStep, ...]:
    live: dict[int, int] = {}
    holds = static
    for timed, cost in zip(rank, costs, strict=True):
        holds += cost.alloc_bytes
        live[timed.start] = holds
        holds -= cost.free_bytes
        live[timed.end] = holds
    return tuple(map(MemoryStep, live.keys(), live.values()))


def transfers(schedule: Schedule) -> tuple[Transfer, ...]:
    """Every transfer between ranks: it leaves when its op ends and takes the pair's ticks.

    What ranks exchange to sum gradients is none: R takes the time of it. Under exclusive links the transfers
    of one ordered rank pair follow one another, in the order in which the sending rank ends their ops.
    """
    problem = schedule.problem
    graph = build_graph(problem, divided_in_orders(problem, schedule.orders))
    consumers: dict[int, list[int]] = {}
    for consumer in range(graph.num_ops):
        if KINDS[graph.kind[consumer]] is OpKind.R:
            continue
        for producer, _ in graph.predecessors(consumer):
            if graph.rank[producer] != graph.rank[consumer]:
                consumers.setdefault(producer, []).append(consumer)
    free_from: dict[tuple[int, int], int] = {}
    found = []
    for rank, ids in zip(schedule.ranks, graph.orders_to_ids(schedule.orders), strict=True):
        for timed, producer in zip(rank, ids.tolist(), strict=True):
            for consumer in consumers.get(producer, ()):
                link = int(graph.rank[producer]), int(graph.rank[consumer])
                start = timed.end
                if problem.links is Links.EXCLUSIVE:
                    start = max(start, free_from.get(link, start))
                end = start + problem.transfer_ticks[link[0]][link[1]]
                free_from[link] = end
                found.append(Transfer(timed.op, graph.op(consumer), *link, start, end))
    return tuple(found)
