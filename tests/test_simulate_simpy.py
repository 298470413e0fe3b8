"""The simulator against a second one, written on SimPy's processes and resources: equal times on small cases.

A rank is a process, a channel a resource of capacity 1 whose queue is first come, first served, and a
transfer requests all of its channels at once. The order of a moment's events is SimPy's event priority.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import simpy
from flow_cases import flows_with_orders
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import link
from strategies import problems_with_orders

from synth.ops import Op, OpKind, RankOrders
from synth.problem import Links, Problem
from synth.simulate import network_over, planned_network, simulate_over
from synth.topology import AllReduce, Duplex, Link, PairLink, SharedBy, Topology, TransferBytes

FIRST_OF_OURS = 2
"""SimPy's own priorities are 0 and 1: what a moment sets off happens before its next event."""


class Pipeline:
    """The orders of a problem as processes.

    ``transfer`` says for two ranks and the op that sends how many ticks a transfer takes and which channels
    it holds, ``reduction`` says the same of an all-reduce of so many ranks on one of them; None where there
    are none.
    """

    def __init__(self, problem: Problem, orders: RankOrders, *, transfer, reduction, overlaps, releases):
        self.problem, self.orders = problem, orders
        self.transfer, self.reduction, self.overlaps = transfer, reduction, overlaps
        self.env = simpy.Environment()
        self.ops = [op for order in orders for op in order]
        self.number = {op: n for n, op in enumerate(self.ops)}
        self.ranks = [simpy.Resource(self.env) for _ in orders]
        self.channels: dict[object, simpy.Resource] = {}
        self.inputs = {op: {source: self.env.event() for source in self.sources(op)} for op in self.ops}
        self.starts: dict[Op, int] = {}
        self.carried: dict[tuple[Op, Op | None], tuple[int, int]] = {}
        self.left = {held: self.gradients(held) for held in set(problem.replicas_by_stage)}
        for rank, release in enumerate(releases):
            self.env.process(self.run_rank(rank, release))
        self.env.run()

    def sources(self, op: Op) -> list[Op]:
        kind, stage, i = op
        if kind is OpKind.F:
            wanted = [Op(OpKind.F, before, i) for before in self.problem.inputs_by_stage[stage]]
        elif kind is OpKind.W:
            wanted = [Op(OpKind.B, stage, i)]
        elif kind is OpKind.R:
            wanted = self.gradients(self.problem.replicas_by_stage[stage])
        else:
            after = [s for s, inputs in enumerate(self.problem.inputs_by_stage) if stage in inputs]
            wanted = [Op(OpKind.F, stage, i)]
            wanted += [Op(kind, s, i) for s in after for kind in (OpKind.B, OpKind.BW)]
        return [source for source in wanted if source in self.number]

    def gradients(self, stages) -> list[Op]:
        return [op for op in self.ops if op.stage in stages and op.kind in (OpKind.W, OpKind.BW)]

    def after(self, ticks: int, priority: int) -> simpy.Event:
        """An event so many ticks from now, before those of the same moment with a larger number."""
        event = self.env.event()
        event._ok, event._value = True, None
        self.env.schedule(event, priority=FIRST_OF_OURS + priority, delay=ticks)
        return event

    def run_rank(self, rank: int, release: int):
        yield self.after(release, rank)
        for op in self.orders[rank]:
            yield self.env.all_of(self.inputs[op].values())
            turn = self.ranks[rank].request()
            yield turn
            self.starts[op] = self.env.now
            cost = self.problem.stages[op.stage].cost(op.kind)
            yield self.after(cost.ticks, len(self.ranks) + self.number[op])
            self.hand_over(rank, op)
            self.ranks[rank].release(turn)

    def hand_over(self, rank: int, op: Op) -> None:
        for consumer in self.ops:
            if op in self.inputs[consumer]:
                receiver = self.problem.stage_to_rank[consumer.stage]
                if receiver == rank:
                    self.inputs[consumer][op].succeed()
                elif consumer.kind is OpKind.R:
                    self.env.process(self.carry(op, consumer, 0, []))
                else:
                    ticks, way = self.transfer(rank, receiver, op)
                    self.set_off(op, consumer, ticks, way, [rank, receiver])
        for held, left in self.left.items():
            if op in left:
                left.remove(op)
                if not left and self.reduction is not None and self.problem.stages[op.stage].R is None:
                    self.reduce(held)

    def reduce(self, held) -> None:
        """Each rank's all-reduce of a model stage, at once where only one holds it."""
        ranks = {self.problem.stage_to_rank[stage]: stage for stage in reversed(held)}
        for rank, stage in ranks.items():
            ticks, way = self.reduction(rank, len(ranks))
            own = [op for op in self.gradients(held) if self.problem.stage_to_rank[op.stage] == rank]
            if len(ranks) == 1:
                self.set_off(own[-1], None, ticks, way, [rank])
            else:
                self.env.process(self.reduce_later(own[-1], stage, ticks, way, rank))

    def reduce_later(self, op: Op, stage: int, ticks: int, way, rank: int):
        yield self.after(0, len(self.ranks) + len(self.ops) + stage)
        self.set_off(op, None, ticks, way, [rank])

    def set_off(self, op: Op, consumer: Op | None, ticks: int, way, ranks) -> None:
        resources = [self.channels.setdefault(name, simpy.Resource(self.env)) for name in way]
        if not self.overlaps:
            resources += [self.ranks[rank] for rank in ranks]
        turns = [(resource, resource.request()) for resource in resources]
        self.env.process(self.carry(op, consumer, ticks, turns))

    def carry(self, op: Op, consumer: Op | None, ticks: int, turns):
        yield self.env.all_of([turn for _, turn in turns])
        begin = self.env.now
        number = len(self.ops) if consumer is None else self.number[consumer]
        yield self.after(ticks, len(self.ranks) + len(self.ops) + self.problem.num_stages + number)
        if consumer is None or consumer.kind is not OpKind.R:
            self.carried[op, consumer] = begin, self.env.now
        for resource, turn in turns:
            resource.release(turn)
        if consumer is not None:
            self.inputs[consumer][op].succeed()


