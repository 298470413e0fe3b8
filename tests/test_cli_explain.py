"""``pipesynth explain`` as typed."""

from dataclasses import replace
from pathlib import Path

import pytest
from commands import FAST, check_refused

from synth.cli.commands import explain
from synth.document import read_timeline
from synth.schedule import measure

GOLDEN = Path(__file__).parent / "golden" / "v1"


def test_the_path_the_waits_and_the_answers(run, schedule_file):
    answer = run("explain", schedule_file, *FAST)
    assert answer.code == 0
    assert "two-ranks: makespan" in answer.out
    for heading in ("Critical path", "What the ranks wait for", "What would shorten it"):
        assert heading in answer.out
    assert "searched anew" in answer.out
    assert "searching 1 s at most: every link twice as fast" in answer.err
    assert "nothing, searched anew" in answer.out


def test_without_a_search(run, schedule_file):
    answer = run("explain", schedule_file, "--no-search")
    assert "same orders" in answer.out
    assert "searched anew" not in answer.out
    assert answer.err == ""


def test_json_adds_up(run, schedule_file):
    found = run("explain", schedule_file, "--no-search", "--json").json
    path = found["critical_path"]
    assert path[-1]["end"] - path[0]["start"] == found["value"]
    waits = ("warm-up", "cool-down", "memory", "transfer", "imbalance", "order")
    for rank in found["ranks"]:
        assert sum(rank[wait] for wait in waits) == rank["idle_ticks"]
        assert rank["idle_ticks"] + rank["work_ticks"] == found["value"]
    assert {answer["how"] for answer in found["answers"]} == {"same orders"}


@pytest.mark.parametrize(
    ("words", "pattern"),
    [(["missing.json"], "missing.json"), (["--time-limit", "0"], "is no time")],
)
def test_wrong_input(run, schedule_file, words, pattern):
    check_refused(run("explain", *([] if words[0].endswith("json") else [schedule_file]), *words), pattern)


def test_a_schedule_that_lacks_an_op_is_refused(run, schedule_file):
    schedule_file.write_text(schedule_file.read_text().replace('"microbatch": 1', '"microbatch": 0', 1))
    answer = run("explain", schedule_file, "--no-search")
    assert answer.code == 1
    assert answer.err.count("\n") == 1


def test_a_measured_timeline_is_explained_by_its_own_times(run):
    timeline = GOLDEN / "timeline.json"
    found = run("explain", timeline, "--no-search", "--json").json
    measured = read_timeline(timeline.read_text()).schedule
    assert found["value"] == measure(measured).value(measured.problem.objective)
    assert found["critical_path"][-1]["end"] == max(rank[-1].end for rank in measured.ranks)


def test_limits_that_no_schedule_keeps_leave_the_path_and_the_waits(run, problem_file):
    over = problem_file.parent / "over.json"
    assert run("baseline", "gpipe", problem_file, "--memory-limit", "1", "-o", over).code == 1
    answer = run("explain", over, *FAST)
    assert answer.code == 0
    assert "Critical path" in answer.out
    assert "no question is searched" in answer.err


def test_an_interrupt_says_what_is_left_out(run, schedule_file, monkeypatch):
    whole = explain.synthesize

    def interrupted(*arguments, **options):
        return replace(whole(*arguments, **options), interrupted=True)

    monkeypatch.setattr(explain, "synthesize", interrupted)
    answer = run("explain", schedule_file, *FAST)
    assert answer.code == 0
    assert "interrupted: 1 of 1 questions are left out" in answer.err
    assert "nothing, searched anew" not in answer.out
