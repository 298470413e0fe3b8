"""``pipesynth levels``: what it prints, and what it refuses."""

import json
from dataclasses import replace

import pytest
from builders import EITHER, UNDIVIDED, two_by_two
from commands import FAST, check_refused

from synth.baselines import BASELINES
from synth.document import write_problem
from synth.problem import OpCost, StageCosts, uniform_problem

CHAINS = ("gpipe", "1f1b", "interleaved-1f1b", "hanayo", "zb-h1", "zb-h2", "v-half", "v-zb")
"""Baselines of plain chains, which is what is searched."""

TO_THE_END = ["--time-limit", "60", "--workers", "1"]
"""Searches of such small problems end long before."""

TOPOLOGY = {
    "format": "pipesynth.topology",
    "version": 1,
    "nodes": [{"ranks": [0]}, {"ranks": [1]}],
    "between": {"latency_seconds": 0, "bytes_per_second": 1e6},
    "transfer_bytes": {"activation_bytes": 1, "gradient_bytes": 1},
}


@pytest.fixture
def large_file(folder):
    """Four ranks, eight microbatches, unit times of 4 ticks, slow transfers."""
    quarter = OpCost(ticks=4, free_bytes=4)
    stage = StageCosts(
        F=OpCost(ticks=4, alloc_bytes=8), B=quarter, W=quarter, BW=OpCost(ticks=8, free_bytes=8)
    )
    path = folder / "large.json"
    path.write_text(write_problem(uniform_problem(4, 8, stage, transfer_ticks=3, name="large")))
    return path


@pytest.fixture
def topology(folder):
    def written(**changes):
        path = folder / "topology.json"
        path.write_text(json.dumps(TOPOLOGY | changes))
        return path

    return written


def by_name(answer):
    assert answer.code == 0, answer.err
    return {row["name"]: row for row in answer.json}


def place(rows, level, key):
    """1 and how many do better than 1F1B."""
    return 1 + sum(
        row[level][key] is not None and row[level][key] < rows["1f1b"][level][key] for row in rows.values()
    )


def test_all_baselines_at_all_levels(run, large_file):
    rows = by_name(run("levels", large_file, "--json"))
    assert set(rows) == set(BASELINES)
    assert rows["1f1b"] == {
        "name": "1f1b",
        "stages": 4,
        "formula": {
            "rank": place(rows, "formula", "idle_share"),
            "idle_share": pytest.approx(9 / 33),
            "peak_activations": 4,
            "weight_copies": 1,
        },
        "slot_table": {
            "rank": place(rows, "slot_table", "slots"),
            "rises": 0,
            "slots": 33,
            "idle_share": pytest.approx(9 / 33),
            "peak_activations": 4,
        },
        "simulation": {
            "rank": place(rows, "simulation", "seconds"),
            "rises": rows["1f1b"]["simulation"]["rises"],
            "seconds": pytest.approx((4 * 33 + 2 * (3 + 7 - 2) * 3) * 1e-6),
            "idle_share": pytest.approx(1 - 96 / 180),
            "peak_bytes": 32,
            "fits": True,
        },
    }


def test_table_has_the_best_of_the_last_level_first_and_marks_changes(run, large_file):
    answer = run("levels", large_file)
    assert answer.code == 0
    rows = by_name(run("levels", large_file, "--json"))
    order = sorted(rows, key=lambda name: rows[name]["simulation"]["seconds"])
    shown = [
        line.split()[0] for line in answer.out.splitlines() if line.split()[:1] and line.split()[0] in rows
    ]
    assert shown == order
    changed = [name for name in order if rows[name]["simulation"]["rises"]]
    assert changed
    for line in answer.out.splitlines():
        name = line.split()[0] if line.split() else ""
        if name in changed:
            rises = rows[name]["simulation"]["rises"]
            mark = f"{'▲' if rises > 0 else '▼'}{abs(rises)} {rows[name]['simulation']['rank']}"
            assert line.rstrip().endswith(mark)
    assert "a slot is one forward of a rank's whole share" in answer.out


def test_schedules_and_the_synthesized_stand_beside_the_baselines(run, folder, problem_file):
    chunked = folder / "chunked.json"
    assert run("synthesize", problem_file, "--chunks", "2", "-o", chunked, *FAST).code == 0
    words = ["levels", problem_file, "--schedules", chunked, "--synthesize", *TO_THE_END, "--json"]
    rows = by_name(run(*words))
    assert rows["chunked"]["formula"] is None
    assert (rows["chunked"]["stages"], rows["chunked"]["slot_table"]["rises"]) == (4, None)
    best = min(rows[name]["simulation"]["seconds"] for name in CHAINS if name in rows)
    assert rows["synthesized"]["simulation"]["seconds"] <= best


def test_over_a_topology(run, problem_file, topology):
    one, slow = topology(), {"latency_seconds": 0, "bytes_per_second": 1e5}
    free = by_name(run("levels", problem_file, "--topology", one, "--json"))
    paid = by_name(run("levels", problem_file, "--topology", topology(between=slow), "--json"))
    for name, row in free.items():
        assert paid[name]["simulation"]["seconds"] > row["simulation"]["seconds"]
        assert paid[name]["slot_table"]["slots"] == row["slot_table"]["slots"]
    reduced = ["--replicas", "2", "--all-reduce-bytes", "100"]
    longer = by_name(run("levels", problem_file, "--topology", topology(), *reduced, "--json"))
    assert longer["1f1b"]["simulation"]["seconds"] > free["1f1b"]["simulation"]["seconds"]


def test_the_search_plans_with_the_topology(run, problem_file, topology):
    slow = topology(between={"latency_seconds": 0, "bytes_per_second": 5e4})
    words = ["levels", problem_file, "--topology", slow, "--synthesize", *TO_THE_END, "--json"]
    rows = by_name(run(*words))
    best = min(rows[name]["simulation"]["seconds"] for name in CHAINS if name in rows)
    assert rows["synthesized"]["simulation"]["seconds"] <= best


def test_limits_are_judged(run, large_file):
    rows = by_name(run("levels", large_file, "--memory-limit", "1x", "--json"))
    assert rows["1f1b"]["simulation"]["fits"]
    assert not rows["gpipe"]["simulation"]["fits"]


def test_undefined_baselines_say_why(run, folder):
    path = folder / "undivided.json"
    path.write_text(write_problem(two_by_two(UNDIVIDED)))
    answer = run("levels", path)
    assert answer.code == 0
    assert "zb-h1 is left out: with 4 stages (loop), " in answer.out


def test_schedules_of_another_problem_are_refused(run, folder, problem_file, schedule_file):
    other = folder / "other.json"
    other.write_text(write_problem(replace(two_by_two(EITHER), num_microbatches=3)))
    answer = run("levels", other, "--schedules", schedule_file)
    check_refused(answer, "schedule has 2 microbatches and the problem 3: give schedules of this problem")


def test_unlinked_ranks_are_refused(run, problem_file, topology):
    answer = run("levels", problem_file, "--topology", topology(between=None))
    check_refused(answer, "nothing links them: give the topology 'between'")