def check_equal(pipeline: Pipeline, network, problem, orders, releases) -> None:
    simulation = simulate_over(network, problem, orders, release_ticks=releases)
    assert {t.op: t.start for rank in simulation.schedule.ranks for t in rank} == pipeline.starts
    assert {(d.producer, d.consumer): (d.start, d.end) for d in simulation.deliveries} == pipeline.carried


@pytest.mark.parametrize("overlaps", [True, False])
@pytest.mark.parametrize("links", Links)
@settings(max_examples=80)
@given(drawn=problems_with_orders() | flows_with_orders(), data=st.data())
def test_problem_links(links, overlaps, drawn, data):
    problem, orders = drawn
    releases = data.draw(st.tuples(*[st.integers(0, 9)] * problem.num_ranks))

    def transfer(sender, receiver, _):
        way = [(sender, receiver)] if links is Links.EXCLUSIVE else []
        return problem.transfer_ticks[sender][receiver], way

    pipeline = Pipeline(
        problem, orders, transfer=transfer, reduction=None, overlaps=overlaps, releases=releases
    )
    network = planned_network(problem, links=links, overlaps=overlaps)
    check_equal(pipeline, network, problem, orders, releases)


LATENCY_TICKS = 2
ACTIVATION, GRADIENT, REDUCED = 3, 5, 4


def way_over(shared: Link, kind: str, ends: tuple[object, object]) -> list[object]:
    """The devices that a transfer takes, one for each direction where the link is full duplex."""
    a, b = ends
    if shared.duplex is Duplex.HALF:
        return [(kind, a), (kind, b)]
    return [(kind, a, "out"), (kind, b, "in")]


