"""The commands as typed: what they print, write and return, and what wrong input gets."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from builders import DIVIDED, EITHER, two_by_two
from commands import FAST, check_refused

from synth import cli
from synth.cli import loading, streams
from synth.document import read_problem, read_schedule, write_problem
from synth.instances import instance_names
from synth.problem import uniform_problem
from synth.verify import verify_schedule

TO_THE_END = ["--time-limit", "60", "--workers", "1"]
"""For searches that end at the optimum, at once where what they run is compiled already."""
COMMANDS = (
    "synthesize",
    "instances",
    "model",
    "plan",
    "profile",
    "baseline",
    "compare",
    "levels",
    "frontier",
    "bound",
    "import",
    "verify",
    "simulate",
    "explain",
    "export",
)
SCRIPTS = Path(sys.executable).parent
BEFORE = "what was there before\n"


# Help and version.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    answer = run(command, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"usage: pipesynth {command} ")
    assert answer.err == ""


def test_help_names_every_command(run):
    answer = run("--help")
    assert answer.code == 0
    listed = [line.split()[0] for line in answer.out.splitlines() if line.startswith("    ") and line.split()]
    assert [word for word in listed if word in COMMANDS] == list(COMMANDS)


def test_synthesize_is_a_command_of_its_own(capsys):
    assert cli.main_synthesize(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: synthesize ")


def test_version_says_what_a_bug_report_needs(run):
    answer = run("--version")
    assert answer.code == 0
    for name in ("pipesynth", "ortools", "numpy", "numba"):
        assert f"{name} {version(name)}" in answer.out.replace("\n", " ")


# What each command answers.


def test_synthesize_shows_the_grid_the_tables_and_the_certificate(run, problem_file):
    answer = run("synthesize", problem_file, *TO_THE_END)
    assert answer.code == 0
    for text in (" rank 0  F0", "synthesized", "1f1b", "Peak memory", "optimal, found by", "bound: "):
        assert text in answer.out
    assert "best" in answer.err  # progress


def test_synthesize_json_holds_the_result(run, problem_file):
    path = problem_file.parent / "s.json"
    answer = run("synthesize", problem_file, "-o", path, "--json", *TO_THE_END)
    assert answer.code == 0
    document = read_schedule(path.read_text())
    found = answer.json
    assert found["objective"] == "makespan"
    assert found["value"] == document.certificate.value == document.schedule.value
    assert found["lower_bound"] == document.certificate.lower_bound
    assert found["gap"] == 0.0
    assert found["status"] == "optimal"
    assert found["bubble_ratio"] == document.metrics.bubble_ratio
    assert tuple(found["peak_memory_bytes"]) == document.metrics.peak_memory_bytes
    assert found["provenance"]["workers"] == 1
    assert found["baseline_1f1b"]["makespan"] >= found["value"]
    assert found["output"] == str(path)


def test_written_schedule_is_valid(run, schedule_file):
    answer = run("verify", schedule_file)
    assert answer.code == 0
    assert answer.out.startswith("valid: ")
    assert run("verify", schedule_file, "--json").json == {"valid": True, "violations": []}


def test_same_seed_gives_the_same_schedule(run, problem_file):
    paths = [problem_file.parent / name for name in ("a.json", "b.json")]
    for path in paths:
        assert run("synthesize", problem_file, "-o", path, "--seed", 7, *TO_THE_END).code == 0
    first, second = (read_schedule(path.read_text()) for path in paths)
    assert first.schedule == second.schedule
    assert first.provenance.seed == 7


def test_output_replaces_a_file(run, problem_file):
    path = problem_file.parent / "s.json"
    path.write_text(BEFORE)
    assert run("synthesize", problem_file, "-o", path, *FAST).code == 0
    assert not verify_schedule(read_schedule(path.read_text()).schedule)


def test_overrides_reach_the_schedule(run, problem_file):
    path = problem_file.parent / "s.json"
    words = ["--chunks", 2, "--placement", "v", "--microbatches", 3, "--objective", "rank_span"]
    assert run("synthesize", problem_file, "-o", path, *words, *FAST).code == 0
    problem = read_schedule(path.read_text()).schedule.problem
    assert problem.stage_to_rank == (0, 1, 1, 0)
    assert problem.num_microbatches == 3
    assert problem.objective == "rank_span"


def test_auto_placement_is_resolved_and_verified(run, problem_file):
    path = problem_file.parent / "s.json"
    words = ["--chunks", 2, "--placement", "auto", "-o", path]
    assert run("synthesize", problem_file, *words, *FAST).code == 0
    assert run("verify", path).code == 0


def test_bytes_that_do_not_divide_change_the_unit_and_say_so(run, problem_file):
    answer = run("synthesize", problem_file, "--chunks", 2, "--json", *FAST)
    assert "the memory unit is now 1/2 of a byte" in answer.err
    assert answer.json["name"] == "two-ranks in 2 chunks, memory in 1/2 of a byte"


def test_ticks_that_do_not_divide_are_said(run, problem_file):
    assert "cutting rounds an op by up to 1 ticks" in run("bound", problem_file, "--chunks", 2).err


def test_robust_choice_is_shown(run, problem_file):
    path = problem_file.parent / "s.json"
    words = ["--robust", "0.2", "--microbatches", 6, "-o", path, *FAST]
    shown = run("synthesize", problem_file, *words).out
    assert "chosen under 20.0% noise among" in shown
    percentiles = r"\d+ ticks, 95th percentile \d+ under 5.0%, \d+ under 10.0%, \d+ under 20.0%; "
    assert re.search(f"best value: {percentiles}", shown)
    assert re.search(f"chosen: {percentiles}", shown)
    answer = run("synthesize", problem_file, *words, "--json").json
    robust = answer["robustness"]
    assert answer["value"] == robust["chosen"]["value"] >= robust["best"]["value"]
    assert robust["chosen"]["p95"]["0.2"] <= robust["best"]["p95"]["0.2"]
    assert (robust["samples"], set(robust["best"]["p95"])) == (1000, {"0.05", "0.1", "0.2"})
    assert run("verify", path).code == 0
    assert "robust" not in run("synthesize", problem_file, *FAST).out
    assert run("synthesize", problem_file, "--json", *FAST).json["robustness"] is None


@pytest.mark.parametrize("placement", [[], ["--placement", "auto"], ["--placement", "v"]])
def test_chunks_are_chosen_in_common_units(run, problem_file, placement):
    path = problem_file.parent / "s.json"
    words = ["--chunks", "auto", *placement, "--memory-limit", "0.75x", "-o", path, "--json"]
    answer = run("synthesize", problem_file, *words, *FAST)
    assert answer.code == 0
    assert run("verify", path).code == 0
    finer = "4" if placement != ["--placement", "v"] else "2"
    assert f"time in 1/{finer} of a tick" in answer.err
    assert f"time in 1/{finer} of a tick" in answer.json["name"]
    assert answer.json["value"] >= answer.json["lower_bound"]
    assert answer.json["baseline_1f1b"]["work"] == int(finer) * 2 * 5
    searched = "least over the chunks and placements searched (2 stages loop, 4 stages"
    assert (searched in answer.json["bound_from"]) == (placement == ["--placement", "auto"])


def test_chunks_are_chosen_in_a_comparison(run, problem_file):
    rows = run("compare", problem_file, "--chunks", "auto", "--json", *FAST).json
    assert rows[-1]["name"] == "synthesized"


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (["--memory-limit", "1x", "--objective", "rank_span"], 0.1585),
        (["--memory-limit", "2x", "--objective", "rank_span"], 0.1083),
        (["--chunks", "2", "--placement", "v", "--memory-limit", "0.625x"], 0.18),
    ],
)
def test_published_profile_is_met_at_its_memory(run, arguments, most):
    answer = run("synthesize", "zb-1.5b-m24", *arguments, "--json", "--time-limit", 3, "--workers", 1)
    assert answer.code == 0
    assert round(answer.json["bubble_ratio"], 4) <= most
    limits, peaks = answer.json["memory_limit_bytes"], answer.json["peak_memory_bytes"]
    assert all(peak <= limit for peak, limit in zip(peaks, limits, strict=True))


def test_synthesize_with_the_milp(run, folder):
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    (folder / "problem.json").write_text(write_problem(problem))
    words = ["synthesize", folder / "problem.json", "--solver", "milp", *TO_THE_END, "--json"]
    answer = run(*words)
    assert (answer.code, answer.json["value"], answer.json["status"]) == (0, 74, "optimal")
    assert answer.json["provenance"]["solver"] == "highs"


def test_compare_gives_the_published_bubbles(run):
    answer = run("compare", "zb-1.5b-m24", *FAST)
    assert answer.code == 0
    rows = {line.split()[0]: line.split() for line in answer.out.splitlines() if line.strip()}
    assert "0.2431" in rows["1f1b"]
    assert "0.1585" in rows["zb-h1"]
    assert "undefined" in rows["v-min"]
    assert "v-min: stage_to_rank is" in answer.out  # the reason


def test_compare_json_has_a_row_for_each_schedule(run, problem_file):
    answer = run("compare", problem_file, "--memory-limit", 3, "--json", *FAST)
    rows = {row["name"]: row for row in answer.json}
    assert list(rows)[-1] == "synthesized"
    assert rows["synthesized"]["fits"]
    assert not rows["gpipe"]["fits"]
    assert rows["gpipe"]["peak_memory_bytes"] == [4, 4]
    assert rows["synthesized"]["gap"] >= 0
    assert not rows["v-min"]["defined"]
    assert "v placement" in rows["v-min"]["reason"]


def test_compare_under_auto_gives_the_baselines_of_the_placement_found(run, problem_file):
    answer = run("compare", problem_file, "--chunks", 2, "--placement", "auto", "--json", *FAST)
    rows = {row["name"]: row for row in answer.json}
    assert rows["v-zb"]["defined"] != rows["interleaved-1f1b"]["defined"]
    best = min(row["value"] for row in answer.json if row["defined"])
    assert rows["synthesized"]["value"] == best


def test_baseline_is_written_and_valid(run, problem_file):
    path = problem_file.parent / "s.json"
    answer = run("baseline", "1f1b", problem_file, "-o", path)
    assert answer.code == 0
    assert "1f1b" in answer.out
    assert run("verify", path).code == 0
    assert read_schedule(path.read_text()).provenance.method == "1f1b"


@pytest.mark.parametrize("name", ["chimera", "seq1f1b", "bpipe", "dualpipe"])
def test_baselines_on_another_problem_than_the_given_one(run, tmp_path, name):
    """What they make of the problem is in the document, which the same baseline takes again."""
    path, problem = tmp_path / "s.json", tmp_path / "p.json"
    assert run("baseline", name, "zb-1.5b-m24", "-o", path).code == 0
    assert run("verify", path).code == 0
    document = json.loads(path.read_text())
    problem.write_text(json.dumps(document["problem"]))
    again = run("baseline", name, problem, "--json")
    assert again.json[0]["value"] == read_schedule(path.read_text()).schedule.value


def test_baseline_cut_into_sequence_slices(run):
    values = {}
    for options in (
        (),
        ("--slices", 2),
        ("--attention-share", 0.5),
        ("--attention-share", 0.5, "--equally-long"),
    ):
        answer = run("baseline", "seq1f1b", "zb-1.5b-m24", "--json", *options)
        assert answer.code == 0
        values[options] = answer.json[0]["value"]
    usual, two, balanced, long = values.values()
    assert usual < two
    assert balanced < long


def test_compare_says_what_a_baseline_has_made_of_the_problem(run):
    answer = run("compare", "zb-1.5b-m24", *FAST)
    assert "chimera: two directions, the weights of every stage held twice" in answer.out
    rows = {row["name"]: row for row in run("compare", "zb-1.5b-m24", "--json", *FAST).json}
    assert "held twice" in rows["dualpipe"]["note"]
    assert "note" not in rows["1f1b"]


def test_baseline_over_the_limit_names_the_ranks(run, problem_file):
    answer = run("baseline", "gpipe", problem_file, "--memory-limit", 3, "--json")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        f"pipesynth: gpipe holds 4 bytes on rank {rank}, limit 3" for rank in (0, 1)
    ]
    assert [row["fits"] for row in answer.json] == [False]


def test_bounds_come_strongest_first_each_with_its_argument(run, problem_file):
    answer = run("bound", problem_file, "--json")
    assert answer.code == 0
    ticks = [bound["ticks"] for bound in answer.json["bounds"]]
    assert ticks == sorted(ticks, reverse=True)
    assert answer.json["lower_bound"] == ticks[0]
    assert all(bound["argument"] for bound in answer.json["bounds"])
    shown = run("bound", problem_file).out
    assert all(bound["name"] in shown for bound in answer.json["bounds"])


def test_instances_list_their_sources(run):
    answer = run("instances", "--json")
    assert tuple(entry["name"] for entry in answer.json) == instance_names()
    assert all(entry["source"] for entry in answer.json)
    assert [line.split()[0] for line in run("instances").out.splitlines()] == list(instance_names())


def test_simulate_agrees_with_the_plan(run, schedule_file):
    assert "every op starts and ends as planned" in run("simulate", schedule_file).out
    answer = run("simulate", schedule_file, "--json")
    assert answer.code == 0
    assert answer.json["agrees"]
    assert answer.json["value"] == answer.json["planned"]
    assert answer.json["links"] == "free"


def test_simulate_under_noise_repeats_with_its_seed(run, schedule_file):
    words = ["simulate", schedule_file, "--jitter", 0.1, "--samples", 9, "--seed", 3]
    first, second = (run(*words, "--json").json for _ in range(2))
    assert first == second
    assert first["jitter"]["samples"] == 9
    assert first["jitter"]["p50"] <= first["jitter"]["p95"] <= first["jitter"]["max"]
    assert "under 10.0% noise, 9 samples" in run(*words).out


def test_simulate_under_exclusive_links(run, schedule_file):
    assert run("simulate", schedule_file, "--links", "exclusive", "--json").json["links"] == "exclusive"


# Schedules that break a rule.


def tampered(schedule_file, change):
    document = json.loads(schedule_file.read_text())
    change(document)
    schedule_file.write_text(json.dumps(document))
    return schedule_file


def later_end(document):
    document["ranks"][0][0]["end"] += 1


def earlier(document):
    for edge in ("start", "end"):
        document["ranks"][1][0][edge] -= 1


def tighter_limit(document):
    document["problem"]["memory_limit_bytes"] = 1


def better_metrics(document):
    document["metrics"]["makespan"] -= 1


def missing_op(document):
    document["ranks"][0].pop()


def no_ops(document):
    document["ranks"] = [[], []]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (later_end, "op_duration"),
        (earlier, "transfer_time"),
        (tighter_limit, "memory_limit"),
        (better_metrics, "stated_metrics"),
        (missing_op, "every_op_once"),
        (no_ops, "every_op_once"),
    ],
)
def test_tampered_schedule_is_caught(run, schedule_file, change, rule):
    tampered(schedule_file, change)
    answer = run("verify", schedule_file)
    assert answer.code == 1
    assert f"{rule}: " in answer.out
    found = run("verify", schedule_file, "--json").json
    assert not found["valid"]
    assert rule in {violation["rule"] for violation in found["violations"]}


@pytest.mark.parametrize("change", [missing_op, no_ops])
def test_simulate_refuses_a_schedule_that_lacks_ops(run, schedule_file, change):
    answer = run("simulate", tampered(schedule_file, change))
    assert answer.code == 1
    assert answer.out == ""
    assert answer.err.startswith("pipesynth: ")
    assert answer.err.count("\n") == 1


def test_simulate_says_where_a_deadlock_waits(run, schedule_file):
    answer = run("simulate", tampered(schedule_file, lambda document: document["ranks"][1].reverse()))
    assert answer.code == 1
    assert "deadlock: rank 0 is at " in answer.err


# Limits that nothing fits.


def test_infeasible_limit_says_what_would_do_and_that_does(run, problem_file):
    path = problem_file.parent / "s.json"
    path.write_text(BEFORE)
    answer = run("synthesize", problem_file, "--memory-limit", 1, "-o", path, "--json", *FAST)
    assert answer.code == 1
    assert path.read_text() == BEFORE
    assert "rank 0 has a limit of 1 bytes and cannot hold one microbatch of stage 0" in answer.err
    assert "the smallest limit that would do is 2" in answer.err
    assert answer.json["status"] == "infeasible"
    assert answer.json["smallest_limit_bytes"] == [2, 2]
    assert run("synthesize", problem_file, "--memory-limit", 2, *FAST).code == 0


def test_smallest_limit_of_unequal_stages_is_the_smallest(run):
    words = ["synthesize", "zb-8stage-uneven", "--microbatches", 2, *FAST, "--memory-limit"]
    answer = run(*words, 0, "--json")
    assert answer.code == 1
    smallest = max(answer.json["smallest_limit_bytes"])
    assert f"the smallest limit that would do is {smallest}" in answer.err
    assert run(*words, smallest).code == 0
    assert run(*words, smallest - 1).code == 1


def test_compare_with_an_infeasible_limit(run, problem_file):
    answer = run("compare", problem_file, "--memory-limit", 1, *FAST)
    assert (answer.code, answer.out) == (1, "")
    assert "no schedule exists" in answer.err


# Wrong input.

WRONG = [
    ([], "the following arguments are required: COMMAND"),
    (["synthesise", "PROBLEM"], "invalid choice: 'synthesise'"),
    (["synthesize"], "required: PROBLEM; see pipesynth synthesize --help"),
    (["synthesize", "missing.json", "-o", "OUT"], "missing.json does not exist"),
    (["synthesize", "zb-1.5b-m25", "-o", "OUT"], " or zb-1.5b-m24"),
    (["synthesize", "ZB-1.5B-M24", "-o", "OUT"], "perhaps zb-1.5b-m24"),
    (["synthesize", "nothing-like-it", "-o", "OUT"], "pipesynth instances lists the latter"),
    (["synthesize", "", "-o", "OUT"], "neither a file nor a published instance"),
    (["synthesize", "FOLDER", "-o", "OUT"], "is a folder"),
    (["synthesize", "SCHEDULE", "-o", "OUT"], '"pipesynth.schedule"'),
    (["baseline", "1f1bb", "PROBLEM", "-o", "OUT"], "'1f1bb' is no baseline: use 1f1b"),
    (["baseline", "v-min", "PROBLEM", "-o", "OUT"], "v-min is not defined here"),
    (["baseline", "1f1b", "PROBLEM", "--slices", "2"], "1f1b takes no sequence slices: only seq1f1b does"),
    (["baseline", "seq1f1b", "PROBLEM", "--slices", "9"], "too few for 9 slices: use at most"),
    (
        ["baseline", "seq1f1b", "PROBLEM", "--attention-share", "2"],
        "'2' is no share: give a number from 0 to",
    ),
    (["synthesize", "PROBLEM", "-o", "OUT", "--memory-limit", "much"], "memory limit 'much' is no size"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--memory-limit=-5"], "memory limit '-5' is no size"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--memory-limit", "9" * 30], "give an integer below 2**62"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--placement", "v"], "v placement needs exactly two stages"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--placement", "map"], "'map' is none of loop, v, wave, auto"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--chunks", "0"], "--chunks: '0' is given; give an integer ≥ 1"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--chunks", "3", "--placement", "v"], "v placement needs"),
    (
        ["synthesize", "PROBLEM", "-o", "OUT", "--robust", "-1"],
        "'-1' is no share: give a number from 0 to 10",
    ),
    (["synthesize", "PROBLEM", "-o", "OUT", "--robust", "nan"], "'nan' is no share: give a number from 0 to"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--robust", "abc"], "'abc' is no share: give a number from 0 to"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--chunks", "all"], "give an integer ≥ 1, or auto"),
    (["synthesize", "TWO-EACH", "-o", "OUT", "--chunks", "auto"], "--chunks auto is given with 4 stages"),
    (["bound", "PROBLEM", "--chunks", "auto"], "--chunks: 'auto' is given; give an integer ≥ 1"),
    (["synthesize", "TWO-EACH", "-o", "OUT", "--chunks", "2"], "4 stages on 2 ranks: only a problem with"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--time-limit", "0"], "is no time: give a finite number"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--time-limit", "nan"], "is no time"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--time-limit", "inf"], "is no time"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--time-limit", "soon"], "'soon' is no time"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--seed", "-1"], "--seed: '-1' is given; give an integer from 0"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--seed", str(2**31)], "from 0 to 2147483647"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--workers", "0"], "--workers: '0' is given; give"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--workers", "9" * 11], "give an integer from 1 to 1024"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--microbatches", "0"], "--microbatches: '0' is given"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--microbatches", "9" * 5000], "'9999999999"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--objective", "speed"], "none of makespan, rank_span"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--solver", "gurobi"], "invalid choice: 'gurobi'"),
    (["synthesize", "PROBLEM", "-o", "OUT", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    (["synthesize", "PROBLEM", "-o", "-", "--json"], "both write to standard output"),
    (["synthesize", "PROBLEM", "-o", ""], "-o is given without a file name"),
    (["synthesize", "PROBLEM", "-o", "FOLDER"], "is a folder: name a file"),
    (["synthesize", "PROBLEM", "-o", "FOLDER/none/s.json"], "create it first"),
    (["baseline", "1f1b", "PROBLEM", "-o", "FOLDER/none/s.json"], "create it first"),
    (["compare", "PROBLEM", "--time-limit", "-1"], "is no time"),
    (["bound", "PROBLEM", "--microbatches", "many"], "'many' is given; give an integer ≥ 1"),
    (["verify", "PROBLEM"], '"pipesynth.problem"'),
    (["verify", "zb-1.5b-m24"], "does not exist"),
    (["simulate", "SCHEDULE", "--jitter", "-1"], "'-1' is no share: give a number from 0 to 10.0"),
    (["simulate", "SCHEDULE", "--jitter", "nan"], "'nan' is no share"),
    (["simulate", "SCHEDULE", "--jitter", "abc"], "'abc' is no share"),
    (["simulate", "SCHEDULE", "--jitter", "0.1", "--samples", "0"], "--samples: '0' is given"),
    (["simulate", "SCHEDULE", "--jitter", "0.1", "--seed", "-1"], "--seed: '-1' is given"),
    (["simulate", "SCHEDULE", "--links", "slow"], "'slow' is none of free, exclusive"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where the words of :data:`WRONG` in capitals lead."""
    root = tmp_path_factory.mktemp("wrong")
    folder = root / "folder"
    folder.mkdir()
    problem, two_each, schedule, out = (root / name for name in ("p.json", "t.json", "s.json", "out.json"))
    problem.write_text(write_problem(two_by_two(EITHER)))
    two_each.write_text(write_problem(two_by_two(EITHER, stage_to_rank=(0, 1, 1, 0))))
    assert cli.main(["baseline", "1f1b", str(problem), "-o", str(schedule)]) == 0
    return {"PROBLEM": problem, "TWO-EACH": two_each, "SCHEDULE": schedule, "OUT": out, "FOLDER": folder}


