"""Memory limits: as typed, the 1F1B unit, and the smallest that any schedule can do with."""

from dataclasses import replace

import pytest
from builders import DIVIDED, UNDIVIDED, two_by_two
from exhaustive import best_value, smallest_peak
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.chunks import cut_stages
from synth.errors import InfeasibleError, InputError
from synth.instances import load_instance
from synth.memory import (
    check_feasible,
    one_f_one_b_bytes,
    parse_limit,
    parse_size,
    serial_orders,
    smallest_limits_bytes,
)
from synth.placement import Placement, PlacementKind
from synth.problem import OpCost, Problem, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import peak_memory_bytes
from synth.timing import schedule_orders
from synth.verify import verify_schedule

WITH_STATIC = replace(two_by_two(num_microbatches=4), stages=(replace(DIVIDED, static_bytes=100), DIVIDED))
"""1F1B holds 4 bytes on rank 0, whose static bytes are 100, and 2 on rank 1."""


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("0", (0, 0)),
        ("17179869184", (17179869184,) * 2),
        ("16GiB", (17179869184,) * 2),
        ("16GB", (16 * 10**9,) * 2),
        ("3 kB", (3000, 3000)),
        ("3KiB", (3072, 3072)),
        ("3MB", (3 * 10**6,) * 2),
        ("2MiB", (2 * 1024**2,) * 2),
        ("1TB", (10**12,) * 2),
        ("1TiB", (1024**4,) * 2),
        ("12B", (12, 12)),
        ("1.5KiB", (1536, 1536)),
        ("0.1GB", (10**8, 10**8)),
        ("  7  ", (7, 7)),
        # Multiples are of activations alone, rounded down, static bytes on top.
        ("1x", (104, 4)),
        ("1X", (104, 4)),
        ("0.5x", (102, 2)),
        (".5x", (102, 2)),
        ("0.74x", (102, 2)),
        ("0.75x", (103, 3)),
        ("2.x", (108, 8)),
        ("0x", (100, 0)),
    ],
)
def test_limits_as_typed(text, limits):
    assert parse_limit(text, WITH_STATIC) == limits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "-0.5x",
        "12Gib",
        "12gib",
        "12 G",
        "1e3",
        "1_000",
        "0x10",
        "1,5x",
        "5xx",
        "nan",
        "inf",
        "½x",
        "12GiB/s",
    ],
)
def test_nonsense_is_refused(text):
    with pytest.raises(InputError, match="is no size: write bytes, a size such as 12GiB, or a multiple"):
        parse_limit(text, WITH_STATIC)


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("1.5KiB", 1536), ("72GiB", 72 * 2**30), ("3 kB", 3000)]
)
def test_sizes_as_typed(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0.5x", "12 gib", "-1", "1e3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is no size: write bytes, or a size such as 12GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("zb-1.5b-m24", 16), ("zb-6.2b-m64", 16), ("zb-14.6b-m48", 32), ("zb-28.3b-m96", 64)],
)
def test_unit_of_the_shipped_instances(name, unit):
    """1F1B holds p microbatches of 2 halves each on rank 0."""
    assert one_f_one_b_bytes(load_instance(name)) == unit


@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("kind", [PlacementKind.LOOP, PlacementKind.WAVE])
def test_unit_of_chunks_is_that_of_the_whole_model(chunks, kind):
    """Scaled as the cut scales bytes."""
    problem = load_instance("zb-1.5b-m24")
    cut = cut_stages(problem, chunks, kind)
    assert one_f_one_b_bytes(cut.problem) == one_f_one_b_bytes(problem) * cut.bytes_scale


def test_unit_is_of_the_fullest_rank():
    """Rank 1 holds 3 microbatches of 9 bytes, rank 0 four of 2."""
    problem = uniform_problem(4, 10, UNDIVIDED)
    assert one_f_one_b_bytes(problem) == 8
    larger = StageCosts(F=OpCost(ticks=2, alloc_bytes=9), BW=OpCost(ticks=3, free_bytes=9))
    stages = (UNDIVIDED, larger, UNDIVIDED, UNDIVIDED)
    assert one_f_one_b_bytes(replace(problem, stages=stages)) == 27


@settings(max_examples=150)
@given(problems(max_ranks=2, max_chunks=2, max_microbatches=2))
def test_smallest_limits_are_those_of_all_orders(problem):
    smallest = tuple(smallest_peak(problem, rank) for rank in range(problem.num_ranks))
    assert smallest_limits_bytes(problem) == smallest
    assert peak_memory_bytes(problem, serial_orders(problem)) == smallest


BACKWARD_ALLOCATES = StageCosts(
    F=OpCost(ticks=1, alloc_bytes=4),
    B=OpCost(ticks=1, alloc_bytes=3, free_bytes=1),
    W=OpCost(ticks=1, alloc_bytes=2, free_bytes=8),
)


