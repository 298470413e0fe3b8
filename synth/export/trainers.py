"""What torchtitan and NeMo Automodel have in common: both place stages by the name of a schedule.

They execute a CSV with PyTorch's own runtime, but a rank builds its stages by the schedule's name: a V for
``ZBVZeroBubble``, else stage s is on rank s mod p (torchtitan 0.3.0 ``distributed/pipeline_parallel.py``,
nemo-automodel 0.7.0 ``components/distributed/pipelining/functional.py``). Any other placement would end in a
``KeyError`` inside the first step, so it is refused here.
"""

from __future__ import annotations

from collections import Counter

from synth.errors import InputError
from synth.export.chains import check_chain
from synth.ops import OpKind
from synth.placement import PlacementKind, place
from synth.problem import Problem
from synth.schedule import Schedule

STAGES_WITHOUT_LAYERS = 2
"""Into more stages per rank than this, neither cuts a model unless it is told the layers of each."""

WARNING_ON_DIVIDED = (
    "The backward is divided. Do not compile the stages, and switch activation checkpointing off:",
    "PyTorch would recompute a stage once for its inputs and again for each of its weights.",
)
"""PyTorch 2.13: ``torch.distributed.pipelining._backward``; compiled stages fail in ``backward_input``."""


def schedule_name(problem: Problem, target: str) -> str:
    """The schedule name that makes a trainer place the stages as the problem does.

    Parameters
    ----------
    problem
        Whose placement is named.
    target
        The trainer, for messages.

    Raises
    ------
    InputError
        Naming what the trainer cannot express: directions or slices, one rank, uneven stages per rank, or
        neither loop nor V.
    """
    check_chain(problem, target)
    ranks, num_ranks, num_stages = problem.stage_to_rank, problem.num_ranks, problem.num_stages
    if num_ranks == 1:
        raise InputError(f"{target} runs no pipeline on one rank: export a problem with two ranks or more")
    held = [len(stages) for stages in problem.stages_by_rank]
    if len(set(held)) > 1:
        least, most = held.index(min(held)), held.index(max(held))
        raise InputError(
            f"{target} cannot express uneven stages per rank, and rank {most} holds {held[most]}, rank "
            f"{least} holds {held[least]}: give all ranks as many, or export to torch-csv, which takes any"
        )
    if ranks == place(PlacementKind.LOOP, num_ranks, num_stages).stage_to_rank:
        return "PipelineScheduleSingle" if num_stages == num_ranks else "PipelineScheduleMulti"
    if num_stages == 2 * num_ranks and ranks == place(PlacementKind.V, num_ranks, num_stages).stage_to_rank:
        return "ZBVZeroBubble"
    raise InputError(
        f"{target} cannot express stages on ranks {', '.join(map(str, ranks))}, only loop, and v with two "
        "stages per rank: place them so, or export to torch-csv, which takes any"
    )


def layers_by_stage(problem: Problem, target: str) -> list[list[str]] | None:
    """The layers of every stage, or None where the trainer shall cut the model itself.

    Raises
    ------
    InputError
        When only some stages name their layers, a stage has none of its own, or no layers are named though
        the trainer would make fewer stages.
    """
    named = [bool(costs.layers) for costs in problem.stages]
    if all(named):
        _check_own_layers(problem, target)
        return [list(costs.layers) for costs in problem.stages]
    if any(named):
        raise InputError(
            f"stage {named.index(False)} names no layers and stage {named.index(True)} does; {target} takes "
            'those of all stages or none: give every stage its "layers", or no stage'
        )
    chunks = problem.num_stages // problem.num_ranks
    if chunks > STAGES_WITHOUT_LAYERS:
        raise InputError(
            f"the stages name no layers, and by itself {target} cuts a model into at most "
            f'{STAGES_WITHOUT_LAYERS} stages per rank, not {chunks}: give every stage its "layers"'
        )
    return None


def _check_own_layers(problem: Problem, target: str) -> None:
    """Stages may share a layer, such as a rotary embedding, but two equal stages are one model part twice."""
    stages_of = Counter(layer for costs in problem.stages for layer in set(costs.layers))
    for stage, costs in enumerate(problem.stages):
        if all(stages_of[layer] > 1 for layer in costs.layers):
            names = ", ".join(costs.layers)
            raise InputError(
                f"stage {stage} names only {names}, as other stages do, and {target} would train the same "
                'layers twice: give every stage "layers" of its own'
            )


def placement_words(name: str) -> str:
    """Where a trainer places the stages of a schedule of this name."""
    return "a V" if name == "ZBVZeroBubble" else "stage s on rank s mod p"


def warning_comment(schedule: Schedule) -> str:
    """:data:`WARNING_ON_DIVIDED` as comment lines where any backward is divided, else nothing."""
    is_divided = any(op.kind is OpKind.B for order in schedule.orders for op in order)
    return "".join(f"# {line}\n" for line in WARNING_ON_DIVIDED) if is_divided else ""
