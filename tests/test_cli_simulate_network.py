"""``simulate`` over a network, as typed: what it prints and answers, and what wrong input gets."""

import json

import pytest
from builders import EITHER, two_by_two
from commands import check_refused

from synth.document import write_problem
from synth.problem import uniform_problem

SLOW = {"latency_seconds": 1e-6, "bytes_per_second": 1e6}
TOPOLOGY = {
    "format": "pipesynth.topology",
    "version": 1,
    "name": "one node",
    "nodes": [{"ranks": [0, 1]}],
    "inside": SLOW,
    "transfer_bytes": {"activation_bytes": 3, "gradient_bytes": 3},
}


@pytest.fixture
def planned(run, folder):
    """GPipe on two ranks without transfers, 26 ticks."""
    problem, schedule = folder / "gpipe-problem.json", folder / "gpipe.json"
    problem.write_text(write_problem(uniform_problem(2, 4, EITHER)))
    assert run("baseline", "gpipe", problem, "-o", schedule).code == 0
    return schedule


@pytest.fixture
def topology(folder):
    """Writes the topology with changes and gives its path."""

    def write(**changes):
        path = folder / "topology.json"
        path.write_text(json.dumps({**TOPOLOGY, **changes}))
        return path

    return write


def test_simulate_over_a_topology(run, planned, topology):
    """The first activation takes 4 ticks; F takes 2, so that the next three queue for 2, 4 and 6."""
    answer = run("simulate", planned, "--topology", topology(), "--json").json
    assert answer["links"] == "topology"
    assert answer["topology"] == "one node"
    assert answer["overlap"]
    assert not answer["agrees"]
    assert answer["value"] == answer["makespan"] > answer["planned"] == 25
    assert answer["slow_down"] == answer["value"] / 25
    first, second = answer["channels"]
    assert first["channel"] == "rank 0 → rank 1"
    assert (first["transfers"], first["busy_ticks"], first["waited_ticks"]) == (4, 16, 2 + 4 + 6)
    assert first["busy_share"] == 16 / answer["makespan"]
    assert answer["transfer_wait_ticks"] == 12 + second["waited_ticks"]
    shown = run("simulate", planned, "--topology", topology()).out
    assert f"slow-down {answer['slow_down']:.4f}x against the plan, transfers wait" in shown
    assert (
        f"most contended link: rank 0 → rank 1, busy {first['busy_share']:.1%}, transfers waited 12" in shown
    )
    assert "2 of 2 links, most contended first" in shown


def test_simulate_without_a_network_is_as_before(run, planned):
    answer = run("simulate", planned, "--json").json
    assert (answer["agrees"], answer["slow_down"], answer["topology"]) == (True, 1.0, None)
    assert answer["channels"] == []
    assert run("simulate", planned).out.count("\n") == 2


def test_transfer_bytes_override_the_topology(run, planned, topology):
    words = ["simulate", planned, "--topology", topology(), "--json"]
    assert run(*words, "--transfer-bytes", "3").json == run(*words).json
    larger = run(*words, "--transfer-bytes", "1KiB").json
    assert larger["channels"][0]["busy_ticks"] == 4 * 1025


def test_no_overlap_over_a_topology(run, planned, topology):
    words = ["simulate", planned, "--topology", topology()]
    apart = run(*words, "--no-overlap", "--json").json
    assert not apart["overlap"]
    assert apart["value"] > run(*words, "--json").json["value"]


def test_no_overlap_on_the_ticks_of_the_problem(run, planned):
    """Nothing takes time here, and whenever a rank hands something over the other one is idle."""
    assert run("simulate", planned, "--no-overlap", "--json").json["value"] == 25
    assert "slow-down 1.0000x against the plan" in run("simulate", planned, "--no-overlap").out


def test_all_reduce_lengthens_the_value(run, planned, topology):
    """Two steps of 1 + 5 ticks behind the last backward of the first stage."""
    words = ["simulate", planned, "--topology", topology()]
    plain = run(*words, "--json").json
    reduced = run(*words, "--json", "--replicas", 2, "--all-reduce-bytes", 10).json
    assert reduced["value"] == plain["value"] + 12
    assert reduced["all_reduce_ticks"] == 12
    assert "the all-reduces add 12 ticks" in run(*words, "--replicas", 2, "--all-reduce-bytes", 10).out


