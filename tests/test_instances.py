"""The published instances: all load, each names its source, and their numbers are the published ones."""

import pytest

from synth.document import read_problem, write_problem
from synth.errors import InputError
from synth.instances import instance_names, load_instance
from synth.problem import Objective, OpCost


def test_names():
    assert instance_names() == (
        *(f"zb-1.5b-m{m}" for m in (24, 32, 64)),
        *(f"zb-6.2b-m{m}" for m in (24, 32, 64)),
        *(f"zb-14.6b-m{m}" for m in (48, 64, 128)),
        *(f"zb-28.3b-m{m}" for m in (96, 128, 256)),
        "zb-8stage-uneven",
    )


@pytest.mark.parametrize("name", instance_names())
def test_instance_is_a_problem_with_a_source(name):
    problem = load_instance(name)
    assert problem.name == name
    assert problem.source.strip()
    assert problem.num_stages == problem.num_ranks
    for costs in problem.stages:
        b, w = costs.B, costs.W
        both = OpCost(ticks=b.ticks + w.ticks, free_bytes=b.free_bytes + w.free_bytes)
        assert both == costs.BW
        assert costs.F.alloc_bytes == costs.BW.free_bytes
    assert read_problem(write_problem(problem)) == problem


@pytest.mark.parametrize("name", instance_names()[:-1])
def test_profile_counts_half_activations_and_has_no_limit(name):
    problem = load_instance(name)
    assert problem.num_microbatches == int(name.rpartition("-m")[2])
    assert problem.objective is Objective.RANK_SPAN
    assert problem.memory_limit_bytes is None
    assert "Table 9" in problem.source
    assert set(problem.stages) == {problem.stages[0]}
    assert problem.stages[0].F.alloc_bytes == 2
    assert (problem.stages[0].B.free_bytes, problem.stages[0].W.free_bytes) == (1, 1)


def test_first_and_last_profile_are_the_published_ones():
    first, last = load_instance("zb-1.5b-m24"), load_instance("zb-28.3b-m256")
    for problem, ranks, times in (
        (first, 8, (18522, 18086, 9337, 601)),
        (last, 32, (10402, 10248, 7698, 460)),
    ):
        stage = problem.stages[0]
        transfer = problem.transfer_ticks[0][1]
        assert problem.num_ranks == ranks
        assert (stage.F.ticks, stage.B.ticks, stage.W.ticks, transfer) == times


def test_uneven_instance_is_the_published_one():
    problem = load_instance("zb-8stage-uneven")
    assert problem.objective is Objective.MAKESPAN
    assert problem.memory_limit_bytes == (19840,) * 8
    # Rank 7's work, and the forward fill in front of it: the published optima of both objectives.
    fill = sum(costs.F.ticks for costs in problem.stages[:-1]) + 7 * problem.transfer_ticks[0][1]
    assert problem.work_ticks_by_rank[7] == 3_623_744
    assert problem.work_ticks == 3_623_744
    assert fill + problem.work_ticks_by_rank[7] == 3_831_880


def test_unknown_name_gets_near_names():
    with pytest.raises(InputError, match=r"'zb-1\.5b-m25' is no published instance: use zb-1\.5b-m\d\d or "):
        load_instance("zb-1.5b-m25")


def test_name_like_none_gets_all_names():
    with pytest.raises(InputError, match=r"zb-1\.5b-m24 or .* or zb-8stage-uneven"):
        load_instance("?")
