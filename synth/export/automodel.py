"""NeMo Automodel: the CSV, and a YAML fragment of a recipe that runs it.

The keys are those of nemo-automodel 0.7.0 (``components/distributed/pipelining/config.py``); its recipes take
the batch of a step from ``step_scheduler.local_batch_size`` and demand as many microbatches as ranks
(``recipes/llm/train_ft.py``).
"""

from __future__ import annotations

import json

from synth.errors import InputError
from synth.export.torch_csv import to_torch_csv
from synth.export.torch_files import stem
from synth.export.trainers import layers_by_stage, placement_words, schedule_name, warning_comment
from synth.problem import Problem
from synth.schedule import Schedule

TARGET = "automodel"

_FRAGMENT = """\
# Runs {csv} in NeMo Automodel 0.7: merge this into a recipe.
{warning}step_scheduler:
  # {num_microbatches} microbatches of pp_microbatch_size; raise both by the same factor.
  local_batch_size: {num_microbatches}
distributed:
  pp_size: {num_ranks}
  pipeline:
    # With a CSV the name says nothing but where stages go: {placement}.
    pp_schedule: {name}
    # Relative to the folder that training starts in.
    pp_schedule_csv: {csv}
    pp_microbatch_size: 1
{layers}"""


def automodel_files(schedule: Schedule, csv_name: str) -> dict[str, str]:
    """The files of an export to NeMo Automodel.

    Parameters
    ----------
    schedule
        What is exported.
    csv_name
        The name of the CSV, without a folder.

    Returns
    -------
    Texts by file name: the CSV, and ``<stem>.automodel.yaml``.

    Raises
    ------
    InputError
        Naming what Automodel cannot express.
    """
    fragment = to_automodel(schedule, csv_name)
    return {csv_name: to_torch_csv(schedule), f"{stem(csv_name)}.automodel.yaml": fragment}


def to_automodel(schedule: Schedule, csv_name: str) -> str:
    """The YAML fragment of a recipe that runs a CSV.

    Raises
    ------
    InputError
        Naming what Automodel cannot express.
    """
    problem = schedule.problem
    name = schedule_name(problem, TARGET)
    if problem.num_microbatches < problem.num_ranks:
        raise InputError(
            f"{TARGET} cannot run fewer microbatches than ranks, and the problem has "
            f"{problem.num_microbatches} on {problem.num_ranks} ranks: give it at least as many as ranks"
        )
    return _FRAGMENT.format(
        csv=json.dumps(csv_name),
        warning=warning_comment(schedule),
        num_ranks=problem.num_ranks,
        num_microbatches=problem.num_microbatches,
        placement=placement_words(name),
        name=name,
        layers=_layers(problem),
    )


def _layers(problem: Problem) -> str:
    parts = layers_by_stage(problem, TARGET)
    if parts is None:
        return "    # The stages name no layers: Automodel cuts the model itself.\n"
    # A JSON list is a YAML list.
    lines = [f"      - {json.dumps(part)}\n" for part in parts]
    return "    module_fqns_per_model_part:\n" + "".join(lines)
