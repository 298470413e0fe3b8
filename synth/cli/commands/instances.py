"""``instances``: the published instances that ship."""

from __future__ import annotations

import argparse
from typing import Any

from synth.cli.arguments import add_json_argument
from synth.cli.exit_codes import DONE
from synth.cli.streams import print_json
from synth.instances import instance_names, load_instance
from synth.problem import Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``instances`` takes."""
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """List the published instances that ship, with their sources."""
    problems = [load_instance(name) for name in instance_names()]
    if options.json:
        print_json([{**_summary(problem), "source": problem.source} for problem in problems])
        return DONE
    for problem in problems:
        summary = _summary(problem)
        print("{name:<18} p={num_ranks:<3} m={num_microbatches:<4} ".format(**summary), problem.source)
    return DONE


def _summary(problem: Problem) -> dict[str, Any]:
    counts = {"num_ranks": problem.num_ranks, "num_microbatches": problem.num_microbatches}
    return {"name": problem.name, **counts}
