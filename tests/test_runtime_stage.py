"""A stage keeps no more than its backward needs."""

import pytest
import torch
from torch import nn

from runtime.deferred import defer_weights
from runtime.stage import Division, Stage


def stage(division):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    return Stage(1, defer_weights(module) if division is Division.DEFERRED else module, division)


@pytest.mark.parametrize("whole", [True, False])
def test_the_input_holds_its_gradient_no_longer_than_it_takes_to_hand_it_on(whole, monkeypatch):
    made = stage(Division.DEFERRED)
    inputs = []
    made.module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    made.forward(0, torch.ones(2, 4))
    grad = (made.backward if whole else made.backward_input)(0, torch.ones(2, 4))
    assert grad is not None
    assert inputs[0].grad is None


@pytest.mark.parametrize("division", Division)
def test_the_input_gradient_is_that_of_the_undivided_backward(division):
    made = stage(division)
    x = torch.ones(2, 4)
    made.forward(0, x)
    made.forward(1, x)
    whole, part = made.backward(0, torch.ones(2, 4)), made.backward_input(1, torch.ones(2, 4))
    assert torch.equal(whole, part)
