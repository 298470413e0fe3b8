"""Slices of one stage, without processes: the same as whole sequences, and nothing is kept too long."""

import gc
import weakref

import pytest
import torch
from torch import nn

from runtime.cuts import Cuts
from runtime.deferred import defer_weights
from runtime.llama import LlamaConfig, build_stage
from runtime.routes import Routes
from runtime.shapes import TensorSpec
from runtime.slices import check_sliceable, flat, make_stages, run_slice, slice_output_specs
from runtime.stage import Division
from synth.errors import InputError
from tests.flow_builders import sliced

CONFIG = LlamaConfig(vocabulary=11, hidden=8, layers=2, heads=2)
TOKENS = torch.arange(14).view(2, 7) % 11


def llama():
    return build_stage(CONFIG, 0, 1).double()


def in_slices(module, cuts, count):
    outputs, past = [], []
    for number in range(count):
        y, kept = run_slice(module, cuts.part(TOKENS, number), past)
        outputs.append(y)
        past.append(kept)
    return torch.cat(outputs, dim=1), past


@pytest.mark.parametrize("positions", [None, (1, 5, 1), (4, 1, 2)])
def test_slices_of_a_model_give_what_whole_sequences_give(positions):
    model, cuts = llama(), Cuts(3, TensorSpec.of(TOKENS), positions)
    assert torch.allclose(in_slices(model, cuts, 3)[0], model(TOKENS), atol=1e-14, rtol=0)


def test_sequences_are_cut_as_equally_as_can_be():
    cuts = Cuts(3, TensorSpec.of(TOKENS), None)
    assert [cuts.part(TOKENS, number).shape[1] for number in range(3)] == [3, 2, 2]
    assert [cuts.spec(TensorSpec.of(TOKENS), number).shape for number in range(3)] == [(2, 3), (2, 2), (2, 2)]
    assert sum(map(cuts.share, range(3))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("count", "shape", "positions"),
    [(3, (2, 2), None), (2, (4,), None), (2, (2, 6), (3, 4)), (2, (2, 6), (2, 2, 2)), (2, (2, 6), (0, 6))],
)
def test_cuts_that_do_not_fit_are_refused(count, shape, positions):
    with pytest.raises(InputError, match=f"give {count} numbers ≥ 1 that sum up to"):
        Cuts(count, TensorSpec(shape, torch.int64), positions)


def test_what_slices_give_and_keep_is_found_without_computing():
    model, cuts = llama(), Cuts(2, TensorSpec.of(TOKENS), (4, 3))
    past = []
    with torch.no_grad():
        for number in range(2):
            given, real = cuts.part(TOKENS, number), [run_slice(model, cuts.part(TOKENS, 0), [])[1]][:number]
            y, kept = run_slice(model, given, real)
            spec, own = slice_output_specs(
                0, model, TensorSpec.of(given), past, torch.device("cpu"), None, "the batch"
            )
            assert (spec, flat(own)) == (TensorSpec.of(y), list(map(TensorSpec.of, flat(kept))))
            past.append(own)


def stages_of_slices(module, division, recompute, count=3):
    routes = Routes(sliced(1, 1, count))
    return make_stages(routes, {0: module}, 0, division, divides=lambda *_: True, recompute=recompute)


@pytest.mark.parametrize(
    ("division", "recompute"),
    [(Division.NATIVE, False), (Division.DEFERRED, False), (Division.DEFERRED, True)],
)
def test_gradients_are_those_of_whole_sequences_and_nothing_stays(division, recompute):
    model, whole, cuts = llama(), llama(), Cuts(3, TensorSpec.of(TOKENS), None)
    if division is Division.DEFERRED:
        defer_weights(model)
    stages = stages_of_slices(model, division, recompute)
    grad = torch.randn(2, 7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole(TOKENS).backward(grad)
    alive = []
    for number in range(3):
        y = stages[number].forward(0, cuts.part(TOKENS, number))
        alive += [weakref.ref(kept) for kept in flat(stages[number]._past[0][-1])]
        assert y.grad_fn is None
    assert all(kept() is not None for kept in alive)
    for number in (2, 1, 0):
        stages[number].backward_input(0, cuts.part(grad, number))
    for number in (1, 2, 0):  # in any order
        stages[number].backward_weights(0)
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-12, rtol=0)
    gc.collect()
    assert not any(kept() is not None for kept in alive)
    assert not stages[0]._past


class Mixing(nn.Module):
    def forward(self, x):
        return x.flip(1)


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (Mixing(), "stage 3 of the model"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(Mixing())), "part 1.0 of stage 3 of the model"),
        (nn.Sequential(nn.LayerNorm((7, 2))), "part 0 of stage 3 of the model"),
        (nn.Sequential(nn.Conv1d(7, 7, 1)), "part 0 of stage 3 of the model"),
    ],
)
def test_modules_that_may_mix_positions_need_forward_slice(module, what):
    with pytest.raises(
        InputError, match=f"^{what} has no forward_slice, which sequence slices need: give it"
    ):
        check_sliceable(3, module)


def test_layers_that_treat_positions_by_themselves_need_nothing():
    check_sliceable(0, defer_weights(nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))))
