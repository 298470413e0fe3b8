"""Bytes by hand: what layers save, what both ways of dividing hold, and three ways of counting that agree."""

import pytest
import torch
from measured_models import INNER, ROWS, TOKENS, WIDTH, Attention, Recomputed
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from costmodels.measured.factories import Model
from costmodels.measured.memory import stage_bytes, static_bytes
from costmodels.measured.profiles import Split
from costmodels.measured.saved_tensors import saved_bytes
from costmodels.measured.stage_runs import StageRun, stage_runs
from costmodels.measured.storage_ledger import StorageLedger
from runtime.allocators import CudaAllocator, HostAllocator
from runtime.stage import Division
from synth.ops import PASSES, Op

CPU = torch.device("cpu")
F, B, W, BW = PASSES
X, INSIDE, STATISTIC = 4 * ROWS * WIDTH, 4 * ROWS * INNER, 4 * ROWS
"""Bytes of what a stage takes, of what is between its layers, of one number for every row."""


def stage_of(make, split=Split.NONE, *, first=False) -> StageRun:
    """A stage, by default behind another one, which hands its input on; run once: weights have gradients."""
    torch.manual_seed(0)
    layers = (make(),) if first else (nn.Identity(), make())
    model = Model(name="m", layers=layers, names=("a", "b"), sample=torch.randn(ROWS, WIDTH))
    run = stage_runs(model, (1,) * len(layers), split, CPU)[-1]
    for _, op in run.ops(split):
        op()
    return run


def block():
    return nn.Sequential(nn.Linear(WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, WIDTH))


SAVED = {
    "linear": (lambda: nn.Linear(WIDTH, INNER), X),
    "relu": (nn.ReLU, X + X),
    "relu in place of a linear's output": (
        lambda: nn.Sequential(nn.Linear(WIDTH, INNER), nn.ReLU(inplace=True)),
        X + INSIDE,
    ),
    "gelu": (nn.GELU, X),
    "layer norm": (lambda: nn.LayerNorm(WIDTH), X + 2 * STATISTIC),
    "softmax": (lambda: nn.Softmax(-1), X + X),
    "dropout": (lambda: nn.Dropout(0.5), X + ROWS * WIDTH),
    "identity": (nn.Identity, X),
    "view": (lambda: nn.Flatten(0), X),
    "block": (block, X + INSIDE),
    "block twice": (lambda: nn.Sequential(block(), block()), X + INSIDE + X + INSIDE),
    "one weight used twice": (
        lambda: nn.Sequential(linear := nn.Linear(WIDTH, WIDTH), nn.Sigmoid(), linear),
        X + X,
    ),
}
"""What is kept after F: the input, and what autograd saves beside it."""


@pytest.mark.parametrize("name", SAVED)
def test_saved_bytes_by_hand(name):
    make, expected = SAVED[name]
    run = stage_of(make)
    if name != "dropout":  # whose mask autograd keeps as it likes
        assert saved_bytes(run) == expected
    memory = stage_bytes(run, Split.NONE, HostAllocator(), 2)
    assert memory.saved_after_f == memory.held_after_f
    assert memory.net[BW] == -memory.held_after_f


def test_weights_and_buffers_do_not_count():
    run = stage_of(lambda: nn.BatchNorm1d(WIDTH))
    assert saved_bytes(run) == X + 2 * 4 * WIDTH  # the batch's statistics
    static = static_bytes(run, 2)
    weights = 4 * 2 * WIDTH
    assert static.weights == weights + 4 * 2 * WIDTH + 8  # running statistics and a count
    assert (static.gradients, static.optimizer) == (weights, 2 * weights)


def test_frozen_weights_have_no_gradients():
    linear = nn.Linear(WIDTH, INNER)
    linear.bias.requires_grad_(False)
    static = static_bytes(stage_of(lambda: linear), 3)
    assert static.weights == 4 * (WIDTH * INNER + INNER)
    assert (static.gradients, static.optimizer) == (4 * WIDTH * INNER, 12 * WIDTH * INNER)


def test_first_stage_keeps_its_tokens():
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    model = Model(name="m", layers=(nn.Embedding(TOKENS, WIDTH),), names=("e",), sample=tokens)
    (run,) = stage_runs(model, (1,), Split.DEFERRED, CPU)
    memory = warm(run, Split.DEFERRED)
    assert memory.saved_after_f == memory.held_after_f == 8 * 6
    assert memory.held_after_b == 8 * 6 + 4 * 6 * WIDTH  # and the gradient of its output


def warm(run, split):
    for _, op in run.ops(split):
        op()
    return stage_bytes(run, split, HostAllocator(), 2)


def test_native_frees_nothing_until_w():
    """The gradients that arrive at the linear layers come on top of all that F left."""
    memory = warm(stage_of(block, Split.NATIVE), Split.NATIVE)
    assert memory.net[F] == X + INSIDE
    assert memory.net[B] == INSIDE + X  # of the first linear's output, and of the second's
    assert memory.net[W] == -2 * (X + INSIDE)


