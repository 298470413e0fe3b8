"""Stages whose activations other ranks store: the gradients of one process, from the memory planned."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from runtime.allocators import HostAllocator
from runtime.deferred import defer_weights
from runtime.eviction import EvictingStage
from runtime.gradients import Exchange
from runtime.shapes import TensorSpec
from runtime.stage import Division, Stage
from synth.baselines import baseline_problem, baseline_schedule
from synth.document import read_timeline
from synth.feed import Feed
from synth.measured_costs import caveats, measured_problem
from synth.ops import OpKind
from synth.placement import Placement
from synth.problem import uniform_problem
from synth.schedule import peak_memory_bytes
from synth.search.synthesizer import synthesize
from synth.timing import schedule_orders
from tests.builders import DIVIDED, EITHER, UNDIVIDED
from tests.flow_builders import Evicted, drawn, evicting, evictions_with_orders, two_directions
from tests.runtime_cases import mixed_stage
from tests.runtime_flow_cases import (
    DEEP_COUNT,
    FlowCase,
    flow_against_reference,
    flow_timeline,
    peak_of_three_steps,
)

BPIPE = baseline_schedule("bpipe", uniform_problem(4, 8, EITHER, transfer_ticks=1))


def check(outcomes, *, tolerance=None) -> None:
    """As without a pipeline; losses are means of other sums."""
    for outcome in outcomes:
        assert outcome.equal if tolerance is None else outcome.difference <= tolerance
        assert outcome.losses == pytest.approx(outcome.expected, rel=1e-6)
    assert any(outcome.losses for outcome in outcomes)


WAYS = {
    "dropout": {"model": "mixed", "dropout": 0.3, "dtype": torch.float32},
    "native": {"division": Division.NATIVE},
    "recomputed": {"model": "mixed", "dropout": 0.3, "recompute": True},
    "staged": {"is_staged": True},
    "half precision": {
        "model": "mixed",
        "dropout": 0.3,
        "dtype": torch.float32,
        "autocast": torch.bfloat16,
        "division": Division.NATIVE,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_bpipe_gives_the_gradients_of_one_process(pool, way):
    """Four ranks over three updates, of which one evicts, two do neither and one stores: bit for bit."""
    check(pool.run(4, flow_against_reference, FlowCase(schedule=BPIPE, **WAYS[way])))


@pytest.mark.parametrize("division", Division)
def test_divided_backwards_find_what_was_evicted(pool, division):
    """W comes after its B, and a native one reads then what came back for B."""
    schedule = baseline_schedule("bpipe", uniform_problem(4, 6, DIVIDED, transfer_ticks=1))
    case = FlowCase(schedule=schedule, model="mixed", dropout=0.3, division=division)
    check(pool.run(4, flow_against_reference, case))


def test_synthesized_order_of_a_problem_with_storage(pool):
    problem = baseline_problem("bpipe", uniform_problem(4, 4, EITHER, transfer_ticks=1))
    schedule = synthesize(problem, time_limit=3, workers=1).schedule
    check(pool.run(4, flow_against_reference, FlowCase(schedule=schedule)), tolerance=1e-12)


def test_peaks_are_those_planned(pool):
    """By all that the allocator gives: as many microbatches as the document lets each rank hold, no more.

    Beside them are a gradient and what a layer computes with, three of the tensors that a stage keeps.
    """
    for name in ("1f1b", "bpipe"):
        schedule = baseline_schedule(name, uniform_problem(4, 8, UNDIVIDED, transfer_ticks=1))
        peaks = peak_memory_bytes(schedule.problem, schedule.orders)
        planned = [peak // UNDIVIDED.F.alloc_bytes for peak in peaks]
        assert planned[0] == {"1f1b": 4, "bpipe": 3}[name]
        measured = pool.run(4, peak_of_three_steps, FlowCase(schedule=schedule, model="deep"))
        for count, peak in zip(planned, measured, strict=True):
            assert count * DEEP_COUNT < peak < count * DEEP_COUNT + 4


def test_timeline_has_the_ops_that_store(pool):
    text, *others = pool.run(4, flow_timeline, FlowCase(schedule=BPIPE))
    assert others == [None] * 3
    timeline = read_timeline(text)
    assert timeline.orders == BPIPE.orders
    assert len(timeline.held_bytes) == 4
    measured = [costs.F.alloc_bytes for costs in measured_problem(timeline).stages]
    assert measured == [costs.F.alloc_bytes for costs in BPIPE.problem.stages]
    assert "what ranks store for others" in caveats(timeline)[-1]


def test_replicas_evict_each_for_itself(pool):
    """Two replicas of two ranks, which share the update."""
    problem = evicting(2, 3, {0: Evicted((1, 2), 1)}, stage=EITHER)
    case = FlowCase(schedule=drawn(problem), exchange=Exchange.REDUCE_SCATTER)
    check(pool.run(4, flow_against_reference, case), tolerance=1e-12)


def test_a_direction_may_store_for_the_other(pool):
    """Rank 1 holds a replica of the weights, and beside it what rank 0 keeps of the other direction."""
    two = two_directions(2, 2)
    store = Feed(inputs=(0,), microbatches=(0, 1), model_stage=0)
    problem = replace(
        two,
        placement=Placement.explicit((*two.stage_to_rank, 1)),
        stages=(*two.stages, EITHER),
        feeds=(*two.feeds, store),
    )
    case = FlowCase(schedule=drawn(problem), model="mixed", dropout=0.3)
    check(pool.run(2, flow_against_reference, case), tolerance=1e-12)


def test_a_rank_may_only_store(pool):
    """A model of one stage: rank 1 holds no weights and knows no loss."""
    problem = replace(
        uniform_problem(2, 3, EITHER, transfer_ticks=1),
        feeds=(
            Feed(inputs=(), microbatches=(0, 1, 2), model_stage=0),
            Feed(inputs=(0,), microbatches=(0, 2), model_stage=0),
        ),
    )
    first, second = pool.run(2, flow_against_reference, FlowCase(schedule=drawn(problem), model="mixed"))
    check([first], tolerance=1e-12)
    assert (second.losses, second.weights) == ((), {})


@given(evictions_with_orders(), st.sampled_from(Division), st.booleans())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_any_eviction_gives_these_gradients(pool, given_orders, division, recompute):
    problem, orders = given_orders
    divides = any(op.kind is OpKind.B for order in orders for op in order)
    case = FlowCase(
        schedule=schedule_orders(problem, orders),
        model="mixed",
        dropout=0.2,
        division=division,
        recompute=recompute and not (divides and division is Division.NATIVE),
        steps=2,
    )
    check(pool.run(problem.num_ranks, flow_against_reference, case), tolerance=1e-12)


class Odd(nn.Module):
    """Keeps views, broadcasts, complex numbers and its very parameters and buffers, some of them twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, width))
        self.register_buffer("scale", torch.linspace(1, 2, width))
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        left, right = (x * self.scale * self.weight).chunk(2, -1)
        y = torch.cat([left * right, torch.tanh(left)], -1)
        wave = torch.fft.fft(y)
        return self.norm((wave * wave.conj()).real + y.expand(2, *y.shape).sin().sum(0))


