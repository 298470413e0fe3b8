"""What runs plain chains of stages only."""

from __future__ import annotations

from synth.errors import InputError
from synth.flows import laid_out_of
from synth.problem import Problem


def check_chain(problem: Problem, target: str) -> None:
    """Make sure that a target can express a problem's stages.

    Raises
    ------
    InputError
        When they are no plain chain, naming the target.
    """
    if problem.feeds:
        what = "directions or slices" if laid_out_of(problem) else "stages that are no plain chain"
        raise InputError(
            f"{target} cannot express {what}: give it a problem whose stages are one chain, or use slot-csv, "
            "perfetto or html"
        )
    if not problem.is_chain:
        stage = next(number for number, costs in enumerate(problem.stages) if costs.R is not None)
        raise InputError(
            f"{target} cannot express a planned sum of gradients, and stage {stage} gives R: leave R out, or "
            "use slot-csv, perfetto or html"
        )
