"""Pieces of a stage: what some of its layers, or some of its tokens, take of its ticks and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from synth.ops import OpKind
from synth.problem import OpCost, StageCosts

Elapsed = Callable[[OpKind, Fraction], Fraction]
"""Which share of an op's ticks the first so many of the stage take."""

_WAYS = ((OpKind.F, OpKind.B, OpKind.W), (OpKind.F, OpKind.BW))


def evenly(_: OpKind, share: Fraction) -> Fraction:
    """Every layer and every token takes as long as any other."""
    return share


def piece_of(costs: StageCosts, begin: Fraction, end: Fraction, elapsed: Elapsed = evenly) -> StageCosts:
    """The piece of a stage between two shares of it, from 0 to 1.

    Pieces side by side take what the stage takes, but that an op lasts a tick at least. So do the bytes they
    hold at most; what is left after an op is the same share of that in every piece, rounded down, so that
    nothing stays that did not before.
    """
    most = max(max(levels) for levels in _levels(costs).values())
    scale = Fraction(_between(most, begin, end), most) if most else end - begin

    def share(kind: OpKind, cost: OpCost) -> OpCost:
        before, at_most, after = (level * scale // 1 for level in _levels(costs)[kind])
        return OpCost(
            ticks=max(1, round(cost.ticks * elapsed(kind, end)) - round(cost.ticks * elapsed(kind, begin))),
            alloc_bytes=at_most - before,
            free_bytes=at_most - after,
        )

    count = len(costs.layers)
    return replace(
        costs.map_costs(share),
        static_bytes=_between(costs.static_bytes, begin, end),
        weight_bytes=_between(costs.weight_bytes, begin, end),
        layers=costs.layers[round(count * begin) : round(count * end)],
    )


def _between(amount: int, begin: Fraction, end: Fraction) -> int:
    return round(amount * end) - round(amount * begin)


def _levels(costs: StageCosts) -> dict[OpKind, tuple[int, int, int]]:
    """For every op what one microbatch holds before it, while it runs, and after it."""
    offered = dict(costs.offered)
    levels = {}
    for way in (*_WAYS, (OpKind.R,)):
        held = 0
        for kind in way:
            if kind in offered:
                at_most = held + offered[kind].alloc_bytes
                levels[kind] = held, at_most, at_most - offered[kind].free_bytes
                held = levels[kind][2]
    return levels
