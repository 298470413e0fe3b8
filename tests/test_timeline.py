"""Memory over time and transfers, against what the schedule and the timing say."""

from dataclasses import replace
from itertools import pairwise

from builders import UNDIVIDED, two_by_two
from hypothesis import given
from strategies import problems_with_orders

from synth.baselines import baseline_orders
from synth.instances import load_instance
from synth.ops import Op, OpKind
from synth.problem import Links
from synth.schedule import measure
from synth.timeline import memory_steps, transfers
from synth.timing import schedule_orders


def timed(problem, name="1f1b"):
    return schedule_orders(problem, baseline_orders(name, problem))


@given(problems_with_orders())
def test_the_highest_step_is_the_peak_and_the_last_what_is_left(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    steps = memory_steps(schedule)
    peaks = [
        max([static, *(step.live_bytes for step in rank)])
        for static, rank in zip(problem.static_bytes_by_rank, steps, strict=True)
    ]
    assert tuple(peaks) == measure(schedule).peak_memory_bytes
    assert [rank[-1].tick for rank in steps] == [rank[-1].end for rank in schedule.ranks]


def test_steps_of_a_small_schedule():
    problem = two_by_two(UNDIVIDED)
    first, second = memory_steps(timed(problem))
    assert first == ((0, 2), (2, 4), (4, 4), (9, 4), (12, 2), (14, 2), (17, 0))
    assert second == ((3, 2), (5, 2), (8, 2), (10, 2), (13, 0))


def test_every_consumer_starts_at_or_after_what_it_waits_for():
    schedule = timed(load_instance("zb-1.5b-m24"), "zb-h1")
    starts = {timed.op: timed.start for rank in schedule.ranks for timed in rank}
    found = transfers(schedule)
    assert len(found) == 2 * 7 * 24
    assert all(starts[transfer.consumer] >= transfer.end for transfer in found)


def test_transfers_of_an_exclusive_link_do_not_overlap():
    problem = two_by_two(transfer_ticks=5, num_microbatches=4)
    schedule = timed(replace(problem, links=Links.EXCLUSIVE))
    forwards = [transfer for transfer in transfers(schedule) if transfer.from_rank == 0]
    assert [transfer.producer for transfer in forwards] == [Op(OpKind.F, 0, i) for i in range(4)]
    assert all(b.start >= a.end for a, b in pairwise(forwards))
