"""What a rank holds at most in a step: by hand, and beside a second count."""

import pytest
import torch

from runtime.allocators import HostAllocator
from synth.baselines import baseline_orders
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.runtime_cases import EVEN_WIDTH, POSITIONS, ROWS, Case, peak_of_a_step

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