@pytest.mark.parametrize(
    ("stage", "chunks", "smallest"),
    [
        (BACKWARD_ALLOCATES, 1, 8),  # F 4, B +3 -1, W +2
        (replace(BACKWARD_ALLOCATES, BW=OpCost(ticks=1, alloc_bytes=3, free_bytes=7)), 1, 7),
        (replace(BACKWARD_ALLOCATES, BW=OpCost(ticks=1, alloc_bytes=9, free_bytes=13)), 1, 8),
        (BACKWARD_ALLOCATES, 2, 12),  # both F 8, the later stage's B and W 12, then 8
        (replace(BACKWARD_ALLOCATES, static_bytes=50), 2, 112),
    ],
)
def test_smallest_limits_by_hand(stage, chunks, smallest):
    problem = uniform_problem(1, 3, stage, chunks=chunks)
    assert smallest_limits_bytes(problem) == (smallest,)


@settings(max_examples=80)
@given(problems(), st.data())
def test_the_smallest_limit_will_do_and_no_less(problem, data):
    smallest = smallest_limits_bytes(problem)
    exact = problem.with_memory_limit(smallest)
    check_feasible(exact)
    check_feasible(problem)
    schedule = schedule_orders(exact, serial_orders(exact))
    assert verify_schedule(schedule) == []
    rank = data.draw(st.integers(0, problem.num_ranks - 1))
    if smallest[rank] > 0:
        less = [limit - (r == rank) for r, limit in enumerate(smallest)]
        with pytest.raises(InfeasibleError) as caught:
            check_feasible(problem.with_memory_limit(less))
        assert caught.value.smallest_limit_bytes == smallest
        (reason,) = caught.value.reasons
        assert reason.startswith(f"rank {rank} has a limit of {less[rank]} bytes and cannot hold one")
        assert f"the smallest limit that would do is {smallest[rank]}" in reason


def test_below_the_smallest_limit_there_is_no_schedule():
    problem = two_by_two()
    assert smallest_limits_bytes(problem) == (2, 2)
    assert best_value(problem.with_memory_limit(2), fifo=False) is not None
    assert best_value(problem.with_memory_limit([2, 1]), fifo=False) is None


def test_ranks_short_alike_share_a_sentence():
    stages = (DIVIDED, DIVIDED, replace(DIVIDED, static_bytes=5))
    problem = Problem(
        num_ranks=3,
        num_microbatches=2,
        placement=Placement.explicit((0, 1, 2)),
        stages=stages,
        transfer_ticks=uniform_transfers(3, 0),
        memory_limit_bytes=(1, 1, 6),
    )
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(problem)
    assert caught.value.reasons == (
        "rank 0 has a limit of 1 bytes and cannot hold one microbatch of stage 0, which takes 0 static and "
        "2 activation bytes; the smallest limit that would do is 2 (and so for rank 1)",
        "rank 2 has a limit of 6 bytes and cannot hold one microbatch of stage 2, which takes 5 static and "
        "2 activation bytes; the smallest limit that would do is 7",
    )
    assert caught.value.smallest_limit_bytes == (2, 2, 7)
    check_feasible(problem.with_memory_limit(caught.value.smallest_limit_bytes))


def test_multiple_waits_for_the_placement_where_static_bytes_hang_on_it():
    heavy = replace(DIVIDED, static_bytes=100)
    problem = uniform_problem(2, 4, DIVIDED, chunks=2)
    problem = replace(problem, stages=(heavy, DIVIDED, DIVIDED, DIVIDED))
    left_open = replace(problem, placement=replace(problem.placement, kind=PlacementKind.AUTO))
    assert parse_limit("1x", left_open) == parse_limit("1x", problem)
    hanging = replace(
        left_open, stages=(heavy, DIVIDED, heavy, DIVIDED)
    )  # on one rank in a loop, on two in a V
    with pytest.raises(InputError, match="which the placement is still to decide"):
        parse_limit("1x", hanging)


def test_many_weight_ops_that_allocate_claim_only_what_is_sure():
    stage = StageCosts(
        F=OpCost(ticks=1, alloc_bytes=2),
        B=OpCost(ticks=1),
        W=OpCost(ticks=1, alloc_bytes=1, free_bytes=3),
    )
    problem = uniform_problem(1, 2, stage, chunks=20)
    (limit,) = smallest_limits_bytes(problem)
    assert peak_memory_bytes(problem, serial_orders(problem)) == (limit,) == (41,)
    check_feasible(problem.with_memory_limit(40))
    with pytest.raises(InfeasibleError):
        check_feasible(problem.with_memory_limit(39))
