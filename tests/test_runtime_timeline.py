"""What a rank holds in a step: by hand, beside a second count, and under another order than the measured."""

import pytest
import torch

from runtime.allocators import Change, CudaAllocator, HostAllocator, Level
from synth.baselines import baseline_orders
from synth.document import read_timeline
from synth.measured_costs import caveats, measured_problem
from synth.problem import uniform_problem
from synth.schedule import peak_memory_bytes
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.runtime_cases import (
    EVEN_WIDTH,
    POSITIONS,
    ROWS,
    Case,
    measured_step,
    median_of_lengths,
    peak_of_a_step,
)

NUMBERS_BYTES = 4 * ROWS * POSITIONS
"""One feature of a microbatch."""


@pytest.fixture(scope="module")
def peaks(pool):
    """By schedule and microbatches on two ranks, what each rank held."""

    def peak(name, num_microbatches):
        problem = uniform_problem(2, num_microbatches, EITHER, transfer_ticks=1)
        schedule = schedule_orders(problem, baseline_orders(name, problem))
        return pool.run(2, peak_of_a_step, Case(schedule=schedule, model="even"))

    return {of: peak(*of) for of in (("gpipe", 4), ("gpipe", 6), ("1f1b", 4), ("1f1b", 6))}


def test_peak_grows_by_what_a_stage_keeps_of_every_microbatch(peaks):
    """Under GPipe: ten embedded features and the tanh. But for messages of ten features on their way."""
    six, four = peaks["gpipe", 6][0], peaks["gpipe", 4][0]
    more = (six.bytes - six.start) - (four.bytes - four.start)
    assert abs(more - 2 * (10 + EVEN_WIDTH) * NUMBERS_BYTES) <= 6 * 10 * NUMBERS_BYTES


def test_peak_does_not_grow_under_1f1b(peaks):
    six, four = peaks["1f1b", 6][0], peaks["1f1b", 4][0]
    assert abs((six.bytes - six.start) - (four.bytes - four.start)) <= 6 * 10 * NUMBERS_BYTES


def test_peak_is_that_of_the_live_storages(peaks):
    for peak in (peak for ranks in peaks.values() for peak in ranks):
        assert abs(peak.bytes - (peak.start + peak.live)) <= 6 * 10 * NUMBERS_BYTES


def test_watched_step_leaves_neither_a_count_nor_times(peaks):
    assert all(peak.untraced for ranks in peaks.values() for peak in ranks)


def test_host_holds_each_storage_once_and_gradients():
    allocator = HostAllocator()
    before = allocator.held_bytes()
    tensor = torch.zeros(1000, requires_grad=True)
    views = [tensor[:10], tensor.view(10, 100)]
    assert allocator.held_bytes() - before == 4000
    (2 * tensor).sum().backward()
    assert allocator.held_bytes() - before == 8000
    del tensor, views
    assert allocator.held_bytes() == before


def test_marks_say_what_is_held_from_moment_to_moment():
    allocator, kept = HostAllocator(), []

    def work():
        allocator.mark()
        kept.append(torch.zeros(1000))
        allocator.mark()
        torch.zeros(500)
        kept.pop()
        allocator.mark()

    assert allocator.watch(work) == Change(0, 6000, (Level(0, 0), Level(4000, 4000), Level(6000, 0)))


def test_marks_on_cuda_are_the_counters_with_each_peak_anew(monkeypatch):
    """Held before 1000; at a mark 1600 after 2200, at the end 1100 after 1900."""
    counters = {"memory_allocated": iter([1000, 1600, 1100]), "max_memory_allocated": iter([2200, 1900])}
    said = []
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, name=name: said.append(name))
    for name, values in counters.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, values=values: next(values))
    allocator = CudaAllocator(torch.device("cuda", 0))
    assert allocator.watch(allocator.mark) == Change(100, 1200, (Level(1200, 600),))
    assert said.count("reset_peak_memory_stats") == 2


@pytest.fixture(scope="module")
def measured(pool):
    """By schedule, the timeline of six microbatches of the even stages on two ranks."""

    def timeline(name):
        problem = uniform_problem(2, 6, EITHER, transfer_ticks=1)
        made = schedule_orders(problem, baseline_orders(name, problem))
        text, nothing = pool.run(2, measured_step, Case(schedule=made, model="even", steps=3))
        assert nothing is None
        return read_timeline(text)

    return {name: timeline(name) for name in ("1f1b", "gpipe", "zb-h1", "2bp-gpipe")}


def test_timeline_with_bytes_is_of_the_orders(measured):
    for name, timeline in measured.items():
        assert timeline.orders == baseline_orders(name, timeline.problem)
        for order, held, peak in zip(
            timeline.orders, timeline.held_bytes, timeline.peak_memory_bytes, strict=True
        ):
            assert len(held.most_bytes) == len(held.after_bytes) == len(order)
            assert max(held.most_bytes) <= peak <= max(held.most_bytes) + 6 * 10 * NUMBERS_BYTES


@pytest.mark.parametrize(
    ("ran", "planned"), [("1f1b", "1f1b"), ("gpipe", "1f1b"), ("zb-h1", "zb-h1"), ("2bp-gpipe", "zb-h1")]
)
def test_peak_is_that_of_the_order_s_own_run(measured, ran, planned):
    """What one order's run says of bytes, replayed in another order, beside what that order's run holds."""
    problem = measured_problem(measured[ran])
    peaks = peak_memory_bytes(problem, measured[planned].orders)
    assert peaks == pytest.approx(measured[planned].peak_memory_bytes, rel=0 if ran == planned else 0.02)


@pytest.mark.parametrize(("ran", "planned"), [("1f1b", "gpipe"), ("zb-h1", "2bp-gpipe")])
def test_peak_before_the_gradients_come_is_planned_with_them(measured, ran, planned):
    """Two weights of ten features by the width: what a plan holds throughout, GPipe holds behind its peak."""
    peaks = peak_memory_bytes(measured_problem(measured[ran]), measured[planned].orders)
    for peak, held in zip(peaks, measured[planned].peak_memory_bytes, strict=True):
        assert held <= peak <= held + 2 * 10 * EVEN_WIDTH * 4


def test_forms_that_did_not_run_are_named(measured):
    assert "0B, 0W, 1B, 1W did not run" in caveats(measured["1f1b"])[0]
    assert "0BW, 1BW did not run" in caveats(measured["zb-h1"])[0]


def test_forward_keeps_what_its_layers_keep(measured):
    """Ten features that come in and the tanh, behind a first stage's embedding too."""
    for timeline in measured.values():
        for costs in measured_problem(timeline).stages:
            kept = costs.F.alloc_bytes - costs.F.free_bytes
            assert abs(kept - (10 + EVEN_WIDTH) * NUMBERS_BYTES) <= 2 * 10 * NUMBERS_BYTES


def test_all_ranks_give_the_step_of_median_length(pool):
    problem = uniform_problem(2, 2, EITHER, transfer_ticks=1)
    case = Case(schedule=schedule_orders(problem, baseline_orders("1f1b", problem)), model="even")
    second = 10**9
    for lengths_s, median_s in (((5, 9, 7, 8, 6), 7), ((9, 5), 5), ((4,), 4)):
        chosen, nothing = pool.run(2, median_of_lengths, case, [second * length for length in lengths_s])
        assert nothing is None
        assert abs(chosen - second * median_s) < second // 10