MODULES = {
    "odd": lambda: Odd(8),
    "layers": lambda: mixed_stage(1, 8, 8, 0.4),
    "deferring layers": lambda: defer_weights(mixed_stage(1, 8, 8, 0.4)),
    "nothing to keep": nn.Identity,
    "frozen": lambda: nn.Linear(8, 8).requires_grad_(False),
}


def pass_of(stage, x, *, evict: bool):
    """Output, the gradients of input and parameters, and the state; in a buffer that is copied between."""
    torch.manual_seed(1)
    if evict:
        size = stage.measure(0, TensorSpec.of(x), x.device)
        stage.provide(0, torch.empty(size, dtype=torch.uint8))
    y = stage.forward(0, x).clone()
    if evict:
        buffer = stage.take_away(0)
        away = buffer.clone()
        buffer.fill_(255)
        x.fill_(float("nan"))
        stage.bring_back(0, away)
    grad = stage.backward(0, torch.linspace(-1, 1, y.numel()).reshape(y.shape))
    return y, grad, [p.grad for p in stage.module.parameters()], [*stage.module.buffers()]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_backward_finds_all_that_forward_kept(name, recompute):
    """Bit for bit, when nothing is left of buffer and input; measuring changes no state."""
    found = []
    for kind in (Stage, EvictingStage):
        torch.manual_seed(0)
        module, x = MODULES[name](), torch.randn(6, 8)
        stage = kind(1, module, divides=lambda microbatch: False, recompute=recompute)
        found.append(pass_of(stage, x, evict=kind is EvictingStage))
    for a, b in zip(*map(tree_leaves, found), strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("recompute", [False, True])
def test_nothing_is_left_between_forward_and_backward(recompute):
    torch.manual_seed(0)
    stage = EvictingStage(
        1, mixed_stage(1, 256, 256, 0.3), divides=lambda microbatch: False, recompute=recompute
    )
    spec = TensorSpec((64, 256), torch.float32)
    stage.provide(0, torch.empty(stage.measure(0, spec, torch.device("cpu")), dtype=torch.uint8))

    def forward():
        stage.forward(0, torch.randn(spec.shape))
        stage.take_away(0)

    leaf_bytes, random_state = 4, torch.get_rng_state().numel() * recompute
    assert HostAllocator().watch(forward).net == leaf_bytes + random_state


class Handed(nn.Module):
    """Gives its input back, or keeps it in a way that stays."""

    def forward(self, x):
        return x if self.training else (x * torch._neg_view(x)).view_as(x)


@pytest.mark.parametrize("is_handed_through", [True, False])
def test_input_may_be_overwritten_whoever_keeps_it(is_handed_through):
    """Its memory is used again behind F; a loss, or a view that stays, has its own by then."""
    module, expected = Handed().train(is_handed_through), []
    for kind in (Stage, EvictingStage):
        stage, x = kind(1, module, divides=lambda microbatch: False), torch.linspace(1, 2, 6)
        if kind is EvictingStage:
            stage.provide(0, torch.empty(1, dtype=torch.uint8))
        stage.forward(0, x, lambda y: (y * y).sum())
        if kind is EvictingStage:
            x.fill_(float("nan"))
            stage.bring_back(0, stage.take_away(0))
        expected.append(stage.backward(0, torch.tensor(1.0)))
    assert torch.equal(*expected)


def test_what_does_not_fit_stays():
    """A module that keeps more than it did when it was measured is still right."""
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)), torch.randn(6, 8)
    stage = EvictingStage(1, module.eval(), divides=lambda microbatch: False)
    size = stage.measure(0, TensorSpec.of(x), x.device)
    module.train()
    assert stage.measure(0, TensorSpec.of(x), x.device) > size
    stage.provide(0, torch.empty(size, dtype=torch.uint8))
    torch.manual_seed(1)
    given = x.clone()
    stage.forward(0, given)
    given.fill_(float("nan"))
    stage.bring_back(0, stage.take_away(0).clone())
    found = stage.backward(0, torch.ones(6, 8))
    torch.manual_seed(1)
    plain = Stage(1, module)
    plain.forward(0, x)
    assert torch.equal(found, plain.backward(0, torch.ones(6, 8)))