def short_id(value):
    return " ".join(value)[:60] if isinstance(value, list) else value[:20]


@pytest.mark.parametrize(("words", "pattern"), WRONG, ids=short_id)
def test_wrong_input_is_one_sentence_and_leaves_the_output(run, places, words, pattern):
    def put(word):
        head, slash, rest = word.partition("/")
        return f"{places[head]}{slash}{rest}" if head in places else word

    places["OUT"].write_text(BEFORE)
    known = sorted(path for path in places["OUT"].parent.rglob("*"))
    check_refused(run(*map(put, words)), pattern)
    assert places["OUT"].read_text() == BEFORE
    assert sorted(path for path in places["OUT"].parent.rglob("*")) == known


def test_read_only_output_is_refused_before_the_search(run, problem_file, monkeypatch):
    path = problem_file.parent / "s.json"
    path.write_text(BEFORE)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere, so a mode would not do
    check_refused(run("synthesize", problem_file, "-o", path), "it is read-only")


def test_file_may_have_the_name_of_no_instance(run, problem_file, monkeypatch):
    monkeypatch.chdir(problem_file.parent)
    problem_file.rename("zb-of-mine")
    assert run("bound", "zb-of-mine").code == 0


def test_names_are_not_read_as_markup(run, problem_file):
    problem = read_problem(problem_file.read_text())
    problem_file.write_text(write_problem(replace(problem, name="[/red] :smile: [b]x")))
    answer = run("synthesize", problem_file, *FAST)
    assert answer.code == 0
    assert "[/red] :smile: [b]x" in answer.out


