"""A schedule at each of the three levels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from synth.baselines import BASELINES
from synth.formulas import FORMULAS, Setting
from synth.levels.entrants import Entrant
from synth.levels.ideal import IDEAL_BYTES, SLOT_TICKS
from synth.ops import PASSES, RankOrders
from synth.schedule import fits, measure
from synth.simulate import Network, simulate_over
from synth.timing import schedule_orders


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaLevel:
    """Level 1, on equal stages in unit times.

    Parameters
    ----------
    idle_share
        Of the rank with the longest span, or None outside the formula's domain.
    peak_activations
        Of the fullest rank, in A, or None outside the domain.
    weight_copies
        How many copies of its stages' weights the fullest rank holds, or None where it is not published.
    """

    idle_share: Fraction | None
    peak_activations: Fraction | None
    weight_copies: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLevel:
    """Level 2: the objective's value in slots, the idle share in it, the peak of the fullest rank in A."""

    slots: Fraction
    idle_share: float
    peak_activations: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationLevel:
    """Level 3: the objective's value, the idle share in it, and the peak of the fullest rank.

    Parameters
    ----------
    seconds
        Exact multiples of the tick, so that equal times are equal.
    idle_share
        ``1 - work / value`` of the busiest rank.
    peak_bytes
        Static bytes included.
    fits
        Whether every rank keeps to its limit.
    """

    seconds: Fraction
    idle_share: float
    peak_bytes: Fraction
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """A schedule at all levels; level 1 is None where nothing is published."""

    name: str
    num_stages: int
    formula: FormulaLevel | None
    slots: SlotLevel
    simulation: SimulationLevel


def look_at(entrant: Entrant, network: Network) -> Levels:
    """A schedule at all three levels.

    Parameters
    ----------
    entrant
        The schedule.
    network
        What its transfers go over at level 3.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold the problem's ops, or deadlock.
    """
    return Levels(
        name=entrant.name,
        num_stages=entrant.cut.problem.num_stages,
        formula=formula_level(entrant),
        slots=slot_level(entrant),
        simulation=simulation_level(entrant, network),
    )


def formula_level(entrant: Entrant) -> FormulaLevel | None:
    """What is published of a baseline on equal stages in unit times, None where the name is none's.

    Out of the domain too are orders that a memory limit made others than those of the formula.
    """
    name, ideal = entrant.name, entrant.ideal
    if name not in BASELINES:
        return None
    baseline, p, m = BASELINES[name], ideal.num_ranks, ideal.num_microbatches
    setting = Setting(num_ranks=p, num_microbatches=m, F=1, B=1, W=1)
    copies = FORMULAS[name].weight_copies(setting) if name in FORMULAS else None
    is_limited = entrant.cut.problem.memory_limit_bytes is not None
    if is_limited and baseline.orders(ideal) != _passes(entrant):
        return FormulaLevel(idle_share=None, peak_activations=None, weight_copies=copies)
    bubble, peaks = baseline.bubble_ticks(ideal), baseline.peak_bytes(ideal)
    held = IDEAL_BYTES * entrant.parts_of_a_share
    return FormulaLevel(
        idle_share=None if bubble is None else Fraction(bubble, ideal.work_ticks + bubble),
        peak_activations=None if peaks is None else max(peaks) / held,
        weight_copies=copies,
    )


def slot_level(entrant: Entrant) -> SlotLevel:
    """A schedule's orders in unit times, without transfers and sums over replicas."""
    found = measure(schedule_orders(entrant.ideal, _passes(entrant)))
    share = entrant.parts_of_a_share
    return SlotLevel(
        slots=found.value(entrant.ideal.objective) / (SLOT_TICKS * share),
        idle_share=found.bubble_ratio,
        peak_activations=max(found.peak_memory_bytes) / (IDEAL_BYTES * share),
    )


def _passes(entrant: Entrant) -> RankOrders:
    """The orders but for sums over replicas."""
    return tuple(tuple(op for op in order if op.kind in PASSES) for order in entrant.orders)


def simulation_level(entrant: Entrant, network: Network) -> SimulationLevel:
    """A schedule's orders on real costs over a network."""
    problem, scale = entrant.cut.problem, entrant.cut.bytes_scale
    simulation = simulate_over(network, problem, entrant.orders, release_ticks=entrant.release_ticks)
    peaks = simulation.metrics.peak_memory_bytes
    return SimulationLevel(
        seconds=simulation.value * Fraction(problem.tick_seconds),
        idle_share=simulation.metrics.bubble_ratio,
        peak_bytes=Fraction(max(peaks), scale),
        fits=fits(problem, peaks),
    )
