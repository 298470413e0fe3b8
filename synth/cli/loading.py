"""From a command's arguments to the problem they name."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from dataclasses import replace

from synth.chunks import cut_stages
from synth.document import read_problem
from synth.errors import InputError
from synth.files import STANDARD_STREAM, read_text
from synth.instances import instance_names, load_instance
from synth.memory import parse_limit
from synth.placement import PlacementKind, place
from synth.problem import Problem


def load_problem(options: argparse.Namespace) -> Problem:
    """The problem that a command names, with the overrides it gives.

    What cutting into chunks changed besides is said on standard error.
    """
    problem = _named_problem(options.problem)
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


def _named_problem(name: str) -> Problem:
    """The published instance of this name, else the file."""
    names = instance_names()
    if name in names:
        return load_instance(name)
    if name != STANDARD_STREAM and not os.path.exists(name) and not name.endswith(".json"):
        near = difflib.get_close_matches(name.lower(), names)
        hint = f"perhaps {' or '.join(near)} is meant" if near else "pipesynth instances lists the latter"
        raise InputError(f"{name!r} is neither a file nor a published instance: {hint}")
    return read_problem(read_text(name), name)


def _placed(problem: Problem, options: argparse.Namespace) -> Problem:
    kind = options.placement
    if options.chunks is not None and (options.chunks > 1 or kind is not None):
        cut = cut_stages(problem, options.chunks, kind or PlacementKind.LOOP)
        if cut.rounding_ticks:
            print(f"cutting rounds an op by up to {cut.rounding_ticks} ticks in all", file=sys.stderr)
        if cut.bytes_scale == 1:
            return cut.problem
        unit = f"1/{cut.bytes_scale} of a byte"
        print(f"bytes do not divide: the memory unit is now {unit}", file=sys.stderr)
        # In the name too, which goes into every table and document.
        return replace(cut.problem, name=f"{cut.problem.name or 'problem'}, memory in {unit}")
    if kind is None:
        return problem
    return problem.with_placement(place(kind, problem.num_ranks, problem.num_stages))
