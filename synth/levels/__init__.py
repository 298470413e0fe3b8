"""Three levels of looking at schedules: closed formulas, slot tables, simulation; and how they are ranked.

The method of "A Tabular Schedule Abstraction for Communication-Aware Evaluation of Pipeline-Parallel LLM
Training" (arXiv 2605.24006), for any schedule that this project knows, reads or finds:

1. *formulas* give the idle share of the worst rank, peak activations and weight copies, where they hold;
2. a *slot table* lays the orders out in unit times, without transfers;
3. a *simulation* replays them with real costs over a network.

Schedules that need several stages per rank cut the same model finer (``cuts``, ``entrants``). So that like is
set beside like, a slot is one forward of a rank's whole share of the model, A its activations of one
microbatch, and a step is in seconds, however the model is cut (``judging``). ``ranking`` says how the places
change from one level to the next.
"""

from synth.levels.cuts import Cut, cuts_of, is_laid_out, same_model, topology_for, with_transfers_over
from synth.levels.entrants import Entrant, baseline_entrants
from synth.levels.judging import (
    FormulaLevel,
    Levels,
    SimulationLevel,
    SlotLevel,
    formula_level,
    look_at,
    simulation_level,
    slot_level,
)
from synth.levels.ranking import Standing, rank_levels

__all__ = [
    "Cut",
    "Entrant",
    "FormulaLevel",
    "Levels",
    "SimulationLevel",
    "SlotLevel",
    "Standing",
    "baseline_entrants",
    "cuts_of",
    "formula_level",
    "is_laid_out",
    "look_at",
    "rank_levels",
    "same_model",
    "simulation_level",
    "slot_level",
    "topology_for",
    "with_transfers_over",
]
