"""From a command's arguments to the problem they name."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from synth.chunks import cut_stages
from synth.document import read_problem
from synth.files import read_text
from synth.instances import instance_names, load_instance
from synth.memory import parse_limit
from synth.placement import PlacementKind, place
from synth.problem import Problem


def load_problem(options: argparse.Namespace) -> Problem:
    """The problem that a command names, with the overrides it gives.

    What cutting into chunks changed besides is said on standard error.
    """
    name = options.problem
    if name in instance_names():
        problem = load_instance(name)
    elif name != "-" and name.startswith("zb-") and not name.endswith(".json"):
        problem = load_instance(name)  # a misspelt instance: the error names near ones
    else:
        problem = read_problem(read_text(name), name)
    if options.microbatches is not None:
        problem = replace(problem, num_microbatches=options.microbatches)
    if options.objective is not None:
        problem = replace(problem, objective=options.objective)
    limit = options.memory_limit
    is_multiple = limit is not None and limit.strip().lower().endswith("x")
    if limit is not None and not is_multiple:
        problem = problem.with_memory_limit(parse_limit(limit, problem))
    problem = _placed(problem, options)
    if is_multiple:
        problem = problem.with_memory_limit(parse_limit(limit, problem))
    return problem


def _placed(problem: Problem, options: argparse.Namespace) -> Problem:
    kind = options.placement
    if options.chunks is not None:
        cut = cut_stages(problem, options.chunks, kind or PlacementKind.LOOP)
        if cut.rounding_ticks:
            print(f"cutting rounds an op by up to {cut.rounding_ticks} ticks in all", file=sys.stderr)
        if cut.bytes_scale > 1:
            print(
                f"bytes do not divide: the memory unit is now 1/{cut.bytes_scale} of a byte", file=sys.stderr
            )
        return cut.problem
    if kind is None:
        return problem
    map_kind = PlacementKind.LOOP if kind is PlacementKind.AUTO else kind
    placement = place(map_kind, problem.num_ranks, problem.num_stages)
    return problem.with_placement(replace(placement, kind=kind))
