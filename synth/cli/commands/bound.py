"""``bound``: the lower bounds, each with its argument."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from synth.bounds import lower_bounds
from synth.cli.arguments import add_json_argument, add_problem_arguments, add_search_arguments
from synth.cli.exit_codes import DONE
from synth.cli.loading import load_problem
from synth.cli.streams import Printer, print_json
from synth.cpsat import SolveParams
from synth.free_maps import open_placements
from synth.memory import feasible_placements
from synth.report import bound_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``bound`` takes."""
    add_problem_arguments(parser)
    add_search_arguments(parser, time_limit=10.0)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print the lower bounds of a problem, each with its argument."""
    problem = load_problem(options)
    feasible_placements(open_placements(problem))
    params = SolveParams(
        time_limit_s=options.time_limit,
        work_limit=options.time_limit,
        workers=options.workers,
        seed=options.seed,
    )
    bounds = lower_bounds(problem, params)
    if options.json:
        answer = {
            "objective": problem.objective.value,
            "lower_bound": bounds[0].ticks,
            "bubble_ratio": 1 - problem.work_ticks / bounds[0].ticks,
            "bounds": [asdict(bound) for bound in bounds],
        }
        print_json(answer)
        return DONE
    Printer().table(bound_table(problem, bounds))
    return DONE
