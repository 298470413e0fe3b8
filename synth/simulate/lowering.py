"""Orders and routes as the event loop takes them: everything by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.compiled.event_loop import LOCAL, NOBODY, Plan
from synth.ops import Op, OpKind, RankOrders
from synth.problem import LARGEST_SUM, Problem
from synth.simulate.network import Network, Route
from synth.simulate.orders import check_orders

Ticks = NDArray[Any]
"""Integers: of 64 bits, or of any size where sums need it."""


@dataclass(frozen=True, slots=True)
class Send:
    """What an op hands on when it ends.

    Parameters
    ----------
    consumer
        The number of the op that waits for it, None for an all-reduce.
    route, channels
        Its way and the numbers of the channels that it holds; None and none on one rank.
    """

    consumer: int | None
    route: Route | None
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lowered:
    """Ops numbered rank by rank in execution order, and what each hands on.

    Parameters
    ----------
    problem, overlaps
        What is replayed, and whether ranks compute while they send.
    spans
        Each rank's first number and the one after its last.
    ops, ticks, producers, sends
        By number.
    channels
        Their names: first the ranks themselves, then the links' channels.
    """

    problem: Problem
    overlaps: bool
    spans: tuple[tuple[int, int], ...]
    ops: tuple[Op, ...]
    ticks: tuple[int, ...]
    producers: tuple[tuple[int, ...], ...]
    sends: tuple[tuple[Send, ...], ...]
    channels: tuple[str, ...]

    @property
    def num_channels(self) -> int:
        """How many channels there are, the ranks among them."""
        return len(self.channels)

    def rank(self, number: int) -> int:
        """The rank of an op."""
        return self.problem.stage_to_rank[self.ops[number].stage]

    @cached_property
    def plan(self) -> Plan:
        """The same as arrays."""
        sends = list(chain.from_iterable(self.sends))
        routes = list(dict.fromkeys((send.route, send.channels) for send in sends if send.route))
        number = {route: n for n, route in enumerate(routes)}
        return Plan(
            rank_start=np.array([0, *(end for _, end in self.spans)]),
            rank=np.array([self.rank(n) for n in range(len(self.ops))]),
            waits=np.array([len(producers) for producers in self.producers]),
            sends_start=_starts(self.sends),
            consumer=_integers(NOBODY if send.consumer is None else send.consumer for send in sends),
            route=_integers(number[send.route, send.channels] if send.route else LOCAL for send in sends),
            route_ticks=_integers(route.ticks for route, _ in routes if route),
            channels_start=_starts([channels for _, channels in routes]),
            channel=_integers(chain.from_iterable(channels for _, channels in routes)),
        )

    @property
    def queues_are_fixed(self) -> bool:
        """Whether no duration can change who goes first: every channel is fed by one rank alone."""
        feeding: dict[int, set[int]] = {}
        for number, sends in enumerate(self.sends):
            for channel in chain.from_iterable(send.channels for send in sends):
                feeding.setdefault(channel, set()).add(self.rank(number))
        return self.overlaps and all(len(ranks) == 1 for ranks in feeding.values())

    def sums_are_large(self, release_ticks: Sequence[int], factor: float = 1) -> bool:
        """Whether a sum of ticks may pass 64 bits: then integers of any size are used.

        Parameters
        ----------
        release_ticks
            The time before which each rank starts nothing.
        factor
            The ops take up to so many times their ticks.
        """
        routes = (send.route for send in chain.from_iterable(self.sends) if send.route)
        transfers = sum(route.ticks for route in routes)
        return max(map(abs, release_ticks)) + sum(self.ticks) * factor + transfers >= LARGEST_SUM


def _integers(values: Iterator[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64)


def _starts(lists: Sequence[Sequence[object]]) -> NDArray[np.int64]:
    return _integers(accumulate(map(len, lists), initial=0))


def lower(problem: Problem, orders: RankOrders, network: Network) -> Lowered:
    """Number the ops of complete orders, and their sends.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold exactly the problem's ops.
    """
    check_orders(problem, orders)
    ops = tuple(op for order in orders for op in order)
    number = {op: n for n, op in enumerate(ops)}
    producers = tuple(tuple(number[p] for p in _awaited(problem, op) if p in number) for op in ops)
    bounds = list(accumulate(map(len, orders), initial=0))
    ranks = tuple(f"rank {rank}" for rank in range(problem.num_ranks))
    names = dict.fromkeys(
        channel
        for route in (*network.forward, *network.backward, *network.all_reduce)
        if route
        for channel in route.channels
    )
    channels = (*ranks, *names)
    wiring = _Wiring(problem, network, {name: n for n, name in enumerate(channels)})
    return Lowered(
        problem=problem,
        overlaps=network.overlaps,
        spans=tuple(pairwise(bounds)),
        ops=ops,
        ticks=tuple(problem.stages[op.stage].cost(op.kind).ticks for op in ops),
        producers=producers,
        sends=wiring.sends(ops, producers),
        channels=channels,
    )


def _awaited(problem: Problem, op: Op) -> list[Op]:
    """What an op waits for (FORMATS.md, Dependencies); of the next stage's B and BW the orders hold one."""
    kind, stage, i = op
    if kind is OpKind.F:
        return [Op(OpKind.F, stage - 1, i)] if stage > 0 else []
    if kind is OpKind.W:
        return [Op(OpKind.B, stage, i)]
    awaited = [Op(OpKind.F, stage, i)]
    if stage + 1 < problem.num_stages:
        awaited += [Op(OpKind.B, stage + 1, i), Op(OpKind.BW, stage + 1, i)]
    return awaited


@dataclass(frozen=True, slots=True)
class _Wiring:
    problem: Problem
    network: Network
    channel: dict[str, int]

    def sends(self, ops: Sequence[Op], producers: Sequence[Sequence[int]]) -> tuple[tuple[Send, ...], ...]:
        """What every op hands on, consumers in the order of their numbers, the all-reduce last."""
        found: list[list[Send]] = [[] for _ in ops]
        for consumer, feeding in enumerate(producers):
            for producer in feeding:
                found[producer].append(self._transfer(ops, producer, consumer))
        last = {op.stage: n for n, op in enumerate(ops) if op.kind in (OpKind.W, OpKind.BW)}
        for stage, number in last.items():
            route = self.network.all_reduce[stage]
            if route is not None:
                rank = self.problem.stage_to_rank[stage]
                found[number].append(Send(None, route, self._channels(route, rank)))
        return tuple(map(tuple, found))

    def _transfer(self, ops: Sequence[Op], producer: int, consumer: int) -> Send:
        route = self.network.route(ops[producer], ops[consumer])
        if route is None:
            return Send(consumer, None)
        ranks = (self.problem.stage_to_rank[ops[number].stage] for number in (producer, consumer))
        return Send(consumer, route, self._channels(route, *ranks))

    def _channels(self, route: Route, *ranks: int) -> tuple[int, ...]:
        held = tuple(self.channel[name] for name in route.channels)
        return held if self.network.overlaps else (*ranks, *held)
