"""From measurements to a problem: ticks, bytes, limits, transfers, cuts, and where all of it is from."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from costmodels.measured.link_costs import uniform_links
from costmodels.measured.profiled_problem import profiled_problem
from costmodels.measured.profiles import Profile, Split, StageBytes, StageProfile
from costmodels.measured.profiling import Cutting, RealBench, profile_model
from costmodels.measured.spreads import Spread
from costmodels.measured.storage_ledger import StorageLedger
from costmodels.measured.timing import Repetitions
from costmodels.optimizer_state import StaticBytes
from costmodels.planning import Pipeline
from synth import baseline_orders, schedule_orders, verify_schedule
from synth.document import read_problem, write_problem
from synth.errors import InputError
from synth.ops import PASSES
from synth.placement import PlacementKind
from synth.problem import OpCost

F, B, W, BW = PASSES
STATIC = StaticBytes(weights=100, gradients=100, optimizer=200)
TWO = Pipeline(num_ranks=2, num_microbatches=4)


def spread(median_us, share=0.0):
    return Spread(
        median_s=median_us * 1e-6,
        low_s=median_us * (1 - share) * 1e-6,
        high_s=median_us * (1 + share) * 1e-6,
        count=5,
    )


def stage(times_us, net, workspace, *, division=Split.NATIVE, layers=("a",), sent=0):
    return StageProfile(
        layers=layers,
        times={kind: spread(time, 0.1) for kind, time in times_us.items()},
        memory=StageBytes(
            static=STATIC, saved_after_f=60, held_after_b=net[F] + net.get(B, 0), net=net, workspace=workspace
        ),
        division=division,
        sent_bytes=sent,
    )


NATIVE = Profile(
    name="m:f",
    split=Split.NATIVE,
    stages=(
        stage(
            {F: 10, B: 0.2, W: 19.6, BW: 18},
            {F: 60, B: 5, W: -65, BW: -60},
            {F: 7, B: 0, W: 30, BW: 31},
            sent=1000,
        ),
        stage({F: 12, B: 13, W: 12, BW: 23}, {F: 64, B: 40, W: -104, BW: -64}, {F: 7, B: 9, W: 8, BW: 11}),
    ),
    how=("measured on paper", "times: by hand"),
)


def test_times_and_bytes_by_hand():
    problem = profiled_problem(NATIVE, TWO, None, None).problem
    first, second = problem.stages
    assert OpCost(ticks=10, alloc_bytes=60) == first.F
    assert OpCost(ticks=1, alloc_bytes=5) == first.B  # a tick at least
    assert OpCost(ticks=20, free_bytes=65) == first.W
    assert OpCost(ticks=18, free_bytes=60) == first.BW
    assert OpCost(ticks=13, alloc_bytes=40) == second.B  # natively divided, it frees nothing
    assert (first.static_bytes, first.layers) == (400, ("a",))
    assert (problem.num_microbatches, problem.memory_limit_bytes) == (4, None)
    assert problem.transfer_ticks == ((0, 0), (0, 0))


def test_undivided_backward_is_offered_alone():
    whole = [replace(s, times={k: s.times[k] for k in (F, BW)}) for s in NATIVE.stages]
    whole = [replace(s, memory=replace(s.memory, workspace={F: 7, BW: 11})) for s in whole]
    problem = profiled_problem(
        replace(NATIVE, split=Split.NONE, stages=tuple(whole)), TWO, None, None
    ).problem
    assert [costs.offered[0][0] for costs in problem.stages] == [F, F]
    assert not any(costs.can_divide for costs in problem.stages)


def test_limit_is_lowered_by_the_workspace():
    """What an op takes only while it runs: 31 bytes on rank 0, 11 on rank 1; a multiple is of activations."""
    made = profiled_problem(NATIVE, TWO, None, "1000")
    assert made.workspace_bytes == (31, 11)
    assert made.problem.memory_limit_bytes == (969, 989)
    assert "the limit is lowered by it" in made.problem.source
    multiple = profiled_problem(NATIVE, TWO, None, "1x").problem
    assert multiple.memory_limit_bytes == (400 + 2 * 60, 400 + 2 * 60)
    assert "the limit is lowered" not in multiple.source
    with pytest.raises(InputError, match="an op of rank 0 takes 31 bytes while it runs: give more"):
        profiled_problem(NATIVE, TWO, None, "30")


def test_transfers_between_neighbours():
    links = uniform_links(2, 5e-6, 1e8, "by hand")
    made = profiled_problem(NATIVE, TWO, links, None)
    assert made.problem.transfer_ticks == ((0, 15), (15, 0))
    assert "transfers: by hand" in made.problem.source
    with pytest.raises(InputError, match="the links were measured between 3 ranks, and 2 are asked for"):
        profiled_problem(NATIVE, TWO, uniform_links(3, 5e-6, 1e8, "by hand"), None)


def test_provenance_names_every_origin():
    made = profiled_problem(NATIVE, TWO, None, None)
    for words in (
        "measured on paper; times: by hand; model: m:f, layers per stage 1 1",
        "backward divided: native",
        "spread of a time: at most 10.0% of its median",
        "workspace of one op, not in its costs: at most 31 bytes",
        "transfers: none given, they take no time",
        "rounding to ticks of 1e-06 s: at most 400.00% of an op, 0.00% of a transfer",
    ):
        assert words in made.problem.source
    assert made.rounding_error == pytest.approx(4.0)  # 0.2 µs take a tick of 1
    assert read_problem(write_problem(made.problem)) == made.problem


def test_stages_that_are_divided_otherwise_are_named():
    mixed = replace(NATIVE, split=Split.DEFERRED)
    assert "divided: deferred, stages 0, 1 native (no layer there can defer)" in source_of(mixed)
    one = replace(mixed, stages=(mixed.stages[0], replace(mixed.stages[1], division=Split.DEFERRED)))
    assert "divided: deferred, stage 0 native (no layer there can defer)" in source_of(one)


def source_of(profile):
    return profiled_problem(profile, TWO, None, None).problem.source


class FakeBench:
    """Layers that take what the test says, on the CPU."""

    device = torch.device("cpu")

    def __init__(self, layer_us):
        self.layer_us = dict(zip(("up", "act", "down", "norm"), layer_us, strict=True))
        self.offset = 0

    def running(self):
        return nullcontext()

    def times(self, runs, split):
        names = iter(self.layer_us.values())
        return [
            {
                kind: spread(sum(next(names) for _ in run.stage.module) if kind is F else 1)
                for kind in split.kinds
            }
            for run in runs
        ]

    def allocator(self):
        return StorageLedger()

    def how(self):
        return ("scripted",)


@pytest.mark.parametrize(
    ("layer_us", "expected"),
    [
        ((1, 1, 1, 3), [("up", "act", "down"), ("norm",)]),
        ((5, 1, 1, 1), [("up",), ("act", "down", "norm")]),
        ((2, 2, 2, 2), [("up", "act"), ("down", "norm")]),
    ],
)
def test_cut_balances_what_was_measured(layer_us, expected):
    cutting = Cutting(stage_to_rank=(0, 1))
    (profile,) = profile_model("tests.measured_models:mlp", cutting, [Split.NONE], FakeBench(layer_us))
    assert [stage.layers for stage in profile.stages] == expected


def test_cut_keeps_to_a_limit():
    """Both linear layers together are too much for the first rank, so the slow end grows."""
    cutting = Cutting(stage_to_rank=(0, 1), limit_bytes=2500)
    (profile,) = profile_model("tests.measured_models:mlp", cutting, [Split.NONE], FakeBench((1, 1, 1, 9)))
    assert [stage.layers for stage in profile.stages] == [("up", "act"), ("down", "norm")]
    none = replace(cutting, limit_bytes=1)
    (profile,) = profile_model("tests.measured_models:mlp", none, [Split.NONE], FakeBench((1, 1, 1, 9)))
    assert [stage.layers for stage in profile.stages] == [("up", "act", "down"), ("norm",)]


def test_a_measured_model_is_scheduled():
    """End to end on the CPU, four stages on two ranks as a V, both ways of dividing in one go."""
    pipeline = replace(TWO, chunks=2, kind=PlacementKind.V, tick_seconds=1e-7)
    bench = RealBench(torch.device("cpu"), Repetitions(warm_up=1, repeats=2), threads=1)
    cutting = Cutting(stage_to_rank=(0, 1, 1, 0))
    deferred, native = profile_model(
        "tests.measured_models:language_model", cutting, [Split.DEFERRED, Split.NATIVE], bench
    )
    assert (deferred.split, native.split) == (Split.DEFERRED, Split.NATIVE)
    assert {stage.division for stage in native.stages} == {Split.NATIVE}
    for profile in (deferred, native):
        problem = profiled_problem(profile, pipeline, None, None).problem
        schedule = schedule_orders(problem, baseline_orders("v-half", problem))
        assert not verify_schedule(schedule)
        assert all(costs.B.free_bytes == 0 for costs in problem.stages[1:] if profile is native)
        assert all(
            costs.W.free_bytes == costs.F.alloc_bytes + costs.B.alloc_bytes for costs in problem.stages[:1]
        )
