"""Which backwards annealing may divide or make whole, and orders with those in halves.

Where a stage offers BW beside B and W and neither is better in everything, both halves always stand in the
orders: of a whole backward the B takes what BW takes, and the W nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from synth.bounds.relaxation import leaves_choice
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem


def open_stages(problem: Problem) -> frozenset[int]:
    """The stages whose backwards may be better whole, or better divided."""
    return frozenset(stage for stage, costs in enumerate(problem.stages) if leaves_choice(costs))


def with_halves(orders: RankOrders, stages: frozenset[int]) -> tuple[RankOrders, frozenset[Op]]:
    """Orders in which every BW of some stages stands as its B and W, and those B.

    Parameters
    ----------
    orders
        For every rank, its ops.
    stages
        The stages to change.
    """
    whole = frozenset(
        op._replace(kind=OpKind.B)
        for order in orders
        for op in order
        if op.kind is OpKind.BW and op.stage in stages
    )

    def halves(order: Iterable[Op]) -> Iterator[Op]:
        for op in order:
            if op.kind is OpKind.BW and op.stage in stages:
                yield op._replace(kind=OpKind.B)
                yield op._replace(kind=OpKind.W)
            else:
                yield op

    return tuple(tuple(halves(order)) for order in orders), whole


def without_halves(orders: RankOrders, whole: frozenset[Op]) -> RankOrders:
    """The same orders with BW for every B that is whole, and without its W."""

    def forms(order: Iterable[Op]) -> Iterator[Op]:
        for op in order:
            if op in whole:
                yield op._replace(kind=OpKind.BW)
            elif op.kind is not OpKind.W or op._replace(kind=OpKind.B) not in whole:
                yield op

    return tuple(tuple(forms(order)) for order in orders)
