"""Stages that keep their blocks' inputs alone: the same gradients from less memory, each block run twice."""

import pytest
import torch
from torch import nn

from runtime.allocators import HostAllocator
from runtime.deferred import defer_weights
from runtime.recomputation import run_recomputing
from runtime.stage import Division, Stage
from synth.baselines import baseline_orders
from synth.placement import PlacementKind
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from tests.builders import EITHER, UNDIVIDED
from tests.runtime_cases import Case, against_reference, failing


def schedule(name, stage=EITHER, chunks=1, kind=PlacementKind.LOOP):
    problem = uniform_problem(2, 4, stage, chunks=chunks, kind=kind, transfer_ticks=1)
    return schedule_orders(problem, baseline_orders(name, problem))


@pytest.mark.parametrize("model", ["mixed", "blocks"])
@pytest.mark.parametrize("name", ["zb-h1", "1f1b"])
def test_gradients_are_those_without_recomputation(pool, name, model):
    """Bit for bit, with dropout drawn again; a stage of single layers is one block."""
    case = Case(schedule=schedule(name), model=model, dropout=0.3, recompute=True)
    assert all(outcome.equal for outcome in pool.run(2, against_reference, case))


def test_gradients_under_mixed_precision(pool):
    options = {"schedule": schedule("zb-h1"), "model": "blocks", "autocast": torch.bfloat16}
    outcomes = pool.run(2, against_reference, Case(**options, recompute=True))
    plain = pool.run(2, against_reference, Case(**options))
    assert [o.losses for o in outcomes] == [o.losses for o in plain]
    assert [o.difference for o in outcomes] == [o.difference for o in plain]


def test_native_division_is_refused_where_a_backward_is_divided(pool):
    case = Case(schedule=schedule("zb-h1"), division=Division.NATIVE, recompute=True)
    for _, text, _ in pool.run(2, failing, case, ""):
        assert "of the model is to recompute and to divide its backward natively" in text
    whole = Case(schedule=schedule("1f1b", UNDIVIDED), division=Division.NATIVE, recompute=True)
    assert all(outcome.equal for outcome in pool.run(2, against_reference, whole))


class Counted(nn.Module):
    """A block that counts how often it runs."""

    def __init__(self, width):
        super().__init__()
        self.layers, self.runs = nn.Sequential(nn.Linear(width, 8 * width), nn.Linear(8 * width, width)), 0

    def forward(self, x):
        self.runs += 1
        return self.layers(x)


@pytest.mark.parametrize("is_divided", [True, False])
def test_blocks_run_twice_and_only_their_inputs_are_kept(is_divided):
    rows, width, blocks = 64, 16, 3
    module = defer_weights(nn.Sequential(*(Counted(width) for _ in range(blocks))))
    stage = Stage(1, module, recompute=True)
    x, grad = torch.randn(rows, width), torch.ones(rows, width)
    stage.forward(0, x)  # whatever is made once
    stage.backward(0, grad)
    for block in module:
        block.runs = 0
    change = HostAllocator().watch(lambda: stage.forward(0, x))
    random_state = torch.get_rng_state().numel()
    input_bytes = rows * width * 4
    assert change.net < blocks * (input_bytes + 2 * random_state), "a block keeps 17 inputs otherwise"
    if is_divided:
        stage.backward_input(0, grad)
        stage.backward_weights(0)
    else:
        stage.backward(0, grad)
    assert [block.runs for block in module] == [2] * blocks


def test_single_layers_beside_blocks_run_once():
    layer, block = nn.Linear(4, 4), Counted(4)
    runs = []
    layer.register_forward_hook(lambda *_: runs.append(1))
    run_recomputing(nn.Sequential(layer, block), torch.randn(2, 4)).sum().backward()
    assert (len(runs), block.runs) == (1, 2)
