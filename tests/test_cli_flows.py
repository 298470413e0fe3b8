"""Commands on documents of directions, slices and sums: an answer or one clear sentence."""

import json

import pytest
from commands import FAST, check_refused
from test_flows import SUMMED, two_directions, two_slices
from test_stage_names import directions_of_slices

from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, read_problem, read_schedule, write_problem, write_schedule
from synth.memory import serial_orders
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from synth.verify import verify_schedule

FLOWS = {
    "directions": two_directions(),
    "slices": two_slices(),
    "both": directions_of_slices(),
    "sum": uniform_problem(2, 2, SUMMED),
}


@pytest.fixture(params=FLOWS)
def planned(request, folder):
    """A problem and a schedule document of one flow: its name and their paths."""
    problem = FLOWS[request.param]
    schedule = schedule_orders(problem, serial_orders(problem))
    certificate = Certificate(
        objective=problem.objective, value=schedule.value, lower_bound=1, bound_from="nothing takes no time"
    )
    made = Provenance(method="serial", created="2026-01-01", tool_version="0")
    (folder / "problem.json").write_text(write_problem(problem))
    (folder / "schedule.json").write_text(write_schedule(ScheduleDocument.of(schedule, certificate, made)))
    return request.param, folder / "problem.json", folder / "schedule.json"


def test_a_schedule_is_verified_and_a_broken_one_told(run, planned):
    name, _, path = planned
    assert run("verify", path).out.startswith("valid: ")
    tree = json.loads(path.read_text())
    late = tree["ranks"][0].pop()
    path.write_text(json.dumps(tree))
    answer = run("verify", path, "--json")
    assert answer.code == 1
    missing = f"no rank lists {late['stage']}{late['op']}{late['microbatch']}"
    assert any(each["message"].startswith(missing) for each in answer.json["violations"])
    assert (late["op"] == "R") == (name != "slices")


@pytest.mark.parametrize("options", [(), ("--links", "exclusive"), ("--jitter", "0.1", "--samples", "3")])
def test_a_schedule_is_simulated(run, planned, options):
    _, _, path = planned
    answer = run("simulate", path, "--json", *options).json
    assert answer["agrees"], "one microbatch at a time never queues for a link"
    assert answer["value"] == answer["planned"]


def test_a_schedule_is_simulated_over_a_topology(run, planned, folder):
    name, _, path = planned
    link = {"latency_seconds": 0, "bytes_per_second": 1e6}
    topology = {
        "format": "pipesynth.topology",
        "version": 1,
        "nodes": [{"ranks": [0, 1]}],
        "inside": link,
        "transfer_bytes": {"activation_bytes": [4], "gradient_bytes": 6},
        "all_reduce": {"replicas": 2, "weight_gradient_bytes": [8, 12]},
    }
    (folder / "topology.json").write_text(json.dumps(topology))
    answer = run("simulate", path, "--topology", folder / "topology.json", "--json").json
    assert answer["value"] > answer["planned"]
    assert (answer["all_reduce_ticks"] > 0) == (name == "slices"), "the others plan their sums as R"
    shown = run("simulate", path, "--topology", folder / "topology.json").out
    assert ("no all-reduce is added to them" in shown) == (name != "slices")


def test_a_schedule_is_explained(run, planned):
    name, _, path = planned
    answer = run("explain", path, "--no-search")
    assert answer.code == 0
    assert ("stage 3 = stage 1" in answer.out) == (name in ("directions", "slices"))
    found = run("explain", path, "--no-search", "--json").json
    assert found["critical_path"][-1]["end"] == found["value"]


@pytest.mark.parametrize("target", ["html", "perfetto", "slot-csv"])
def test_a_schedule_is_exported(run, planned, target):
    _, _, path = planned
    out = path.parent / f"out.{target}"
    assert run("export", path, "--to", target, "-o", out).code == 0
    assert out.stat().st_size > 0


@pytest.mark.parametrize("target", ["torch-csv", "torchtitan", "automodel"])
def test_targets_of_plain_chains_refuse(run, planned, target):
    name, _, path = planned
    out = path.parent / "out.csv"
    what = "a planned sum of gradients" if name == "sum" else "directions or slices"
    check_refused(run("export", path, "--to", target, "-o", out), f"{target} cannot express {what}")
    assert not out.exists()


def test_orders_come_back_from_a_slot_table(run, planned):
    _, problem, path = planned
    table, again = path.parent / "table.csv", path.parent / "again.json"
    assert run("export", path, "--to", "slot-csv", "-o", table).code == 0
    answer = run("import", table, problem, "--from", "slot-csv", "-o", again)
    assert answer.code == 0
    schedule = read_schedule(again.read_text()).schedule
    assert schedule == read_schedule(path.read_text()).schedule
    assert verify_schedule(schedule) == []
    check_refused(run("import", table, problem, "--from", "torch-csv"), "torch-csv cannot express")


@pytest.mark.parametrize(
    "options", [("--placement", "v"), ("--placement", "auto"), ("--chunks", "2"), ("--microbatches", "4")]
)
@pytest.mark.parametrize("command", [("bound",), ("synthesize",), ("compare",), ("baseline", "1f1b")])
def test_directions_and_slices_are_not_recut(run, folder, command, options):
    path = folder / "problem.json"
    path.write_text(write_problem(two_directions()))
    answer = run(*command, path, *options)
    flag = "--chunks 2" if "--chunks" in options else options[0]
    check_refused(answer, f"{flag} is given for directions or slices")


def test_a_wrong_flow_is_refused(run, folder):
    path = folder / "problem.json"
    tree = json.loads(write_problem(two_directions()))
    tree["stages"][3]["inputs"] = [3]
    path.write_text(json.dumps(tree))
    check_refused(run("bound", path), "$.stages[3].inputs is [3]: give different stages below 3, ascending")


def test_a_flow_is_bounded_and_planned(run, planned):
    _, problem, path = planned
    assert run("bound", problem, "--json").code == 0
    found = path.parent / "found.json"
    answer = run("synthesize", problem, "-o", found, "--json", *FAST)
    assert answer.code == 0
    assert run("verify", found).code == 0
    assert answer.json["value"] <= read_schedule(path.read_text()).schedule.value
    check_refused(run("synthesize", problem, "--solver", "milp"), "give cpsat for directions, slices or sums")


def test_a_multiple_of_a_flows_memory_is_that_of_its_chain(run, planned):
    """1F1B on two ranks holds two microbatches, so half of it is one: that of one after another."""
    name, problem, _ = planned
    answer = run("synthesize", problem, "--memory-limit", "0.5x", "--json", *FAST)
    needs = {"directions": 3, "slices": 6, "both": 6, "sum": 3}[name]
    held = [
        peak - static
        for peak, static in zip(
            answer.json["peak_memory_bytes"],
            read_problem(problem.read_text()).static_bytes_by_rank,
            strict=True,
        )
    ]
    assert max(held) == needs
