"""Times by a scripted recorder: medians, what warms up, and what is run."""

from collections import Counter

import pytest
import torch

from costmodels.measured.factories import load_model
from costmodels.measured.profiles import Split
from costmodels.measured.stage_runs import stage_runs
from costmodels.measured.timing import Repetitions, time_ops
from synth.measured import MeasuredOp
from synth.ops import PASSES

F, B, W, BW = PASSES


class Scripted:
    """Says that ops took what a function of stage, kind and repetition says; counts what ran."""

    def __init__(self, nanoseconds):
        self.nanoseconds, self.repetition = nanoseconds, 0
        self.ran, self.noted = Counter(), []

    def begin(self, op):
        self.noted.append(op)
        self.ran[op.stage, op.kind] += 1

    def end(self):
        pass

    def times(self):
        noted = [MeasuredOp(op, 7, 7 + self.nanoseconds(op, self.repetition)) for op in self.noted]
        self.repetition += 1
        self.noted = []
        return noted


def runs_of(split):
    return stage_runs(load_model("tests.measured_models:mlp"), (1, 3), split, torch.device("cpu"))


def test_medians_after_the_warm_up():
    """Two slow repetitions do not count; of five that take 1 to 5 µs more the third is the median."""
    weight = {F: 10_000, B: 20_000, W: 30_000, BW: 40_000}

    def took(op, repetition):
        return 10**9 if repetition < 2 else weight[op.kind] + 100_000 * op.stage + 1000 * (repetition - 1)

    recorder = Scripted(took)
    times = time_ops(runs_of(Split.DEFERRED), Split.DEFERRED, recorder, Repetitions(warm_up=2, repeats=5))
    assert [list(stage) for stage in times] == [[F, B, W, BW]] * 2
    for stage, spreads in enumerate(times):
        for kind, spread in spreads.items():
            middle = weight[kind] + 100_000 * stage + 3000
            assert spread.median_s == pytest.approx(middle * 1e-9)
            assert spread.high_s - spread.low_s == pytest.approx(2e-6)
            assert spread.count == (10 if kind is F else 5)


@pytest.mark.parametrize("split", Split)
def test_every_backward_has_a_forward(split):
    recorder = Scripted(lambda op, repetition: 1000)
    time_ops(runs_of(split), split, recorder, Repetitions(warm_up=1, repeats=2))
    backwards = 1 if split is Split.NONE else 2
    expected = {F: 3 * backwards, BW: 3} | ({} if split is Split.NONE else {B: 3, W: 3})
    assert recorder.ran == {(stage, kind): count for stage in (0, 1) for kind, count in expected.items()}


@pytest.mark.parametrize("split", Split)
def test_gradients_are_those_of_a_plain_backward(split):
    """What is timed is the real thing: one round of ops leaves each weight two gradients, or one."""
    runs = runs_of(split)
    rounds = 1 if split is Split.NONE else 2
    time_ops(runs, split, Scripted(lambda op, repetition: 1000), Repetitions(warm_up=0, repeats=1))
    for run, plain in zip(runs, runs_of(Split.NONE), strict=True):
        x = plain.x.clone().requires_grad_()
        plain.stage.module(x).backward(plain.grad)
        for ours, theirs in zip(run.parameters, plain.parameters, strict=True):
            torch.testing.assert_close(ours.grad, rounds * theirs.grad)
