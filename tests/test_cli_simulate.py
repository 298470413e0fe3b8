"""``simulate --against``: what it prints, writes and refuses."""

import json

import pytest

from synth import cli
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, read_problem, write_schedule, write_timeline
from synth.ops import OpKind
from tests.builders import good_schedule
from tests.test_measured import as_measured


@pytest.fixture
def run(capsys):
    """Run ``pipesynth simulate``: exit code, standard output, standard error."""

    def run_command(*words):
        capsys.readouterr()
        code = cli.main(["simulate", *map(str, words)])
        return code, *capsys.readouterr()

    return run_command


@pytest.fixture
def files(tmp_path):
    """A schedule, and the timeline of a step in which everything took twice as long."""
    plan = good_schedule()
    claim = Certificate(objective=plan.problem.objective, value=15, lower_bound=15, bound_from="by hand")
    origin = Provenance(method="by hand", created="2026-01-01", tool_version="0")
    schedule, timeline = tmp_path / "schedule.json", tmp_path / "timeline.json"
    schedule.write_text(write_schedule(ScheduleDocument.of(plan, claim, origin)))
    timeline.write_text(write_timeline(as_measured(plan, tick_ns=2000)))
    return schedule, timeline


def test_plan_and_reality_side_by_side(run, files):
    schedule, timeline = files
    code, out, err = run(schedule, "--against", timeline)
    assert (code, err) == (0, "")
    rows = {line.split("  ")[0].strip(): line.split()[-3:] for line in out.splitlines() if "%" in line}
    assert rows["makespan"] == ["1.5e-05", "3e-05", "-50.0%"]
    assert rows["rank 1, busy"] == ["1e-05", "2e-05", "-50.0%"]
    assert rows["0W"] == ["1e-06", "2e-06", "-50.0%"]
    assert "replayed on the measured costs, the orders take 3e-05 s: +0.0% of what was measured" in out


def test_machine_readable(run, files):
    schedule, timeline = files
    code, out, _ = run(schedule, "--against", timeline, "--json")
    against = json.loads(out)["against"]
    assert code == 0
    assert against["makespan"]["error"] == pytest.approx(-0.5)
    assert against["predicted_from_measured_ops"]["error"] == pytest.approx(0, abs=1e-9)
    assert [row["rank"] for row in against["ranks"]] == [0, 1]
    assert {(op["op"], op["stage"], op["count"]) for op in against["ops"]} == {
        (kind, stage, 2) for kind in "FBW" for stage in (0, 1)
    }


def test_measured_problem_is_written_to_plan_with(run, files, tmp_path):
    schedule, timeline = files
    path = tmp_path / "measured.json"
    assert run(schedule, "--against", timeline, "--measured-problem", path)[0] == 0
    measured = read_problem(path.read_text())
    assert [measured.stages[0].cost(kind).ticks for kind in (OpKind.F, OpKind.B, OpKind.W)] == [4, 4, 2]
    assert measured.transfer_ticks[0][1] == 2
    _, out, _ = run(schedule, "--against", timeline, "--measured-problem", "-")
    assert read_problem(out) == measured


def test_what_was_not_measured_is_said(run, files, tmp_path):
    schedule, timeline = files
    path, says = tmp_path / "measured.json", "the timeline does not say what ops hold, so bytes stay"
    assert says in run(schedule, "--against", timeline, "--measured-problem", path)[1]
    assert says in run(schedule, "--against", timeline, "--measured-problem", "-")[2]
    assert says not in run(schedule, "--against", timeline)[1]
    _, out, err = run(schedule, "--against", timeline, "--json", "--measured-problem", path)
    assert err == ""
    assert json.loads(out)["against"]["not_measured"][0].startswith(says)


WRONG = {
    "problem without timeline": (["--measured-problem", "x.json"], "is given without --against"),
    "both on standard output": (
        ["--against", "TIMELINE", "--measured-problem", "-", "--json"],
        "both write to standard output",
    ),
    "a schedule for a timeline": (
        ["--against", "SCHEDULE"],
        '"pipesynth.schedule": give "pipesynth.timeline"',
    ),
    "no file": (["--against", "absent.json"], "absent.json does not exist"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_in_one_sentence(run, files, name):
    words, says = WRONG[name]
    names = {"SCHEDULE": files[0], "TIMELINE": files[1]}
    code, out, err = run(files[0], *(names.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_timeline_of_other_orders_is_refused(run, files):
    schedule, timeline = files
    tree = json.loads(timeline.read_text())
    ops = tree["ranks"][0]
    ops[2], ops[3] = ops[3], ops[2]
    timeline.write_text(json.dumps(tree))
    code, _, err = run(schedule, "--against", timeline)
    assert code == 2
    assert "the timeline is of another schedule" in err
