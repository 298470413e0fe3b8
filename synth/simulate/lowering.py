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
    """Ops numbered rank by rank in execution order, what each hands on, and behind them sums.

    A sum is an all-reduce that waits for the weight gradients of several ranks; it is handed over when the
    last of them ends, behind all ops that end at the same moment.

    Parameters
    ----------
    problem, overlaps
        What is replayed, and whether ranks compute while they send.
    spans
        Each rank's first number and the one after its last.
    ops, ticks, producers
        By number.
    sums
        For every sum the number of its own rank's last weight gradient.
    sends
        By number, those of the sums behind those of the ops.
    channels
        Their names: first the ranks themselves, then the links' channels.
    """

    problem: Problem
    overlaps: bool
    spans: tuple[tuple[int, int], ...]
    ops: tuple[Op, ...]
    ticks: tuple[int, ...]
    producers: tuple[tuple[int, ...], ...]
    sums: tuple[int, ...]
    sends: tuple[tuple[Send, ...], ...]
    channels: tuple[str, ...]

    @property
    def num_channels(self) -> int:
        """How many channels there are, the ranks among them."""
        return len(self.channels)

    def rank(self, number: int) -> int:
        """The rank of an op or a sum."""
        return self.problem.stage_to_rank[self.sender(number).stage]

    def sender(self, number: int) -> Op:
        """The op of this number, or its own rank's last for a sum."""
        own = number if number < len(self.ops) else self.sums[number - len(self.ops)]
        return self.ops[own]

    @cached_property
    def plan(self) -> Plan:
        """The same as arrays."""
        sends = list(chain.from_iterable(self.sends))
        routes = list(dict.fromkeys((send.route, send.channels) for send in sends if send.route))
        number = {route: n for n, route in enumerate(routes)}
        waits = [len(producers) for producers in self.producers] + [0] * len(self.sums)
        for send in sends:
            if send.consumer is not None and send.consumer >= len(self.ops):
                waits[send.consumer] += 1
        return Plan(
            rank_start=np.array([0, *(end for _, end in self.spans)]),
            rank=np.array([self.rank(n) for n in range(len(self.sends))]),
            waits=np.array(waits),
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
        return self.overlaps and not self.sums and all(len(ranks) == 1 for ranks in feeding.values())

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
    feeding = _Feeding(problem, problem.inputs_by_stage, problem.outputs_by_stage, problem.replicas_by_stage)
    producers = tuple(tuple(number[p] for p in feeding.awaited(op) if p in number) for op in ops)
    bounds = list(accumulate(map(len, orders), initial=0))
    ranks = tuple(f"rank {rank}" for rank in range(problem.num_ranks))
    names = dict.fromkeys(
        channel
        for route in (*network.routes.values(), *network.all_reduce)
        if route
        for channel in route.channels
    )
    channels = (*ranks, *names)
    wiring = _Wiring(problem, network, ops, {name: n for n, name in enumerate(channels)})
    sends, sums = wiring.sends(producers)
    return Lowered(
        problem=problem,
        overlaps=network.overlaps,
        spans=tuple(pairwise(bounds)),
        ops=ops,
        ticks=tuple(problem.stages[op.stage].cost(op.kind).ticks for op in ops),
        producers=producers,
        sums=sums,
        sends=sends,
        channels=channels,
    )


@dataclass(frozen=True, slots=True)
class _Feeding:
    """Which stages feed which, and which hold the same weights."""

    problem: Problem
    inputs: Sequence[Sequence[int]]
    outputs: Sequence[Sequence[int]]
    replicas: Sequence[Sequence[int]]

    def awaited(self, op: Op) -> list[Op]:
        """What an op waits for (FORMATS.md, Dependencies); of a backward's B and BW the orders hold one."""
        kind, stage, i = op
        if kind is OpKind.F:
            return [Op(OpKind.F, before, i) for before in self.inputs[stage]]
        if kind is OpKind.W:
            return [Op(OpKind.B, stage, i)]
        if kind is OpKind.R:
            return [
                Op(gradient, replica, each)
                for replica in self.replicas[stage]
                for each in self.problem.microbatches_of(replica)
                for gradient in (OpKind.W, OpKind.BW)
            ]
        fed = [Op(whole, after, i) for after in self.outputs[stage] for whole in (OpKind.B, OpKind.BW)]
        return [Op(OpKind.F, stage, i), *fed]


_SIGNAL = Route(0)
"""How a rank learns that another's weight gradients are there: R takes the time of what is sent."""


@dataclass(frozen=True, slots=True)
class _Wiring:
    problem: Problem
    network: Network
    ops: Sequence[Op]
    channel: dict[str, int]

    def sends(
        self, producers: Sequence[Sequence[int]]
    ) -> tuple[tuple[tuple[Send, ...], ...], tuple[int, ...]]:
        """What every op and sum hands on, consumers by rank and stage, the all-reduce last; and the sums."""
        found: list[list[Send]] = [[] for _ in self.ops]
        for consumer in sorted(range(len(self.ops)), key=self._rank_and_stage):
            for producer in producers[consumer]:
                found[producer].append(self._transfer(producer, consumer))
        gradients: dict[int, list[int]] = {}
        replicas = self.problem.replicas_by_stage
        for number, op in enumerate(self.ops):
            if op.kind in (OpKind.W, OpKind.BW):
                gradients.setdefault(replicas[op.stage][0], []).append(number)
        sums: list[int] = []
        for stage, route in enumerate(self.network.all_reduce):
            if route is not None:
                awaited = gradients[replicas[stage][0]]
                rank = self.problem.stage_to_rank[stage]
                last = max(number for number in awaited if self._rank(number) == rank)
                send = Send(None, route, self._channels(route, rank))
                if all(self._rank(number) == rank for number in awaited):
                    found[last].append(send)
                    continue
                for number in awaited:
                    found[number].append(Send(len(self.ops) + len(sums), None))
                sums.append(last)
                found.append([send])
        return tuple(map(tuple, found)), tuple(sums)

    def _rank(self, number: int) -> int:
        return self.problem.stage_to_rank[self.ops[number].stage]

    def _rank_and_stage(self, number: int) -> tuple[int, int]:
        return self._rank(number), self.ops[number].stage

    def _transfer(self, producer: int, consumer: int) -> Send:
        sender, receiver = self._rank(producer), self._rank(consumer)
        if sender == receiver:
            return Send(consumer, None)
        if self.ops[consumer].kind is OpKind.R:
            return Send(consumer, _SIGNAL)
        route = self.network.route(self.ops[producer], self.ops[consumer])
        assert route is not None, "different ranks have a route"
        return Send(consumer, route, self._channels(route, sender, receiver))

    def _channels(self, route: Route, *ranks: int) -> tuple[int, ...]:
        held = tuple(self.channel[name] for name in route.channels)
        return held if self.network.overlaps else (*ranks, *held)
