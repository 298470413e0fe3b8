"""The files beside PyTorch's CSV: the map from stages to ranks and the module that builds a step."""

import json
from dataclasses import replace

from builders import DIVIDED, good_schedule, two_by_two

from synth.export.torch_csv import to_torch_csv
from synth.export.torch_files import stage_map, torch_csv_files


def test_stage_map_says_what_every_rank_builds():
    answer = json.loads(stage_map(two_by_two(stage_to_rank=(0, 1, 1, 0))))
    assert answer == {
        "num_ranks": 2,
        "num_stages": 4,
        "num_microbatches": 2,
        "stage_to_rank": [0, 1, 1, 0],
        "stages_by_rank": [[0, 3], [1, 2]],
    }


def test_stage_map_names_layers():
    stages = tuple(replace(DIVIDED, layers=(f"layers.{s}", "rotary")) for s in range(2))
    answer = json.loads(stage_map(replace(two_by_two(), stages=stages)))
    assert answer["layers"] == [["layers.0", "rotary"], ["layers.1", "rotary"]]


def test_files_beside_one_another():
    files = torch_csv_files(good_schedule(), "plan.csv")
    assert list(files) == ["plan.csv", "plan.stages.json", "plan_torch.py"]
    assert files["plan.csv"] == to_torch_csv(good_schedule())
    assert files["plan.stages.json"] == stage_map(two_by_two())
    assert list(torch_csv_files(good_schedule(), "plan")) == ["plan", "plan.stages.json", "plan_torch.py"]


def test_module_is_python_whatever_the_name():
    """What it does, test_torch_conformance runs."""
    name = 'it\'s "the" plan\\.csv'
    compile(torch_csv_files(good_schedule(), name)['it\'s "the" plan\\_torch.py'], "module", "exec")
