"""Work counted without doing it: torch's FLOP counter, products by hand, and seconds by the roofline."""

import pytest
import torch
from measured_models import INNER, ROWS, WIDTH
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from costmodels.hardware import find_gpu
from costmodels.measured.factories import load_model
from costmodels.measured.profiles import Split
from costmodels.measured.profiling import Cutting, RealBench, ShapesBench, profile_model
from costmodels.measured.shapes_only import stage_works
from costmodels.measured.stage_runs import stage_runs
from costmodels.measured.timing import Repetitions
from synth.errors import InputError
from synth.ops import PASSES

F, B, W, BW = PASSES
HERE = "tests.measured_models"
PRODUCT = 2 * ROWS * WIDTH * INNER
"""Operations of one product of the first linear layer."""
H100 = ShapesBench(find_gpu("h100"))


def runs_of(name, counts, split):
    return stage_runs(load_model(f"{HERE}:{name}"), counts, split, torch.device("cpu"))


def flops(works):
    return sum(work.flops for work in works)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (Split.DEFERRED, ({F: 1, B: 0, W: 1, BW: 1}, {F: 1, B: 1, W: 1, BW: 2})),
        (Split.NATIVE, ({F: 1, B: 0, W: 1, BW: 1}, {F: 1, B: 1, W: 1, BW: 2})),
        (Split.NONE, ({F: 1, BW: 1}, {F: 1, BW: 2})),
    ],
)
def test_products_of_an_mlp(split, expected):
    """The first stage needs no gradient of its input; a divided backward computes nothing more."""
    with FakeTensorMode():
        for run, counted in zip(runs_of("mlp", (1, 3), split), expected, strict=True):
            works = stage_works(run, split)
            assert {kind: flops(works[kind]) / PRODUCT for kind in works} == counted


def test_moved_bytes_of_a_linear_layer():
    """F copies its input, reads input, weight and bias, and writes the output; views move nothing."""
    with FakeTensorMode():
        works = stage_works(runs_of("mlp", (1, 3), Split.NONE)[0], Split.NONE)[F]
    x, y, weight, bias = ROWS * WIDTH, ROWS * INNER, WIDTH * INNER, INNER
    assert [work.moved_bytes for work in works] == [4 * 2 * x, 4 * (x + y + weight + bias)]


def test_flops_are_those_of_torch_but_for_the_causal_half():
    """Torch counts the whole square of scores, and not at all in the CPU's fused kernel."""
    with FakeTensorMode():
        run = runs_of("language_model", (1, 3), Split.NONE)[1]
        works = stage_works(run, Split.NONE)
        with FlopCounterMode(display=False) as counter:
            run.stage.forward(0, run.x.clone(), run.loss)
    scores = 2 * 2 * (2 * 2 * 5 * 5 * WIDTH)  # two blocks, two products, two sequences of five
    assert sum(work.attention_flops for work in works[F]) == scores // 2
    assert sum(work.matmul_flops for work in works[F]) == counter.get_total_flops()
    assert sum(work.attention_flops for work in works[BW]) == scores // 2 * 5 // 2


def test_nothing_is_computed_and_the_weights_hold_no_numbers():
    """The same model with 2**40 weights in a layer."""
    profile, *_ = profile_model(
        "tests.test_costmodels_measured_shapes_only:huge", cut(1), [Split.DEFERRED], H100
    )
    (stage,) = profile.stages
    assert stage.memory.static.weights == 4 * 2**40
    assert stage.times[F].median_s > 0.1


def huge():
    return [torch.nn.Linear(2**20, 2**20, bias=False)], torch.zeros(64, 2**20)


def cut(stages):
    return Cutting(stage_to_rank=tuple(range(stages)))


@pytest.mark.parametrize("name", ["mlp", "language_model"])
@pytest.mark.parametrize("split", Split)
def test_shapes_give_the_bytes_that_running_gives(name, split):
    real_bench = RealBench(torch.device("cpu"), Repetitions(warm_up=1, repeats=1))
    cutting = Cutting(stage_to_rank=(0, 1), counts=(2, 2))
    (real,) = profile_model(f"{HERE}:{name}", cutting, [split], real_bench)
    (shapes,) = profile_model(f"{HERE}:{name}", cutting, [split], H100)
    for ran, counted in zip(real.stages, shapes.stages, strict=True):
        assert counted.memory.net == ran.memory.net
        assert counted.memory.static == ran.memory.static
        assert counted.memory.saved_after_f == ran.memory.saved_after_f
        assert (counted.sent_bytes, counted.layers) == (ran.sent_bytes, ran.layers)


def test_type_without_a_peak_is_refused():
    with pytest.raises(
        InputError, match="the weights are float64, for which no GPU has a peak: make them bfloat16"
    ):
        profile_model(f"{HERE}:doubles", cut(1), [Split.NONE], H100)


def test_provenance_of_an_estimate():
    words = "; ".join(H100.how())
    assert "estimated from shapes alone" in words
    assert "roofline of h100 at efficiencies matmul 0.8" in words
    assert "NVIDIA H100 datasheet" in words
