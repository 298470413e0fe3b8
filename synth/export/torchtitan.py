"""torchtitan: the CSV, and a Python module that sets a configuration to run it.

torchtitan's configurations are Python objects; the module's one function changes a finished one. The names
are those of torchtitan 0.3.0 (``torchtitan/config/configs.py``) and, where they have changed since, of its
main branch in autumn 2026 (``torchtitan/config/parallelism.py``), told apart by what the configuration has.
"""

from __future__ import annotations

from synth.export.torch_csv import to_torch_csv
from synth.export.torch_files import stem
from synth.export.trainers import layers_by_stage, placement_words, schedule_name, warning_comment
from synth.problem import Problem
from synth.schedule import Schedule

TARGET = "torchtitan"

_MODULE = '''\
"""Runs a schedule in torchtitan: return use_schedule(config) where a configuration is made."""
{warning}
from pathlib import Path


def use_schedule(config):
    """Set a torchtitan configuration, 0.3.0 or later, to {num_microbatches} microbatches in this order."""
    parallelism, training = config.parallelism, config.training
    parallelism.pipeline_parallel_degree = {num_ranks}
    # With a CSV the name says nothing but where stages go: {placement}.
    parallelism.pipeline_parallel_schedule = "{name}"
    parallelism.pipeline_parallel_schedule_csv = str(Path(__file__).with_name({csv_name}))
    training.disable_cuda_graphs = True  # not supported with a CSV
    if hasattr(parallelism, "num_pp_microbatches"):
        parallelism.num_pp_microbatches = {num_microbatches}
    else:  # 0.3.0
        training.local_batch_size = {num_microbatches} * parallelism.pipeline_parallel_microbatch_size
{layers}    return config
'''
_LAYERS = """\
    parts = [
{parts}
    ]
    if hasattr(parallelism, "pipeline_parallel_module_fqns_per_model_part"):
        parallelism.pipeline_parallel_module_fqns_per_model_part = parts
    else:  # 0.3.0
        parallelism.module_fqns_per_model_part = parts
"""
_NO_LAYERS = "    # The stages name no layers: torchtitan cuts the model itself.\n"


def torchtitan_files(schedule: Schedule, csv_name: str) -> dict[str, str]:
    """The files of an export to torchtitan.

    Parameters
    ----------
    schedule
        What is exported.
    csv_name
        The name of the CSV, without a folder.

    Returns
    -------
    Texts by file name: the CSV, and ``<stem>_torchtitan.py``.

    Raises
    ------
    InputError
        Naming what torchtitan cannot express.
    """
    fragment = to_torchtitan(schedule, csv_name)
    return {csv_name: to_torch_csv(schedule), f"{stem(csv_name)}_torchtitan.py": fragment}


def to_torchtitan(schedule: Schedule, csv_name: str) -> str:
    """The Python module that sets a torchtitan configuration to run a CSV beside it.

    Raises
    ------
    InputError
        Naming what torchtitan cannot express.
    """
    problem = schedule.problem
    name = schedule_name(problem, TARGET)
    warning = warning_comment(schedule)
    return _MODULE.format(
        csv_name=repr(csv_name),
        warning="\n" + warning if warning else "",
        num_ranks=problem.num_ranks,
        num_microbatches=problem.num_microbatches,
        placement=placement_words(name),
        name=name,
        layers=_layers(problem),
    )


def _layers(problem: Problem) -> str:
    parts = layers_by_stage(problem, TARGET)
    if parts is None:
        return _NO_LAYERS
    return _LAYERS.format(parts="\n".join(f"        {part!r}," for part in parts))
