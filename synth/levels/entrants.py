"""The schedules that are looked at: orders, and the cut of the model that they are orders of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from synth.baselines import BASELINES, baseline_orders, baseline_problem
from synth.errors import BaselineUndefinedError
from synth.flows import computing_stages
from synth.levels.cuts import Cut
from synth.levels.ideal import ideal_problem
from synth.ops import RankOrders
from synth.problem import Problem
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
    ideal
        The same stages in unit times (:mod:`synth.levels.ideal`).
    parts_of_a_share
        How many slots of its own a forward of a rank's whole share of the model takes: its chunks or slices.
    release_ticks
        For every rank, a planned first start, which level 3 keeps to; by default as soon as can be.
    """

    name: str
    cut: Cut
    orders: RankOrders
    ideal: Problem
    parts_of_a_share: Fraction
    release_ticks: tuple[int, ...] | None = None

    @classmethod
    def baseline(cls, name: str, cut: Cut) -> Entrant:
        """A published schedule on a cut, or on what it makes of that.

        Raises
        ------
        BaselineUndefinedError
            When it does not exist there.
        """
        problem = baseline_problem(name, cut.problem)
        return cls(
            name=name,
            cut=replace(cut, problem=problem),
            orders=baseline_orders(name, problem),
            ideal=baseline_problem(name, ideal_problem(cut.problem)),
            parts_of_a_share=_parts_of_a_share(cut.problem),
        )

    @classmethod
    def planned(cls, name: str, cut: Cut, schedule: Schedule) -> Entrant:
        """A schedule of the cut's problem, every rank of which begins where it is planned to."""
        problem, orders = cut.problem, schedule.orders
        return cls(
            name=name,
            cut=cut,
            orders=orders,
            ideal=ideal_problem(problem),
            parts_of_a_share=_parts_of_a_share(problem),
            release_ticks=tuple(rank[0].start for rank in schedule.ranks),
        )


def _parts_of_a_share(problem: Problem) -> Fraction:
    """How many forwards a rank runs of one microbatch, on average: stages carry some in each direction."""
    forwards = sum(len(problem.microbatches_of(stage)) for stage in computing_stages(problem))
    return Fraction(forwards, problem.num_ranks * problem.num_microbatches)


def baseline_entrants(cuts: Sequence[Cut]) -> tuple[list[Entrant], dict[str, str]]:
    """Every baseline on the first cut on which it exists, and why the others exist on none.

    The last cut has one stage per rank: there those of :data:`ONE_STAGE_PER_RANK` begin.
    """
    entrants, reasons = [], {}
    for name in BASELINES:
        refused = []
        for cut in reversed(cuts) if name in ONE_STAGE_PER_RANK else cuts:
            try:
                entrants.append(Entrant.baseline(name, cut))
            except BaselineUndefinedError as error:
                refused.append(f"with {cut.title}, {error.reason}")
            else:
                break
        else:
            reasons[name] = "; ".join(refused)
    return entrants, reasons
