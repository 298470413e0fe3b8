"""Cut autograd graphs: together the two parts are the whole backward, bit for bit, for any module."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from runtime.native_split import backward_input


class Branches(nn.Module):
    """Chunks, residuals, a bare parameter, and one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.gain = nn.LayerNorm(8), nn.Parameter(torch.randn(8))

    def forward(self, x):
        a, b = self.norm(torch.relu(self.first(x))).chunk(2, -1)
        return (x + self.second(torch.cat([b, 2 * a], -1))) * torch.sigmoid(self.gain)


class Shared(nn.Module):
    """One layer three times, and a weight that is computed once from a parameter and used twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.raw = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        weight = torch.tanh(self.raw)
        x = self.layer(torch.sin(self.layer(x))) @ weight
        return self.last(self.layer(torch.sin(x)) @ weight)


class Apart(nn.Module):
    """A parameter that does not meet the input's path before the output."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return torch.stack([x.sin(), self.own.expand_as(x).exp()]).sum(0)


class Deaf(nn.Module):
    """An output that does not depend on the input."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(3, 8))

    def forward(self, x):
        return self.own.exp()


def conv():
    return nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.PReLU(), nn.Conv1d(4, 3, 1))


def attention():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


MODULES = {
    "branches": (Branches, (3, 8)),
    "shared": (Shared, (3, 8)),
    "apart": (Apart, (3, 8)),
    "deaf": (Deaf, (3, 8)),
    "conv": (conv, (2, 3, 8)),
    "attention": (attention, (2, 3, 8)),
    "recurrent": (lambda: nn.GRUCell(8, 8), (3, 8)),
    "nothing": (nn.Tanh, (3, 8)),
    "hands through": (nn.Identity, (3, 8)),
}


def pair(make):
    torch.manual_seed(2)
    module = make()
    return module, copy.deepcopy(module)


@pytest.mark.parametrize("needs_input", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_both_parts_are_the_whole_backward(name, needs_input):
    make, shape = MODULES[name]
    ours, theirs = pair(make)
    for step in range(2):  # gradients add up
        x = torch.randn(shape, requires_grad=needs_input)
        x_theirs = x.detach().clone().requires_grad_(needs_input)
        y, expected = ours(x), theirs(x_theirs)
        if not y.requires_grad:
            return
        grad = torch.randn_like(expected)
        edge, y = get_gradient_edge(y), None
        before = [None if p.grad is None else p.grad.clone() for p in ours.parameters()]
        grad_x, work = backward_input(edge, grad, x if needs_input else None, ours.parameters())
        for parameter, old in zip(ours.parameters(), before, strict=True):
            assert parameter.grad is old is None or torch.equal(parameter.grad, old), "B leaves weights alone"
        work()
        expected.backward(grad)
        assert (grad_x is None) == (x_theirs.grad is None), step
        assert grad_x is None or torch.equal(grad_x, x_theirs.grad)
        for (what, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert a.grad is b.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-6), what


def test_each_product_is_taken_once():
    """A chain of products: neither B nor W does what the other does."""
    module = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    x = torch.randn(3, 8, requires_grad=True)
    edge = get_gradient_edge(module(x))

    def products(run):
        with torch.profiler.profile() as profile:
            run()
        return sum(event.count for event in profile.key_averages() if event.key == "aten::mm")

    work = []
    in_b = products(lambda: work.append(backward_input(edge, torch.ones(3, 8), x, module.parameters())[1]))
    assert (in_b, products(lambda: work[0]())) == (4, 4)