# Streams and interrupts.


def test_interrupt_before_the_search_is_a_sentence(run, problem_file, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "read_text", interrupt)
    answer = run("synthesize", problem_file)
    assert answer.code == 130
    assert answer.err == "pipesynth: interrupted before there was anything to show\n"


def test_interrupt_while_the_solvers_are_loaded_is_a_sentence(run, monkeypatch):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "synth.cli.running":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "synth.cli.running")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    answer = run("--help")
    assert answer.code == 130
    assert answer.err == "pipesynth: interrupted before there was anything to show\n"


def test_full_disk_behind_standard_output_is_a_sentence(run, monkeypatch):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    answer = run("instances")
    assert answer.code == 2
    assert answer.err == "pipesynth: a standard stream fails: no space left on device\n"


def test_closed_standard_streams(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert cli.main(["instances"]) == 0
    assert cli.main(["bound", "-"]) == 2
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


def test_dash_reads_and_writes_the_standard_streams(problem_file):
    done = subprocess.run(
        [SCRIPTS / "synthesize", "-", "-o", "-", *FAST],
        input=problem_file.read_bytes(),
        capture_output=True,
        check=True,
    )
    document = read_schedule(done.stdout.decode())
    assert not verify_schedule(document.schedule)
    assert "Peak memory" in done.stderr.decode()  # what people read goes elsewhere


def test_broken_pipe_is_the_readers_choice():
    end, pipe = os.pipe()
    os.close(end)
    try:
        done = subprocess.run(
            [SCRIPTS / "pipesynth", "instances"], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(pipe)
    assert (done.returncode, done.stderr) == (0, b"")


def test_script_exits_with_the_code_of_the_command():
    done = subprocess.run([SCRIPTS / "synthesize", "--frobnicate"], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"pipesynth: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_search_writes_the_best_so_far(folder, number):
    path = folder / "s.json"
    path.write_text(BEFORE)
    words = ["zb-6.2b-m64", "--time-limit", "600", "--workers", "1", "-o", path]
    with subprocess.Popen(
        [SCRIPTS / "synthesize", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as search:
        assert any(b"best " in line and b"best -" not in line for line in search.stderr)
        until = time.monotonic() + 1.5  # those behind the first, up to the process's end, change nothing
        while search.poll() is None and time.monotonic() < until:
            search.send_signal(number)
            time.sleep(0.01)
        out, err = search.communicate(timeout=60)
    assert search.returncode == 0
    assert b"Traceback" not in err
    assert b"synthesized" in out
    document = read_schedule(path.read_text())
    violations = verify_schedule(
        document.schedule, metrics=document.metrics, certificate=document.certificate
    )
    assert not violations


def is_heard(number):
    """Whether a signal is an interrupt now."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_close_together_are_one(number, monkeypatch):
    before = [signal.getsignal(each) for each in streams.INTERRUPTS]
    came = []
    with streams.one_interrupt(process_ends=False):
        for patience in (1000.0, 0.0):
            monkeypatch.setattr(streams, "PATIENCE_S", patience)
            with streams.interrupts_apart():
                came += [is_heard(number) for _ in range(2)]
        came.append(is_heard(number))  # behind the search
    assert came == [True, False, True, True, False]
    assert [signal.getsignal(each) for each in streams.INTERRUPTS] == before
