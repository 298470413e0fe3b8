"""Whatever goes wrong on one rank: every rank says so within seconds, and none hangs."""

import re

import pytest

from synth.baselines import baseline_orders
from synth.timing import schedule_orders
from tests.builders import EITHER, two_by_two
from tests.runtime_cases import FAILING_S, Case, failing, meet_alone, meet_with
from tests.runtime_pool import Pool

WITHIN_SECONDS = 60
"""Patience and a message's time, and many times what a loaded machine may add: far from a hang."""

THREE = two_by_two(EITHER, num_microbatches=4, stage_to_rank=(0, 1, 2))

FAULTS = {
    "shapes": (
        "InputError",
        r"stage 1 cannot take what stage 0 gives, \(2, 3, 8\) of float32: .*",
    ),
    "orders": ("InputError", "rank 1 is given another schedule than rank 0: give all the same"),
    "costs": ("InputError", "rank 1 is given another schedule than rank 0: give all the same"),
    "options": (
        "InputError",
        "rank 1 is given autocast torch.bfloat16 and rank 0 None: give all ranks the same",
    ),
    "raises": ("RuntimeError", "the layer is broken"),
    "clock": ("RuntimeError", "the layer is broken"),
    "loss": (
        "LossError",
        "the loss of microbatch 0 is nan: lower the learning rate, or look at the batch",
    ),
    "rows": ("InputError", r"the batch has 7 rows: give a multiple of the 4 microbatches"),
}
"""What each fault is called where it happens."""


def case():
    return Case(schedule=schedule_orders(THREE, baseline_orders("zb-h1", THREE)))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_on_one_rank_is_told_on_all(pool, fault):
    kind, says = FAULTS[fault]
    answers = pool.run(3, failing, case(), fault)
    own = [text for name, text, _ in answers if name == kind]
    assert own
    assert all(re.fullmatch(says, text) for text in own)
    told = [text for name, text, _ in answers if name != kind]
    assert len(told) >= 1
    assert all(re.match(r"rank \d failed in .*: ", text) for text in told), told
    assert {name for name, _, _ in answers} == {kind, "PeerError"}
    assert max(seconds for _, _, seconds in answers) < WITHIN_SECONDS


def test_step_that_measures_memory_is_called_so(pool):
    answers = pool.run(3, failing, case(), "measuring")
    told = {text for name, text, _ in answers if name == "PeerError"}
    assert told == {"rank 1 failed in 1F0 of the step that measures memory: the layer is broken"}


def test_peer_that_never_sends_is_named_on_all(pool):
    answers = pool.run(3, failing, case(), "sleeps")
    texts = [text for _, text, _ in answers]
    assert {name for name, _, _ in answers} <= {"StalledError", "PeerError"}
    assert any(f"did not come within {FAILING_S} s" in text for text in texts)
    assert all("rank 1" in text for text in texts)
    assert max(seconds for _, _, seconds in answers) < WITHIN_SECONDS


def test_schedule_for_other_ranks_is_refused_by_every_process(pool):
    with pytest.raises(AssertionError, match="2 processes are started for a schedule of 3 ranks: start 3"):
        pool.run(2, failing, case(), "none")


@pytest.mark.parametrize("ranks", [(2, 1), (2, 3)])
def test_schedules_for_different_ranks_are_refused_by_every_process(pool, ranks):
    low, high = sorted(ranks)
    said = pool.run(2, meet_with, *ranks)
    assert said == [f"the processes are given schedules of {low} and {high} ranks: give all the same"] * 2


def test_process_that_never_comes_is_missed():
    pool = Pool(1)  # of its own: torch counts the groups that a process has tried to make
    try:
        (said,) = pool.run(1, meet_alone)
    finally:
        pool.close()
    assert said.startswith("not all of the 2 processes met within 2 s: start them all")


def test_rank_that_dies_is_named_on_all():
    pool = Pool(3)
    try:
        answers = pool.run(3, failing, case(), "dies", dead=1)
    finally:
        pool.close()
    assert {name for name, _, _ in answers} <= {"PeerError", "PipelineError"}
    assert len(answers) == 2
    assert all("rank 1" in text for _, text, _ in answers)
    assert max(seconds for _, _, seconds in answers) < WITHIN_SECONDS
