"""The schedules that are looked at: orders, and the cut of the model that they are orders of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from synth.baselines import BASELINES, baseline_orders
from synth.errors import BaselineUndefinedError
from synth.levels.cuts import Cut
from synth.ops import OpKind, RankOrders
from synth.schedule import Schedule

ONE_STAGE_PER_RANK = frozenset({"gpipe", "2bp-gpipe"})
"""Baselines that exist with chunks too, where their papers have one stage on every rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A schedule to look at: orders of a problem, under a name.

    Parameters
    ----------
    name
        A baseline's, which has its formulas at level 1, or any other.
    cut, orders
        The orders are of the cut's problem.
    release_ticks
        For every rank, a planned first start, which level 3 keeps to; by default as soon as can be.
    """

    name: str
    cut: Cut
    orders: RankOrders
    release_ticks: tuple[int, ...] | None = None

    @property
    def parts_of_a_share(self) -> Fraction:
        """Into how many forwards a rank's share of the model is cut: its chunks, on average over ranks."""
        forwards = sum(op.kind is OpKind.F for order in self.orders for op in order)
        return Fraction(forwards, self.cut.problem.num_ranks * self.cut.problem.num_microbatches)

    @classmethod
    def planned(cls, name: str, cut: Cut, schedule: Schedule) -> Entrant:
        """A schedule of the cut's problem, every rank of which begins where it is planned to."""
        starts = tuple(rank[0].start for rank in schedule.ranks)
        return cls(name=name, cut=cut, orders=schedule.orders, release_ticks=starts)


def baseline_entrants(cuts: Sequence[Cut]) -> tuple[list[Entrant], dict[str, str]]:
    """Every baseline on the first cut on which it exists, and why the others exist on none.

    The last cut has one stage per rank: there those of :data:`ONE_STAGE_PER_RANK` begin.
    """
    entrants, reasons = [], {}
    for name in BASELINES:
        refused = []
        for cut in reversed(cuts) if name in ONE_STAGE_PER_RANK else cuts:
            try:
                orders = baseline_orders(name, cut.problem)
            except BaselineUndefinedError as error:
                refused.append(f"with {cut.title}, {error.reason}")
            else:
                entrants.append(Entrant(name=name, cut=cut, orders=orders))
                break
        else:
            reasons[name] = "; ".join(refused)
    return entrants, reasons
