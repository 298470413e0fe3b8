"""PipeDream and PipeDream-2BW: the versions of weights that they hold, and what the commands make of them."""

import json
from dataclasses import replace

import pytest

from synth.baselines import BASELINES, baseline_orders, baseline_schedule
from synth.document import write_problem
from synth.problem import uniform_problem
from synth.schedule import measure
from tests.builders import EITHER

WEIGHTED = replace(EITHER, static_bytes=100, weight_bytes=10)
PROBLEM = uniform_problem(4, 12, WEIGHTED)


@pytest.mark.parametrize(("name", "versions"), [("pipedream", (4, 3, 2, 1)), ("pipedream-2bw", (2,) * 4)])
def test_versions_count_as_memory(name, versions):
    """Beside the activations of 4, 3, 2 and 1 microbatches of two bytes, as 1F1B holds."""
    schedule = baseline_schedule(name, PROBLEM)
    assert tuple(costs.weight_versions for costs in schedule.problem.stages) == versions
    peaks = measure(schedule).peak_memory_bytes
    in_flight = (8, 6, 4, 2)
    assert peaks == tuple(90 + 10 * n + a for n, a in zip(versions, in_flight, strict=True))
    assert BASELINES[name].peak_bytes(schedule.problem) == peaks


@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_orders_are_those_of_1f1b(name):
    assert baseline_schedule(name, PROBLEM).orders == baseline_orders("1f1b", PROBLEM)


@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_no_time_passes_between_batches(name):
    """The same idle time for two batches as for fifty."""
    few, many = (
        measure(baseline_schedule(name, problem))
        for problem in (uniform_problem(4, 8, EITHER), uniform_problem(4, 200, EITHER))
    )
    assert few.rank_span - few.work == many.rank_span - many.work == 3 * (2 + 3)


def test_commands_count_the_versions(run, folder):
    problem, schedule = folder / "problem.json", folder / "schedule.json"
    problem.write_text(write_problem(PROBLEM))
    answer = run("baseline", "pipedream-2bw", problem, "-o", schedule)
    assert answer.code == 0
    written = json.loads(schedule.read_text())
    assert [stage["weight_versions"] for stage in written["problem"]["stages"]] == [2] * 4
    assert written["metrics"]["peak_memory_bytes"] == [118, 116, 114, 112]
    assert run("verify", schedule).code == 0
