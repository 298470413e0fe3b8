"""A schedule at each of the three levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from synth.baselines import BASELINES
from synth.formulas import FORMULAS, Setting
from synth.levels.entrants import Entrant
from synth.ops import PASSES, OpKind
from synth.problem import OpCost, Problem, StageCosts
from synth.schedule import fits, measure
from synth.simulate import Network, simulate_over
from synth.slot_table import unit_problem
from synth.timing import schedule_orders

IDEAL_BYTES = 2**20
"""What a stage's F allocates in the ideal problem: fine enough for the share that stays until W."""


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
        How many copies of its stages' weights the fullest rank holds.
    """

    idle_share: Fraction | None
    peak_activations: Fraction | None
    weight_copies: int


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
    name, problem = entrant.name, entrant.cut.problem
    if name not in BASELINES:
        return None
    baseline, ideal = BASELINES[name], ideal_problem(problem)
    p, m = ideal.num_ranks, ideal.num_microbatches
    copies = FORMULAS[name].weight_copies(Setting(num_ranks=p, num_microbatches=m, F=1, B=1, W=1))
    if problem.memory_limit_bytes is not None and baseline.orders(ideal) != entrant.orders:
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
    problem = entrant.cut.problem
    passes = tuple(tuple(op for op in order if op.kind in PASSES) for order in entrant.orders)
    found = measure(schedule_orders(ideal_problem(problem), passes))
    share = entrant.parts_of_a_share
    return SlotLevel(
        slots=found.value(problem.objective) / share,
        idle_share=found.bubble_ratio,
        peak_activations=max(found.peak_memory_bytes) / (IDEAL_BYTES * share),
    )


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


def ideal_problem(problem: Problem) -> Problem:
    """Equal stages in unit times, without transfers and sums: the setting of formulas and slot tables.

    F holds :data:`IDEAL_BYTES`, of which B frees all but the share that the problem's stages keep until W, on
    average; nothing else takes memory.
    """
    divided = [costs for costs in problem.stages if costs.W is not None]
    kept = sum(min(costs.cost(OpKind.W).free_bytes, costs.F.alloc_bytes) for costs in divided)
    held = sum(costs.F.alloc_bytes for costs in divided)
    until_w = IDEAL_BYTES * kept // held if held else 0
    frees = {OpKind.B: IDEAL_BYTES - until_w, OpKind.W: until_w, OpKind.BW: IDEAL_BYTES}

    def backward(kind: OpKind, cost: OpCost | None) -> OpCost | None:
        return None if cost is None else OpCost(ticks=cost.ticks, free_bytes=frees[kind])

    def ideal_stage(costs: StageCosts) -> StageCosts:
        return StageCosts(
            F=OpCost(ticks=costs.F.ticks, alloc_bytes=IDEAL_BYTES),
            B=backward(OpKind.B, costs.B),
            W=backward(OpKind.W, costs.W),
            BW=backward(OpKind.BW, costs.BW),
        )

    unit = unit_problem(problem)
    return replace(unit, stages=tuple(map(ideal_stage, unit.stages)), memory_limit_bytes=None)
