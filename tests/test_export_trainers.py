"""torchtitan and NeMo Automodel: what their files say, and what is refused because they cannot express it."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from builders import DIVIDED, UNDIVIDED, two_by_two

from synth.baselines import baseline_orders
from synth.errors import InputError
from synth.export.automodel import automodel_files
from synth.export.torch_csv import to_torch_csv
from synth.export.torch_files import torch_csv_files
from synth.export.torchtitan import torchtitan_files
from synth.export.trainers import schedule_name
from synth.placement import Placement, PlacementKind
from synth.problem import uniform_problem
from synth.timing import schedule_orders

BOTH = pytest.mark.parametrize(
    ("target", "files_of"), [("torchtitan", torchtitan_files), ("automodel", automodel_files)]
)


def v_half(num_ranks=2, *, layers=True):
    """V-Half with two layers per stage."""
    problem = uniform_problem(num_ranks, 4, DIVIDED, chunks=2, kind=PlacementKind.V)
    if layers:
        names = [(f"layers.{2 * s}", f"layers.{2 * s + 1}") for s in range(problem.num_stages)]
        problem = replace(problem, stages=tuple(replace(DIVIDED, layers=each) for each in names))
    return schedule_orders(problem, baseline_orders("v-half", problem))


def gpipe(problem):
    return schedule_orders(problem, baseline_orders("gpipe", problem))


# torchtitan.


@dataclass(slots=True)
class Parallelism030:
    """The fields of torchtitan 0.3.0's ``ParallelismConfig`` that an export sets."""

    pipeline_parallel_degree: int = 1
    pipeline_parallel_schedule: str = "1F1B"
    pipeline_parallel_schedule_csv: str | None = ""
    pipeline_parallel_microbatch_size: int = 2
    module_fqns_per_model_part: list[list[str]] | None = None


@dataclass(slots=True)
class ParallelismMain:
    """The same of torchtitan's main branch, autumn 2026."""

    pipeline_parallel_degree: int = 1
    pipeline_parallel_schedule: str = "1F1B"
    pipeline_parallel_schedule_csv: str | None = ""
    num_pp_microbatches: int = 1
    pipeline_parallel_module_fqns_per_model_part: list[list[str]] | None = None


def configured(files, folder, parallelism):
    """A configuration after the written module has set it; a field it does not have cannot be set."""
    for name, text in files.items():
        (folder / name).write_text(text)
    path = folder / "plan_torchtitan.py"
    module = {"__file__": str(path)}
    exec(compile(path.read_text(), path, "exec"), module)
    training = SimpleNamespace(local_batch_size=8, disable_cuda_graphs=False)
    config = SimpleNamespace(parallelism=parallelism, training=training)
    assert module["use_schedule"](config) is config
    return config


LAYERS = [
    ["layers.0", "layers.1"],
    ["layers.2", "layers.3"],
    ["layers.4", "layers.5"],
    ["layers.6", "layers.7"],
]


def test_torchtitan_0_3_0(tmp_path):
    config = configured(torchtitan_files(v_half(), "plan.csv"), tmp_path, Parallelism030())
    assert config.parallelism == Parallelism030(
        pipeline_parallel_degree=2,
        pipeline_parallel_schedule="ZBVZeroBubble",
        pipeline_parallel_schedule_csv=str(tmp_path / "plan.csv"),
        module_fqns_per_model_part=LAYERS,
    )
    assert config.training == SimpleNamespace(local_batch_size=4 * 2, disable_cuda_graphs=True)


def test_torchtitan_main(tmp_path):
    config = configured(torchtitan_files(v_half(), "plan.csv"), tmp_path, ParallelismMain())
    assert config.parallelism == ParallelismMain(
        pipeline_parallel_degree=2,
        pipeline_parallel_schedule="ZBVZeroBubble",
        pipeline_parallel_schedule_csv=str(tmp_path / "plan.csv"),
        num_pp_microbatches=4,
        pipeline_parallel_module_fqns_per_model_part=LAYERS,
    )
    assert config.training == SimpleNamespace(local_batch_size=8, disable_cuda_graphs=True)


def test_torchtitan_cuts_the_model_where_no_layers_are_named(tmp_path):
    config = configured(torchtitan_files(v_half(layers=False), "plan.csv"), tmp_path, Parallelism030())
    assert config.parallelism.module_fqns_per_model_part is None


def test_torchtitan_with_a_name_that_needs_quoting(tmp_path):
    files = torchtitan_files(v_half(), 'it\'s "the" plan\\.csv')
    module = {"__file__": str(tmp_path / "module.py")}
    exec(files['it\'s "the" plan\\_torchtitan.py'], module)
    config = SimpleNamespace(parallelism=Parallelism030(), training=SimpleNamespace())
    module["use_schedule"](config)
    assert config.parallelism.pipeline_parallel_schedule_csv.endswith('it\'s "the" plan\\.csv')


# NeMo Automodel.


def test_automodel():
    """Read line by line: the fragment is too plain to need a YAML parser."""
    text = automodel_files(v_half(), "plan.csv")["plan.automodel.yaml"]
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert lines == [
        "step_scheduler:",
        "  local_batch_size: 4",
        "distributed:",
        "  pp_size: 2",
        "  pipeline:",
        "    pp_schedule: ZBVZeroBubble",
        '    pp_schedule_csv: "plan.csv"',
        "    pp_microbatch_size: 1",
        "    module_fqns_per_model_part:",
        *(f"      - {json.dumps(part)}" for part in LAYERS),
    ]


