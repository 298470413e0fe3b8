"""Exports of several files: where they go, and that they come all or none."""

import pytest
from builders import UNDIVIDED, good_schedule, two_by_two

from synth.baselines import baseline_orders
from synth.document import read_schedule
from synth.errors import InputError
from synth.export.file_sets import FILE_SETS, export_files
from synth.export.torch_csv import from_torch_csv, to_torch_csv
from synth.files import write_all
from synth.schedule import measure
from synth.timing import schedule_orders

BESIDE = {
    "torch-csv": ["plan.stages.json", "plan_torch.py"],
    "torchtitan": ["plan_torchtitan.py"],
    "automodel": ["plan.automodel.yaml"],
}


@pytest.mark.parametrize("target", FILE_SETS)
def test_files_lie_beside_the_csv(target, tmp_path):
    files = export_files(target, good_schedule(), str(tmp_path / "plan.csv"))
    assert list(files) == [str(tmp_path / name) for name in ["plan.csv", *BESIDE[target]]]
    write_all(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["plan.csv", *BESIDE[target]])
    text = (tmp_path / "plan.csv").read_text()
    assert from_torch_csv(text, two_by_two()) == good_schedule().orders


@pytest.mark.parametrize("target", FILE_SETS)
def test_a_path_without_folder_stays_so(target):
    assert list(export_files(target, good_schedule(), "plan.csv")) == ["plan.csv", *BESIDE[target]]


@pytest.mark.parametrize("target", FILE_SETS)
def test_standard_output_takes_the_csv_alone(target, capsys):
    write_all(export_files(target, good_schedule(), "-"))
    assert capsys.readouterr().out == to_torch_csv(good_schedule())


def test_what_the_target_refuses_is_refused_before_any_file():
    problem = two_by_two(UNDIVIDED, stage_to_rank=(1, 0))
    schedule = schedule_orders(problem, baseline_orders("gpipe", problem))
    assert export_files("torch-csv", schedule, "plan.csv")
    with pytest.raises(InputError, match="automodel cannot express stages on ranks 1, 0"):
        export_files("automodel", schedule, "plan.csv")


@pytest.mark.parametrize("target", FILE_SETS)
def test_export_and_import_again(target, run, problem_file, schedule_file):
    folder = problem_file.parent
    answer = run("export", schedule_file, "--to", target, "-o", folder / "plan.csv")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert {path.name for path in folder.iterdir()} >= {"plan.csv", *BESIDE[target]}
    again = folder / "again.json"
    assert run("import", folder / "plan.csv", problem_file, "-o", again).code == 0
    before, after = (read_schedule(path.read_text()).schedule for path in (schedule_file, again))
    assert measure(before) == measure(after)


def test_csv_through_a_pipe(run, schedule_file):
    answer = run("export", schedule_file, "--to", "torch-csv", "-o", "-")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == to_torch_csv(read_schedule(schedule_file.read_text()).schedule)