def test_graphs_of_a_loss_go():
    """What a loss keeps stays, and is gone behind the backward: an output does not keep itself."""
    kept = []

    def loss(y):
        z = torch.tanh(y)
        kept.append(StorageWeakRef(z.untyped_storage()))
        return z.mean()

    stage = EvictingStage(1, nn.Linear(8, 8), divides=lambda microbatch: False)
    stage.provide(0, torch.empty(1 << 16, dtype=torch.uint8))
    stage.forward(0, torch.randn(6, 8), loss)
    stage.bring_back(0, stage.take_away(0))
    assert not kept[0].expired()
    stage.backward(0, torch.tensor(1.0))
    assert kept[0].expired()


def test_what_changes_between_two_keepings_is_kept_twice():
    """A number for a log keeps a tensor that is then changed in place: the backward finds what came last."""

    class Logging(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            h = self.layer(x)
            self.logged = torch.sin(h).sum().detach()
            return torch.sin(h.mul_(2))

    torch.manual_seed(0)
    module, x, grad = Logging(), torch.randn(2, 4), torch.randn(2, 4)
    plain = Stage(1, module)
    plain.forward(0, x.clone())
    expected = plain.backward(0, grad)
    evicting_stage = EvictingStage(1, module)
    size = evicting_stage.measure(0, TensorSpec.of(x), torch.device("cpu"))
    evicting_stage.provide(0, torch.empty(size, dtype=torch.uint8))
    evicting_stage.forward(0, x.clone())
    evicting_stage.bring_back(0, evicting_stage.take_away(0).clone())
    assert torch.equal(evicting_stage.backward(0, grad), expected)