def way_between(topology: Topology, home: dict[int, int], sender: int, receiver: int) -> list[object]:
    for wire in topology.pairs:
        if set(wire.ranks) == {sender, receiver}:
            is_half = wire.link.duplex is Duplex.HALF
            return [frozenset(wire.ranks) if is_half else (sender, receiver)]
    crosses = home[sender] != home[receiver]
    shared = topology.between if crosses else topology.inside
    match shared.shared_by:
        case SharedBy.NONE:
            return []
        case SharedBy.PAIR:
            is_half = shared.duplex is Duplex.HALF
            return [frozenset((sender, receiver)) if is_half else (sender, receiver)]
        case SharedBy.RANK:
            return way_over(shared, "NIC" if crosses else "port", (sender, receiver))
        case SharedBy.NODE:
            nodes = home[sender], home[receiver]
            return way_over(shared, "node NIC", nodes) if crosses else [("bus", nodes[0])]


def way_of_reduction(topology: Topology, home: dict[int, int], rank: int) -> list[object]:
    match topology.between.shared_by:
        case SharedBy.NONE:
            return []
        case SharedBy.PAIR:
            return [("ring", rank)]
        case SharedBy.RANK:
            ends, kind = rank, "NIC"
        case SharedBy.NODE:
            ends, kind = home[rank], "node NIC"
    return list(dict.fromkeys(way_over(topology.between, kind, (ends, ends))))


links_drawn = st.builds(link, st.sampled_from(SharedBy), st.sampled_from(Duplex), st.just(LATENCY_TICKS))


@st.composite
def topologies(draw, num_ranks: int) -> tuple[Topology, dict[int, int]]:
    home = {rank: draw(st.integers(0, 1)) for rank in range(num_ranks)}
    nodes = [tuple(rank for rank in home if home[rank] == node) for node in (0, 1)]
    pairs = ()
    if num_ranks > 1 and draw(st.booleans()):
        a = draw(st.integers(0, num_ranks - 2))
        wire = replace(draw(links_drawn), shared_by=SharedBy.PAIR)
        pairs = (PairLink(ranks=(a, a + 1), link=wire),)
    topology = Topology(
        nodes=tuple(nodes),
        inside=draw(links_drawn),
        between=draw(links_drawn),
        pairs=pairs,
        transfer_bytes=TransferBytes(activation=ACTIVATION, gradient=GRADIENT),
        all_reduce=AllReduce(replicas=2, weight_gradient_bytes=REDUCED) if draw(st.booleans()) else None,
    )
    return topology, home


def shares(problem: Problem, size: int) -> list[int]:
    """What each stage sends: of two slices the second has the larger half."""
    if not problem.feeds or not any(feed.slice for feed in problem.feeds):
        return [size] * problem.num_stages
    return [(size + 1) // 2 if feed.slice else size // 2 for feed in problem.feeds]


@pytest.mark.parametrize("overlaps", [True, False])
@settings(max_examples=200)
@given(drawn=problems_with_orders() | flows_with_orders(), data=st.data())
def test_topologies(overlaps, drawn, data):
    problem, orders = drawn
    topology, home = data.draw(topologies(problem.num_ranks))
    releases = data.draw(st.tuples(*[st.integers(0, 9)] * problem.num_ranks))

    def transfer(sender, receiver, op):
        size = ACTIVATION if op.kind is OpKind.F else GRADIENT
        return LATENCY_TICKS + shares(problem, size)[op.stage], way_between(topology, home, sender, receiver)

    def reduction(rank, num_ranks):
        copies = 2 * num_ranks
        ticks = 2 * (copies - 1) * (LATENCY_TICKS + REDUCED // copies)
        return ticks, way_of_reduction(topology, home, rank)

    pipeline = Pipeline(
        problem,
        orders,
        transfer=transfer,
        reduction=reduction if topology.all_reduce else None,
        overlaps=overlaps,
        releases=releases,
    )
    network = network_over(topology, problem, overlaps=overlaps)
    check_equal(pipeline, network, problem, orders, releases)