def test_deferred_keeps_inputs_and_gradients_of_outputs():
    """Of three layers two linear ones wait; what only the one between needed is the input of the last."""
    memory = warm(stage_of(block, Split.DEFERRED, first=True), Split.DEFERRED)
    assert (memory.net[F], memory.held_after_b) == (X + INSIDE, 2 * (X + INSIDE))
    assert memory.net[W] == -2 * (X + INSIDE)


def sigmoids():
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sigmoid(), nn.Sigmoid(), nn.Linear(WIDTH, WIDTH))


def test_deferred_frees_what_only_the_input_gradient_needs():
    """The first sigmoid's result goes with B, the second's is the input of a linear layer."""
    memory = warm(stage_of(sigmoids, Split.DEFERRED, first=True), Split.DEFERRED)
    assert memory.net[F] == 3 * X  # the input and both results
    assert memory.held_after_b == 4 * X  # inputs of both linear layers and gradients of their outputs
    assert warm(stage_of(sigmoids, Split.NATIVE), Split.NATIVE).held_after_b == 5 * X


def test_checkpointing_keeps_inputs_alone():
    """Two recomputed blocks: the input of each stays, and the backward computes the rest again."""
    run = stage_of(lambda: nn.Sequential(Recomputed(block()), Recomputed(block())))
    memory = stage_bytes(run, Split.NONE, HostAllocator(), 2)
    assert (memory.saved_after_f, memory.held_after_f) == (2 * X, 2 * X)
    assert memory.workspace[BW] >= INSIDE


def test_a_stage_without_a_layer_that_defers_is_divided_natively():
    assert stage_of(nn.ReLU, Split.DEFERRED).division is Division.NATIVE
    assert stage_of(block, Split.DEFERRED).division is Division.DEFERRED


PARTS = {
    **{name: make for name, (make, _) in SAVED.items()},
    "attention": lambda: nn.Sequential(nn.Unflatten(0, (2, 3)), Attention(WIDTH), nn.Flatten(0, 1)),
    "recomputed": lambda: Recomputed(block()),
    "rms norm": lambda: nn.RMSNorm(WIDTH),
}


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("name", PARTS)
def test_allocator_and_ledger_agree(name, split):
    """Two counts that share nothing: of the allocator's calls, and of the tensors that ops make."""
    run = stage_of(PARTS[name], split)
    by_allocator = stage_bytes(run, split, HostAllocator(), 2)
    assert stage_bytes(run, split, StorageLedger(), 2).net == by_allocator.net


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("name", ["block twice", "attention", "recomputed", "layer norm"])
def test_shapes_alone_give_the_same_bytes(name, split):
    real = stage_bytes(stage_of(PARTS[name], split), split, HostAllocator(), 2)
    with FakeTensorMode():
        assert stage_bytes(stage_of(PARTS[name], split), split, StorageLedger(), 2).net == real.net


def test_allocator_sees_what_is_freed_and_how_high_it_rose():
    held = [torch.zeros(100)]

    def work():
        torch.zeros(1000)
        held[0] = torch.zeros(10)

    for allocator in (HostAllocator(), StorageLedger()):
        held[0] = None
        allocator.watch(lambda: held.__setitem__(0, torch.zeros(100)))
        change = allocator.watch(work)
        assert change.net == 40 - 400
        assert 4000 <= change.highest <= 4000 + 40


def test_cuda_allocator_reads_the_counters(monkeypatch):
    """Beside what was allocated before: what is after, and the peak since the counters were reset."""
    counters = {"memory_allocated": iter([1000, 1600]), "max_memory_allocated": iter([2200])}
    said = []
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, name=name: said.append(name))
    for name, values in counters.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, values=values: next(values))
    change = CudaAllocator(torch.device("cuda", 0)).watch(lambda: said.append("work"))
    assert (change.net, change.highest) == (600, 1200)
    assert said == ["synchronize", "reset_peak_memory_stats", "work", "synchronize"]


@pytest.mark.parametrize("split", [Split.DEFERRED, Split.NATIVE])
def test_costs_add_up_over_microbatches(split):
    """Three microbatches at once: the real peak is that of the costs, but for one op's workspace."""
    run = stage_of(lambda: nn.Sequential(block(), nn.LayerNorm(WIDTH), block()), split)
    memory = stage_bytes(run, split, HostAllocator(), 2)
    orders = [Op.parse(f"1{op}") for op in ("F0", "F1", "F2", "B0", "B1", "W0", "B2", "W1", "W2")]
    level = highest = 0
    for op in orders:
        before = level
        level += memory.net[op.kind]
        highest = max(highest, before, level)
    real = HostAllocator().watch(lambda: [ran(run, op) for op in orders])
    assert (level, real.net) == (0, 0)
    assert highest <= real.highest <= highest + memory.highest_workspace


def ran(run, op):
    if op.kind is F:
        run.stage.forward(op.microbatch, run.x.clone())
    elif op.kind is B:
        run.stage.backward_input(op.microbatch, run.grad.clone())
    else:
        run.stage.backward_weights(op.microbatch)