def test_all_reduce_of_the_topology_can_be_overridden_in_part(run, planned, topology):
    path = topology(all_reduce={"replicas": 2, "weight_gradient_bytes": 10})
    words = ["simulate", planned, "--topology", path, "--json"]
    assert run(*words).json["all_reduce_ticks"] == 12
    assert run(*words, "--replicas", 1).json["all_reduce_ticks"] == 0
    assert run(*words, "--all-reduce-bytes", 20).json["all_reduce_ticks"] == 22


def test_noise_over_a_topology_repeats_with_its_seed(run, planned, topology):
    half = topology(inside={**SLOW, "duplex": "half"})
    words = ["simulate", planned, "--topology", half, "--jitter", 0.3, "--samples", 20, "--seed", 4, "--json"]
    first, second = (run(*words).json for _ in range(2))
    assert first == second
    assert first["jitter"]["p50"] < first["jitter"]["max"]


def test_plan_that_claims_no_time_has_no_slow_down(run, planned, topology):
    document = json.loads(planned.read_text())
    document["metrics"]["makespan"] = 0
    planned.write_text(json.dumps(document))
    assert run("simulate", planned, "--topology", topology(), "--json").json["slow_down"] is None
    assert "slow-down" not in run("simulate", planned, "--topology", topology()).out


@pytest.mark.parametrize(
    ("changes", "words", "pattern"),
    [
        ({"inside": None}, [], "ranks 0 and 1, both in node 0, exchange results and nothing links them"),
        ({"nodes": [{"ranks": [0]}, {"ranks": [1]}]}, [], "ranks 0 and 1, in nodes 0 and 1, exchange"),
        ({"nodes": [{"ranks": [0]}]}, [], "rank 1 is in no node of the topology: put it into one"),
        ({"transfer_bytes": None}, [], "has no transfer_bytes: give them there, or --transfer-bytes"),
        ({"version": 2}, [], "$.version is 2: version 2 is newer than this reader"),
        ({"nodes": [{"ranks": [0, 1, 0]}]}, [], "$.nodes[0].ranks[2] is 0: give every rank one node"),
        ({}, ["--links", "free"], "--links and --topology are both given: give one or the other"),
        ({}, ["--replicas", "2"], "an all-reduce is asked for without --all-reduce-bytes"),
        ({}, ["--all-reduce-bytes", "2"], "an all-reduce is asked for without --replicas"),
        ({}, ["--replicas", "0"], "--replicas: '0' is given; give an integer ≥ 1"),
        ({}, ["--transfer-bytes", "much"], "--transfer-bytes: 'much' is no size: write bytes, or a size"),
        ({}, ["--transfer-bytes", "-1"], "--transfer-bytes"),
        ({}, ["--all-reduce-bytes", "9" * 30], "is no size"),
        ({"inside": {**SLOW, "latency_seconds": 1e300}}, [], "a transfer takes 1e+306 ticks"),
        ({"inside": {**SLOW, "bytes_per_second": 1e-300}}, [], "a transfer takes"),
    ],
)
def test_wrong_networks_are_refused(run, planned, topology, changes, words, pattern):
    check_refused(run("simulate", planned, "--topology", topology(**changes), *words), pattern)


@pytest.mark.parametrize("flag", ["--transfer-bytes", "--all-reduce-bytes", "--replicas"])
def test_sizes_need_a_topology(run, planned, flag):
    check_refused(run("simulate", planned, flag, 4), f"{flag} is given without --topology: name a topology")


def test_topology_that_is_none(run, planned, folder):
    check_refused(run("simulate", planned, "--topology", folder / "none.json"), "does not exist")
    check_refused(run("simulate", planned, "--topology", planned), 'give "pipesynth.topology"')
    problem = folder / "other.json"
    problem.write_text(write_problem(two_by_two(EITHER)))
    check_refused(run("simulate", problem, "--topology", problem), "$.format is")
