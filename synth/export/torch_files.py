"""PyTorch's own runtime: the CSV, the map from stages to ranks, and a Python module that runs them."""

from __future__ import annotations

import json

from synth.export.torch_csv import to_torch_csv
from synth.problem import Problem
from synth.schedule import Schedule

_LAUNCHER = '''\
"""Runs a schedule on PyTorch's own runtime: build_schedule(...), then .step(...), on every rank."""

import json
from pathlib import Path

from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

PLAN = json.loads(Path(__file__).with_name({map_name!r}).read_text())


def build_schedule(rank, make_stage, loss_fn, **options):
    """The stages of one pipeline rank under the schedule.

    make_stage(stage, num_stages) gives a PipelineStage of this process; options go to the runtime.
    Every step takes PLAN["num_microbatches"] microbatches, equal parts of its batch along dimension 0.
    """
    stages = [make_stage(stage, PLAN["num_stages"]) for stage in PLAN["stages_by_rank"][rank]]
    schedule = _PipelineScheduleRuntime(stages, PLAN["num_microbatches"], loss_fn=loss_fn, **options)
    schedule._load_csv(str(Path(__file__).with_name({csv_name!r})))
    return schedule
'''


def torch_csv_files(schedule: Schedule, csv_name: str) -> dict[str, str]:
    """The files of an export to PyTorch's runtime.

    Parameters
    ----------
    schedule
        What is exported.
    csv_name
        The name of the CSV, without a folder.

    Returns
    -------
    Texts by file name: the CSV; ``<stem>.stages.json``, see :func:`stage_map`; and ``<stem>_torch.py``, whose
    ``build_schedule`` makes the runtime from both.
    """
    map_name = f"{stem(csv_name)}.stages.json"
    return {
        csv_name: to_torch_csv(schedule),
        map_name: stage_map(schedule.problem),
        f"{stem(csv_name)}_torch.py": _LAUNCHER.format(csv_name=csv_name, map_name=map_name),
    }


def stage_map(problem: Problem) -> str:
    """The stage-to-rank map and the layers of every stage, as JSON for whoever builds the stages.

    ``stages_by_rank[r]`` lists the stages that rank r must build; ``layers`` is there where every stage names
    some.
    """
    entries: dict[str, object] = {
        "num_ranks": problem.num_ranks,
        "num_stages": problem.num_stages,
        "num_microbatches": problem.num_microbatches,
        "stage_to_rank": problem.stage_to_rank,
        "stages_by_rank": problem.stages_by_rank,
    }
    if all(costs.layers for costs in problem.stages):
        entries["layers"] = [costs.layers for costs in problem.stages]
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def stem(csv_name: str) -> str:
    """A file's name without its ``.csv``."""
    return csv_name.removesuffix(".csv")
