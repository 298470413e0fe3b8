"""From a command's arguments to the problem they name."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from dataclasses import dataclass, replace

from synth.chunks import cut_every_way, cut_stages
from synth.document import read_problem
from synth.errors import InputError
from synth.files import STANDARD_STREAM, read_text
from synth.instances import instance_names, load_instance
from synth.memory import is_multiple, parse_limit
from synth.placement import PlacementKind, place
from synth.problem import Problem

AUTO_CHUNKS = "auto"
"""What ``--chunks`` takes beside numbers, where a command can try several."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A problem under every cut, and how many of their bytes one byte as typed is."""

    problems: list[Problem]
    bytes_scale: int = 1


def load_problem(options: argparse.Namespace) -> Problem:
    """The problem that a command names, with the overrides it gives, of which no cut may be open."""
    (problem,) = load_problems(options)
    return problem


def load_problems(options: argparse.Namespace) -> list[Problem]:
    """The problem that a command names, with the overrides it gives, under every cut that they leave open.

    What cutting into chunks changed besides is said on standard error.
    """
    limit = options.memory_limit
    problem = _overridden(options)
    if limit is not None and not is_multiple(limit):
        problem = problem.with_memory_limit(parse_limit(limit, problem))
    problems = _stated(problem, options).problems
    if limit is not None and is_multiple(limit):
        problems = [cut.with_memory_limit(parse_limit(limit, cut)) for cut in problems]
    return problems


def load_unlimited(options: argparse.Namespace) -> Stated:
    """The same without any memory limit, for a command that sets its own."""
    return _stated(_overridden(options).with_memory_limit(None), options)


def _overridden(options: argparse.Namespace) -> Problem:
    problem = _named_problem(options.problem)
    for flag in ("microbatches", "placement"):
        if problem.feeds and getattr(options, flag) is not None:
            raise InputError(f"--{flag} is given for directions or slices: change the problem instead")
    if options.microbatches is not None:
        problem = replace(problem, num_microbatches=options.microbatches)
    if options.objective is not None:
        problem = replace(problem, objective=options.objective)
    return problem


def _stated(problem: Problem, options: argparse.Namespace) -> Stated:
    return _cut(problem, options) if options.chunks == AUTO_CHUNKS else _placed(problem, options)


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


def _cut(problem: Problem, options: argparse.Namespace) -> Stated:
    """The problem under every cut to try, in common units, which go into the names."""
    open_kind = PlacementKind.AUTO if problem.placement.kind is PlacementKind.AUTO else None
    cuts = cut_every_way(problem, options.placement or open_kind)
    units = []
    if cuts.ticks_scale > 1:
        units.append(f"time in 1/{cuts.ticks_scale} of a tick")
    if cuts.bytes_scale > 1:
        units.append(f"memory in 1/{cuts.bytes_scale} of a byte")
    if not units:
        return Stated(list(cuts.problems))
    print(f"so that every cut is exact: {' and '.join(units)}", file=sys.stderr)
    named = [replace(cut, name=", ".join([cut.name or "problem", *units])) for cut in cuts.problems]
    return Stated(named, cuts.bytes_scale)


def _placed(problem: Problem, options: argparse.Namespace) -> Stated:
    kind = options.placement
    if options.chunks is not None and (options.chunks > 1 or kind is not None):
        cut = cut_stages(problem, options.chunks, kind or PlacementKind.LOOP)
        if cut.rounding_ticks:
            print(f"cutting rounds an op by up to {cut.rounding_ticks} ticks in all", file=sys.stderr)
        if cut.bytes_scale == 1:
            return Stated([cut.problem])
        unit = f"1/{cut.bytes_scale} of a byte"
        print(f"bytes do not divide: the memory unit is now {unit}", file=sys.stderr)
        # In the name too, which goes into every table and document.
        named = replace(cut.problem, name=f"{cut.problem.name or 'problem'}, memory in {unit}")
        return Stated([named], cut.bytes_scale)
    if kind is not None:
        problem = problem.with_placement(place(kind, problem.num_ranks, problem.num_stages))
    return Stated([problem])
