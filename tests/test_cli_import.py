"""``pipesynth import`` as typed: a CSV and a problem in, a verified schedule document out."""

import io
import json
from dataclasses import replace

import pytest
from builders import EITHER, good_schedule, two_by_two

from synth import cli
from synth.document import read_schedule, write_problem
from synth.placement import PlacementKind, place
from synth.verify import verify_schedule

GOOD = "0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n"
V = "0F0,3F0,0F1,3I0,3W0,3F1,3B1,0I0,0B1,0W0\n1F0,2F0,1F1,2F1,2I0,1I0,2B1,1B1,1W0,2W0\n"


@pytest.fixture
def run(capsys, tmp_path):
    """Run ``pipesynth import`` on a CSV text and a problem; the code and what was printed."""

    def run_command(text, problem, *words):
        (tmp_path / "plan.csv").write_text(text)
        (tmp_path / "problem.json").write_text(write_problem(problem))
        arguments = ["import", str(tmp_path / "plan.csv"), str(tmp_path / "problem.json"), *map(str, words)]
        code = cli.main(arguments)
        return code, capsys.readouterr()

    return run_command


def test_import_writes_a_verified_schedule(run, tmp_path):
    path = tmp_path / "schedule.json"
    code, printed = run(GOOD, two_by_two(), "--from", "torch-csv", "-o", path)
    assert (code, printed.err) == (0, "")
    assert "F0--- F1---" in printed.out
    document = read_schedule(path.read_text())
    assert document.schedule.ranks == good_schedule().ranks
    assert document.provenance.method == "orders from torch-csv"
    assert 0 < document.certificate.lower_bound <= document.certificate.value == 15
    assert not verify_schedule(document.schedule, metrics=document.metrics, certificate=document.certificate)


def test_format_is_torch_csv_unless_named(run):
    code, printed = run(GOOD, two_by_two(), "--json")
    assert code == 0
    (row,) = json.loads(printed.out)
    assert (row["name"], row["value"]) == ("orders from torch-csv", 15)


def test_auto_placement_is_that_of_the_rows(run, tmp_path):
    path = tmp_path / "schedule.json"
    auto = two_by_two(EITHER, stage_to_rank=(0, 1, 0, 1)).with_placement(place(PlacementKind.AUTO, 2, 4))
    assert run(V, auto, "-o", path)[0] == 0
    assert read_schedule(path.read_text()).schedule.problem.stage_to_rank == (0, 1, 1, 0)
    loop = two_by_two(EITHER, stage_to_rank=(0, 1, 0, 1))
    code, printed = run(V, loop)
    assert code == 2
    assert "plan.csv: row 1, column 2 is 3F0: the problem places stage 3 on rank 1" in printed.err
    assert run(V, loop, "--placement", "auto")[0] == 0


def test_over_the_limit_is_written_and_told(run, tmp_path):
    path = tmp_path / "schedule.json"
    code, printed = run(GOOD, two_by_two(), "--memory-limit", 3, "-o", path)
    assert code == 1
    assert printed.err.startswith("pipesynth: memory_limit")
    assert "rank 0" in printed.err
    assert printed.err.count("\n") == 1
    assert path.exists()


def test_wrong_cell_leaves_the_output_alone(run, tmp_path):
    path = tmp_path / "schedule.json"
    path.write_text("before")
    code, printed = run(GOOD.replace("0I0", "0i0"), two_by_two(), "-o", path)
    assert (code, printed.out) == (2, "")
    assert printed.err.endswith("plan.csv: row 1, column 3 is '0i0': write it in capitals, 0I0\n")
    assert path.read_text() == "before"


def test_slot_table_goes_out_and_comes_back(run, capsys, tmp_path):
    schedule, table = tmp_path / "schedule.json", tmp_path / "table.csv"
    assert run(GOOD, two_by_two(), "-o", schedule)[0] == 0
    assert cli.main(["export", str(schedule), "--to", "slot-csv", "-o", str(table)]) == 0
    capsys.readouterr()
    code, printed = run(table.read_text(), two_by_two(), "--from", "slot-csv", "-o", schedule)
    assert (code, printed.err) == (0, "")
    document = read_schedule(schedule.read_text())
    assert document.schedule.ranks == good_schedule().ranks
    assert document.provenance.method == "orders from slot-csv"


def test_wrong_slot_is_told_by_row_and_column(run, tmp_path):
    code, printed = run("0F0,0F1,0F0\n", two_by_two(), "--from", "slot-csv")
    assert (code, printed.out) == (2, "")
    assert "plan.csv: the file has 1 row and the problem 2 ranks" in printed.err
    assert printed.err.count("\n") == 1


def test_deadlock_breaks_a_rule(run):
    code, printed = run(GOOD.replace("0F0,0F1,0I0", "0F1,0I0,0F0"), two_by_two())
    assert code == 1
    assert "the orders deadlock: rank 0 is at 0I0, which waits for 0F0, 1I0" in printed.err


def test_orders_from_standard_input(monkeypatch, capsys, tmp_path):
    (tmp_path / "problem.json").write_text(write_problem(replace(two_by_two(), name="two")))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert cli.main(["import", "-", str(tmp_path / "problem.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["value"] == 15


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-", "-"], "ORDERS and PROBLEM are both standard input: give one of them as a file"),
        (["none.csv", "zb-1.5b-m24"], "none.csv does not exist"),
        (["none.csv", "zb-1.5b-m24", "--from", "xlsx"], "'xlsx' is none of torch-csv"),
        (["none.csv"], "the following arguments are required: PROBLEM"),
    ],
)
def test_wrong_arguments(capsys, arguments, sentence):
    assert cli.main(["import", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_help(capsys):
    assert cli.main(["import", "--help"]) == 0
    assert "--from {torch-csv,slot-csv}" in capsys.readouterr().out