def test_automodel_cuts_the_model_where_no_layers_are_named():
    text = automodel_files(v_half(layers=False), "plan.csv")["plan.automodel.yaml"]
    assert "module_fqns_per_model_part" not in text
    assert text.endswith("# The stages name no layers: Automodel cuts the model itself.\n")


def test_automodel_wants_as_many_microbatches_as_ranks():
    schedule = gpipe(uniform_problem(4, 3, UNDIVIDED))
    torchtitan_files(schedule, "plan.csv")
    sentence = "automodel cannot run fewer microbatches than ranks, and the problem has 3 on 4 ranks: give it"
    with pytest.raises(InputError, match=sentence):
        automodel_files(schedule, "plan.csv")


# Both.


@BOTH
def test_csv_is_that_of_torch(target, files_of):
    files = files_of(v_half(), "plan.csv")
    assert len(files) == 2
    assert files["plan.csv"] == to_torch_csv(v_half())


@BOTH
def test_divided_backward_is_warned_of(target, files_of):
    warning = "switch activation checkpointing off"
    assert any(warning in text for text in files_of(v_half(), "plan.csv").values())
    whole = gpipe(uniform_problem(2, 2, UNDIVIDED))
    assert not any(warning in text for text in files_of(whole, "plan.csv").values())


@pytest.mark.parametrize(
    ("kind", "chunks", "name"),
    [
        (PlacementKind.LOOP, 1, "PipelineScheduleSingle"),
        (PlacementKind.LOOP, 2, "PipelineScheduleMulti"),
        (PlacementKind.LOOP, 5, "PipelineScheduleMulti"),
        (PlacementKind.V, 2, "ZBVZeroBubble"),
        (PlacementKind.WAVE, 2, "ZBVZeroBubble"),
    ],
)
def test_name_stands_for_the_placement(kind, chunks, name):
    """Also where the placement is given as a map."""
    problem = uniform_problem(4, 4, DIVIDED, chunks=chunks, kind=kind)
    assert schedule_name(problem, "torchtitan") == name
    explicit = problem.with_placement(Placement.explicit(problem.stage_to_rank))
    assert schedule_name(explicit, "torchtitan") == name


@BOTH
@pytest.mark.parametrize(
    ("stage_to_rank", "sentence"),
    [
        (
            (0, 1, 1, 0, 0),
            " cannot express uneven stages per rank, and rank 0 holds 3, rank 1 holds 2: "
            "give all ranks as many, or export to torch-csv, which takes any",
        ),
        ((1, 0), " cannot express stages on ranks 1, 0, only loop, and v with two stages per rank"),
        ((0, 0, 1, 1), " cannot express stages on ranks 0, 0, 1, 1, only loop"),
        ((0, 1, 1, 0, 0, 1), " cannot express stages on ranks 0, 1, 1, 0, 0, 1, only loop"),
        ((0,), " runs no pipeline on one rank: export a problem with two ranks or more"),
    ],
)
def test_placement_that_no_name_stands_for(target, files_of, stage_to_rank, sentence):
    schedule = gpipe(two_by_two(UNDIVIDED, stage_to_rank=stage_to_rank))
    torch_csv_files(schedule, "plan.csv")
    with pytest.raises(InputError) as caught:
        files_of(schedule, "plan.csv")
    assert str(caught.value).startswith(target + sentence)


def with_layers(problem, *layers):
    stages = tuple(replace(costs, layers=each) for costs, each in zip(problem.stages, layers, strict=True))
    return replace(problem, stages=stages)


@BOTH
def test_layers_of_some_stages_only(target, files_of):
    problem = with_layers(two_by_two(UNDIVIDED), ("layers.0",), ())
    with pytest.raises(
        InputError, match=f"stage 1 names no layers and stage 0 does; {target} takes those of all"
    ):
        files_of(gpipe(problem), "plan.csv")


@BOTH
def test_more_stages_than_the_trainer_cuts_by_itself(target, files_of):
    problem = uniform_problem(2, 2, UNDIVIDED, chunks=3)
    with pytest.raises(
        InputError, match=f"by itself {target} cuts a model into at most 2 stages per rank, not 3:"
    ):
        files_of(gpipe(problem), "plan.csv")
    named = with_layers(problem, *((f"layers.{s}",) for s in range(6)))
    assert any("layers.5" in text for text in files_of(gpipe(named), "plan.csv").values())


@BOTH
def test_stages_of_the_same_layers(target, files_of):
    """Every stage may hold the rotary embedding, but a layer that two stages train is a mistake."""
    shared = with_layers(two_by_two(UNDIVIDED), ("layers.0", "rotary"), ("layers.1", "rotary"))
    files_of(gpipe(shared), "plan.csv")
    doubled = with_layers(two_by_two(UNDIVIDED), ("layers.0", "rotary"), ("layers.0", "rotary"))
    with pytest.raises(
        InputError, match=f"stage 0 names only layers.0, rotary, as other stages do, and {target}"
    ):
        files_of(gpipe(doubled), "plan.csv")
