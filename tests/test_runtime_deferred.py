"""Deferring layers against torch's own: the same numbers, and weight gradients only when asked for."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from runtime.deferred import attach_queue, defer_weights
from runtime.stage import Stage

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "linear of rows of rows": (lambda: nn.Linear(6, 5), (2, 3, 6)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (2, 3, 6)),
    "layer norm": (lambda: nn.LayerNorm(6), (2, 3, 6)),
    "layer norm of two dimensions": (lambda: nn.LayerNorm((3, 6)), (2, 3, 6)),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), (2, 3, 6)),
    "layer norm without parameters": (lambda: nn.LayerNorm(6, elementwise_affine=False), (2, 3, 6)),
    "rms norm": (lambda: nn.RMSNorm(6), (2, 3, 6)),
    "rms norm without parameters": (lambda: nn.RMSNorm(6, elementwise_affine=False), (2, 3, 6)),
}


def pair(make):
    """A layer of torch's with random parameters, and its deferring copy."""
    torch.manual_seed(1)
    plain = make()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return plain, defer_weights(copy.deepcopy(plain))


def backward(module, x, *, scale=1.0):
    x = x.clone().requires_grad_(x.is_floating_point())
    y = module(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y) * scale)
    return y.detach(), x.grad


def grads(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_equal_grads(ours, theirs):
    for name, grad in grads(theirs).items():
        assert torch.equal(grads(ours)[name], grad), name


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_bit_equal_with_its_queue_closed(name):
    make, shape = LAYERS[name]
    plain, ours = pair(make)
    attach_queue(ours)
    x = torch.randn(shape)
    for a, b in zip(backward(plain, x), backward(ours, x), strict=True):
        assert torch.equal(a, b)
    assert_equal_grads(ours, plain)


@pytest.mark.parametrize("name", LAYERS)
def test_weight_work_waits_and_is_bit_equal(name):
    make, shape = LAYERS[name]
    plain, ours = pair(make)
    queue = attach_queue(ours)
    batches = torch.randn(3, *shape)
    waiting = []
    for x in batches:
        y, grad_x = backward(plain, x)
        with queue.collecting() as work:
            y_ours, grad_x_ours = backward(ours, x)
        assert torch.equal(y, y_ours)
        assert torch.equal(grad_x, grad_x_ours)
        waiting += work
    assert all(grad is None for grad in grads(ours).values())
    for work in waiting:
        work()
    assert_equal_grads(ours, plain)


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding_waits_and_is_bit_equal(padding):
    plain, ours = pair(lambda: nn.Embedding(7, 4, padding_idx=padding))
    queue = attach_queue(ours)
    x = torch.tensor([[0, 2, 2], [6, 2, 5]])
    y, _ = backward(plain, x)
    with queue.collecting() as work:
        y_ours, _ = backward(ours, x)
    assert torch.equal(y, y_ours)
    assert ours.weight.grad is None
    for run in work:
        run()
    assert torch.equal(ours.weight.grad, plain.weight.grad)


class Checkpointed(nn.Module):
    """Recomputes its inside in backward and counts how often that runs."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.runs = inside, 0

    def forward(self, x):
        return checkpoint(self._run, x, use_reentrant=False)

    def _run(self, x):
        self.runs += 1
        return self.inside(x)


def test_deferring_is_exact_under_checkpointing_and_recomputes_once():
    def make():
        layers = [layer for _ in range(3) for layer in (nn.Linear(6, 6), nn.LayerNorm(6), nn.Dropout(0.3))]
        return Checkpointed(nn.Sequential(*layers))

    plain, ours = pair(make)
    queue = attach_queue(ours)
    x = torch.randn(4, 6)
    torch.manual_seed(3)
    _, grad_x = backward(plain, x)
    torch.manual_seed(3)
    with queue.collecting() as work:
        _, grad_x_ours = backward(ours, x)
    for run in work:
        run()
    assert torch.equal(grad_x, grad_x_ours)
    assert_equal_grads(ours, plain)
    assert ours.runs == 2, "the forward, and once for B; W recomputes nothing"


def test_frozen_parameters_get_no_gradient():
    _, ours = pair(lambda: nn.Linear(6, 5))
    ours.weight.requires_grad_(False)
    queue = attach_queue(ours)
    with queue.collecting() as work:
        backward(ours, torch.randn(3, 6))
    for run in work:
        run()
    assert ours.weight.grad is None
    assert ours.bias.grad is not None


def test_names_hooks_and_subclasses_are_kept():
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(2, 2), Own(2, 2), nn.Embedding(3, 2, sparse=True))
    names = list(model.state_dict())
    assert defer_weights(model) is model
    assert list(model.state_dict()) == names
    assert [type(layer).__name__ for layer in model] == ["DeferredLinear", "Own", "Embedding"]


def test_module_without_such_layers_has_no_queue():
    assert attach_queue(nn.Tanh()) is None


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_torch_for_microbatches_whose_backward_is_whole(name):
    make, shape = LAYERS[name]
    plain, ours = pair(make)
    stage = Stage(1, ours, divides=lambda microbatch: microbatch == 0)
    x, made = torch.randn(shape, requires_grad=True), {}
    for microbatch in (0, 1, 2):
        stage.forward(microbatch, x, lambda y, number=microbatch: made.setdefault(number, y))
    nodes = {number: [type(node) for node in all_nodes(y.grad_fn)] for number, y in made.items()}
    alone = [type(node) for node in all_nodes(plain(x).grad_fn)]
    assert nodes[1] == nodes[2] == alone
    assert (nodes[0] == alone) == ("without parameters" in name)


def test_microbatches_divided_and_whole_add_up_as_without_division():
    plain, ours = pair(lambda: nn.Sequential(nn.Linear(6, 6), nn.RMSNorm(6), nn.LayerNorm(6)))
    whole, mixed = Stage(1, plain), Stage(1, ours, divides=lambda microbatch: microbatch % 2 == 0)
    xs, grad = torch.randn(4, 3, 6), torch.randn(3, 6)
    for microbatch, x in enumerate(xs):
        assert torch.equal(whole.forward(microbatch, x), mixed.forward(microbatch, x))
    for microbatch in range(4):
        expected = whole.backward(microbatch, grad)
        if microbatch % 2:
            assert torch.equal(mixed.backward(microbatch, grad), expected)
        else:
            assert torch.equal(mixed.backward_input(microbatch, grad), expected)
            mixed.backward_weights(microbatch)
        assert_equal_grads(ours, plain)


def all_nodes(node):
    return [node, *(n for child, _ in node.next_functions if child is not None for n in all_nodes(child))]
