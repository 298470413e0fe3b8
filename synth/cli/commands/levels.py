"""``levels``: schedules at three levels, and how their ranking changes from one to the next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from synth.baselines import BASELINES
from synth.cli.arguments import add_json_argument, add_problem_arguments, add_search_arguments
from synth.cli.exit_codes import DONE
from synth.cli.loading import load_problem
from synth.cli.networks import add_network_arguments, load_topology, network_of
from synth.cli.searching import search
from synth.cli.streams import Printer, print_json
from synth.document import read_schedule
from synth.files import STANDARD_STREAM, read_text
from synth.levels import (
    Cut,
    Entrant,
    Levels,
    Standing,
    baseline_entrants,
    cuts_of,
    is_laid_out,
    look_at,
    rank_levels,
    same_model,
    topology_for,
    with_transfers_over,
)
from synth.problem import Problem
from synth.report import levels_table
from synth.search.driver import Solver
from synth.simulate import Network
from synth.topology import Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``levels`` takes."""
    add_problem_arguments(parser)
    parser.add_argument(
        "--schedules",
        nargs="+",
        default=[],
        metavar="FILE",
        help="schedule documents to set beside the baselines",
    )
    parser.add_argument(
        "--synthesize", action="store_true", help="set the synthesized schedule beside them too"
    )
    add_search_arguments(parser, time_limit=10.0)
    parser.set_defaults(solver=Solver.CPSAT)
    add_network_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Show schedules at three levels, formulas, slot tables and simulation, and how the ranking changes."""
    topology = load_topology(options)
    problem = load_problem(options).placements[0]
    cuts = cuts_of(problem)
    entrants, reasons = baseline_entrants(cuts)
    entrants += [_read_entrant(path, problem) for path in options.schedules]
    if topology is not None:
        entrants, more = _over_boundaries(entrants)
        reasons |= more
    if options.synthesize:
        entrants.append(_synthesized(cuts, topology, problem, options))

    def network(cut: Problem) -> Network:
        over = None if topology is None else topology_for(topology, problem, cut)
        return network_of(options, over, cut)

    rows = [look_at(entrant, network(entrant.cut.problem)) for entrant in entrants]
    standings = rank_levels(rows)
    if options.json:
        print_json([_row_json(row, standing) for row, standing in zip(rows, standings, strict=True)])
        return DONE
    printer = Printer()
    printer.table(levels_table(problem, rows, standings, plain=not printer.has_arrows))
    printer.line(LEGEND)
    for entrant in entrants:
        if entrant.name in BASELINES and BASELINES[entrant.name].makes:
            printer.line(f"{entrant.name}: {BASELINES[entrant.name].makes}")
    for name, reason in reasons.items():
        printer.line(f"{name} is left out: {reason}")
    return DONE


LEGEND = (
    "1: closed formulas on equal stages in unit times, - where none is known to hold. 2: slot table in unit "
    "times; a slot is one forward of a rank's whole share of the model, peaks are in activations of one "
    "microbatch on one rank. 3: simulation on the problem's costs and network."
)


def _over_boundaries(entrants: Sequence[Entrant]) -> tuple[list[Entrant], dict[str, str]]:
    """Those that send just what crosses boundaries of stages, which has a size, and why the others go."""
    reason = "it sends more than what crosses the boundaries of stages, whose sizes the topology gives"
    others = {entrant.name: reason for entrant in entrants if not is_laid_out(entrant.cut.problem)}
    return [entrant for entrant in entrants if entrant.name not in others], others


def _read_entrant(path: str, problem: Problem) -> Entrant:
    schedule = read_schedule(read_text(path), path).schedule
    name = "standard input" if path == STANDARD_STREAM else PurePath(path).stem
    return Entrant.planned(name, same_model(name, schedule.problem, problem), schedule)


def _synthesized(
    cuts: Sequence[Cut], topology: Topology | None, problem: Problem, options: argparse.Namespace
) -> Entrant:
    """The best schedule found for the problem as it is cut, or for every cut of one stage per rank."""
    own = cuts[:1] if problem.num_stages > problem.num_ranks else cuts[::-1]

    def planned(cut: Problem) -> Problem:
        links = replace(cut, links=options.links or cut.links)
        return links if topology is None else with_transfers_over(topology_for(topology, problem, cut), links)

    result = search([planned(cut.problem) for cut in own], options)
    found = result.schedule
    return Entrant.planned("synthesized", Cut(problem=found.problem, bytes_scale=own[0].bytes_scale), found)


def _row_json(row: Levels, standing: Standing) -> dict[str, Any]:
    formula, slots, simulation = row.formula, row.slots, row.simulation
    return {
        "name": row.name,
        "stages": row.num_stages,
        "formula": formula
        and {
            "rank": standing.places[0],
            "idle_share": _number(formula.idle_share),
            "peak_activations": _number(formula.peak_activations),
            "weight_copies": formula.weight_copies,
        },
        "slot_table": {
            "rank": standing.places[1],
            "rises": standing.rises[0],
            "slots": _number(slots.slots),
            "idle_share": slots.idle_share,
            "peak_activations": _number(slots.peak_activations),
        },
        "simulation": {
            "rank": standing.places[2],
            "rises": standing.rises[1],
            "seconds": _number(simulation.seconds),
            "idle_share": simulation.idle_share,
            "peak_bytes": _number(simulation.peak_bytes),
            "fits": simulation.fits,
        },
    }


def _number(value: Fraction | None) -> float | int | None:
    """Whole numbers as such."""
    if value is None:
        return None
    return int(value) if value.denominator == 1 else float(value)
