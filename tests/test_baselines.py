"""Baselines: complete and deadlock-free everywhere, and equal to the published closed forms and figures.

Published figures come from ``data/published.json``, each row with its source. ``[R]`` cells below are re-runs
of the authors' released scheduler on the same profiles.
"""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.baselines import BASELINES, baseline_orders
from synth.baselines.grouped import _orders, _peaks_in_groups, group_sizes, in_groups_of
from synth.baselines.shapes import EqualTicks, equal_ticks
from synth.baselines.slot_grid import FEW_PER_RANK, _tightened_orders, lengthened
from synth.baselines.undivided_v import _all_moved_up, one_f_one_b_v_block
from synth.baselines.v_shaped import v_half_block, v_min_block, v_zb_block
from synth.baselines.zero_bubble import (
    few_microbatches_ticks,
    first_backward_bound_ticks,
    flat_from_microbatches,
    zb_1p_bubble_ticks,
    zb_limit_bytes,
)
from synth.building_block import block_violations
from synth.errors import BaselineUndefinedError, InputError
from synth.ops import OpKind
from synth.placement import Placement, PlacementKind
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import Metrics, measure, peak_memory_bytes
from synth.timing import schedule_orders
from synth.verify import verify_schedule

PUBLISHED = json.loads((Path(__file__).parent / "data" / "published.json").read_text())
PROFILES = {row["id"]: row for row in PUBLISHED["table9_profiles"] + PUBLISHED["table8"]["rows"]}
BUBBLES = {row["id"]: row for row in PUBLISHED["table5_bubble"]["rows"] + PUBLISHED["table8"]["rows"]}
HETERO = PUBLISHED["code_instances"]["instances"][0]

RANKS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
AS_GIVEN = tuple(sorted(name for name, baseline in BASELINES.items() if baseline.reshape is None))
"""Those that schedule a plain chain as it is; for the others see ``test_baselines_flows.py``."""
CHAINS = ("gpipe", "1f1b", "zb-h1", "zb-h2", "2bp-gpipe", "2bp-1f1b")
IN_GROUPS_OF_P = ("interleaved-1f1b", "2bp-interleaved-1f1b")
LOOPED = (*IN_GROUPS_OF_P, "group-interleaved-1f1b", "interleaved-zero-bubble", "looped-bfs")
MULTIPLE = ("gpipe", "2bp-gpipe", *LOOPED)
GREEDY_V = ("v-min", "v-half", "v-zb")
WAVES = ("hanayo",)
V_SHAPED = (*GREEDY_V, "1f1b-v", "dualpipe-v", *WAVES)
"""One wave is a V; so far, a V stands for all waves."""


def stage_of(F: int, B: int, W: int, *, activation: int = 2, between: int = 1, static: int = 0) -> StageCosts:
    """A stage that holds ``activation`` bytes from F and ``between`` from B to W, and offers BW too."""
    return StageCosts(
        F=OpCost(ticks=F, alloc_bytes=activation),
        B=OpCost(ticks=B, free_bytes=activation - between),
        W=OpCost(ticks=W, free_bytes=between),
        BW=OpCost(ticks=B + W, free_bytes=activation),
        static_bytes=static,
    )


UNIT = stage_of(1, 1, 1)
UNIT_CHUNK = stage_of(1, 1, 1, activation=1, between=1)
"""Half a stage; all is freed at W, as the V papers count."""


def problem_for(
    name: str, num_ranks: int, num_microbatches: int, stage: StageCosts, *, transfer: int = 0, chunks: int = 1
) -> Problem:
    return uniform_problem(
        num_ranks,
        num_microbatches,
        stage,
        transfer_ticks=transfer,
        chunks=2 if name in V_SHAPED and chunks == 1 else chunks,
        kind=PlacementKind.WAVE if name in V_SHAPED else PlacementKind.LOOP,
        objective=Objective.RANK_SPAN,
    )


def measured(name: str, problem: Problem) -> Metrics:
    return measure(schedule_orders(problem, baseline_orders(name, problem)))


def assert_meets_closed_forms(name: str, problem: Problem) -> None:
    metrics = measured(name, problem)
    bubble = BASELINES[name].bubble_ticks(problem)
    peak = BASELINES[name].peak_bytes(problem)
    assert bubble is None or metrics.rank_span - metrics.work == bubble
    assert peak is None or metrics.peak_memory_bytes == peak


def microbatches_for(name: str, num_ranks: int) -> list[int]:
    """Numbers of microbatches that the baseline is defined for."""
    p = num_ranks
    if name in IN_GROUPS_OF_P:
        return [p, 2 * p, 3 * p]
    numbers = sorted({1, 2, max(1, p - 1), p, p + 1, max(1, 2 * p - 1), 2 * p, 3 * p + 1, 4 * p})
    return [m for m in numbers if is_defined_for(name, p, m)]


def is_defined_for(name: str, num_ranks: int, num_microbatches: int) -> bool:
    if name == "dualpipe-v":
        return num_microbatches >= 2 * num_ranks
    if name == "interleaved-zero-bubble":
        return num_microbatches % max(1, num_microbatches // num_ranks) == 0
    return name not in IN_GROUPS_OF_P or num_microbatches % num_ranks == 0


def nearest_defined(name: str, num_ranks: int, size: int) -> int:
    """The least number of microbatches from ``size`` on that the baseline is defined for."""
    return next(m for m in range(size, size + 2 * num_ranks + 1) if is_defined_for(name, num_ranks, m))


def has_bubble_on_unit_times(name: str, num_ranks: int, num_microbatches: int) -> bool:
    """Whether the docstrings promise a bubble for F = B = W, BW = 2F and no transfers."""
    p, m = num_ranks, num_microbatches
    if name in GREEDY_V:
        return m >= 2 * p
    if name == "1f1b-v":
        return m >= 2 * p and p not in (2, 3, 9)
    if name in ("hanayo", "interleaved-zero-bubble"):
        return m % p == 0
    if name == "2bp-interleaved-1f1b":
        return m == p
    return name != "group-interleaved-1f1b" or has_equal_groups(m, p)


def has_peak_on_unit_times(name: str, num_ranks: int, num_microbatches: int, chunks: int) -> bool:
    p, m = num_ranks, num_microbatches
    if name == "hanayo":
        return m % p == 0 and (chunks > 2 or m == p or p == 1)
    return name not in (*GREEDY_V, "1f1b-v") or m >= 2 * p


def chunks_for(name: str) -> tuple[int, ...]:
    if name in WAVES:
        return (2, 4)
    return (2,) if name in V_SHAPED else (1, 2, 3) if name in LOOPED else (1,)


def has_equal_groups(num_microbatches: int, num_ranks: int) -> bool:
    """Whether groups as large as can be are equal and of half the ranks or more."""
    count = -(-num_microbatches // num_ranks)
    return num_microbatches % count == 0 and 2 * num_microbatches // count >= num_ranks


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("name", AS_GIVEN)
def test_closed_forms_hold_on_unit_times_and_orders_are_complete(name, num_ranks):
    stage = UNIT_CHUNK if name in V_SHAPED else UNIT
    for num_microbatches in microbatches_for(name, num_ranks):
        for chunks in chunks_for(name):
            problem = problem_for(name, num_ranks, num_microbatches, stage, chunks=chunks)
            assert_meets_closed_forms(name, problem)
            bubble, peak = BASELINES[name].bubble_ticks(problem), BASELINES[name].peak_bytes(problem)
            assert (bubble is not None) == has_bubble_on_unit_times(name, num_ranks, num_microbatches)
            assert (peak is not None) == has_peak_on_unit_times(name, num_ranks, num_microbatches, chunks)


@given(
    name=st.sampled_from(AS_GIVEN),
    num_ranks=st.integers(1, 6),
    size=st.integers(1, 14),
    chunks=st.integers(1, 3),
    ticks=st.tuples(*[st.integers(1, 40)] * 3),
    transfer=st.integers(0, 12),
    held=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    undivided=st.booleans(),
)
@settings(max_examples=400)
def test_closed_forms_hold_for_any_equal_costs(
    name, num_ranks, size, chunks, ticks, transfer, held, undivided
):
    stage = stage_of(*ticks, activation=sum(held), between=held[0], static=7)
    if not undivided:
        stage = replace(stage, BW=None)
    if name not in (*LOOPED, *WAVES):
        chunks = 1
    if name in WAVES:
        chunks *= 2
    num_microbatches = nearest_defined(name, num_ranks, size)
    problem = problem_for(name, num_ranks, num_microbatches, stage, transfer=transfer, chunks=chunks)
    assert_meets_closed_forms(name, problem)


@given(
    name=st.sampled_from(AS_GIVEN),
    data=st.data(),
)
@settings(max_examples=200)
def test_orders_never_deadlock_on_unequal_costs_and_permuted_ranks(name, data):
    num_ranks = data.draw(st.integers(1, 5))
    turn = tuple(data.draw(st.permutations(range(num_ranks))))
    chunks = data.draw(st.integers(1, 4)) if name in MULTIPLE else 1
    waves = data.draw(st.integers(1, 2)) if name in WAVES else 1
    placement = (turn + turn[::-1]) * waves if name in V_SHAPED else turn * chunks
    ticks = st.integers(1, 9)
    stages = tuple(
        stage_of(data.draw(ticks), data.draw(ticks), data.draw(ticks), activation=data.draw(ticks))
        for _ in placement
    )
    size = data.draw(st.integers(1, 9))
    problem = Problem(
        num_ranks=num_ranks,
        num_microbatches=nearest_defined(name, num_ranks, size),
        placement=Placement.explicit(placement),
        stages=stages,
        transfer_ticks=uniform_transfers(num_ranks, data.draw(st.integers(0, 20))),
        links=data.draw(st.sampled_from(Links)),
    )
    metrics = measured(name, problem)
    assert metrics.work <= metrics.rank_span <= metrics.makespan
    peak = BASELINES[name].peak_bytes(problem)
    assert peak is None or metrics.peak_memory_bytes == peak


def test_gpipe_runs_on_any_placement():
    for stage_to_rank in ((0, 0, 1, 1), (0, 1, 1, 0), (1, 0, 0, 0, 1), (0, 1, 0, 1, 1)):
        problem = Problem(
            num_ranks=2,
            num_microbatches=5,
            placement=Placement.explicit(stage_to_rank),
            stages=(UNIT,) * len(stage_to_rank),
            transfer_ticks=uniform_transfers(2, 3),
        )
        assert measured("gpipe", problem).peak_memory_bytes == BASELINES["gpipe"].peak_bytes(problem)
        assert BASELINES["gpipe"].bubble_ticks(problem) is None


# --- The published figures -----------------------------------------------------------------------------


def published_problem(name: str, row: dict, *, chunks: int = 1) -> Problem:
    """A profile of full rank shares, cut into chunks, with 1/``chunks`` µs to the tick to stay exact."""
    ticks = row["F_us"], row["B_us"], row["W_us"]
    return problem_for(
        name, row["p"], row["m"], stage_of(*ticks), transfer=chunks * row["transfer_us"], chunks=chunks
    )


@pytest.mark.parametrize("row", BUBBLES.values(), ids=BUBBLES)
@pytest.mark.parametrize(("name", "column"), [("1f1b", "1F1B"), ("zb-h1", "ZB-H1"), ("zb-h2", "ZB-H2")])
def test_zero_bubble_tables_5_and_8(name, column, row):
    problem = published_problem(name, PROFILES[row["id"]])
    metrics = measured(name, problem)
    assert metrics.rank_span - metrics.work == BASELINES[name].bubble_ticks(problem)
    assert round(metrics.bubble_ratio, 4) == row[column]


@pytest.mark.parametrize("row", BUBBLES.values(), ids=BUBBLES)
def test_interleaved_differs_from_the_tables_by_the_wrap_around_transfers(row):
    """The published script leaves out p transfers of p ranks' wrap-around (published.json, identities)."""
    profile = PROFILES[row["id"]]
    chunks = row.get("1F1B-I_chunks", 2)
    problem = published_problem("interleaved-1f1b", profile, chunks=chunks)
    metrics = measured("interleaved-1f1b", problem)
    assert metrics.rank_span - metrics.work == BASELINES["interleaved-1f1b"].bubble_ticks(problem)
    uncharged = metrics.rank_span - profile["p"] * chunks * profile["transfer_us"]
    assert round(1 - metrics.work / uncharged, 4) == row["1F1B-I"]
    charged = row.get("rerun", {}).get("1F1B-I_wraparound_charged")
    assert charged is None or round(metrics.bubble_ratio, 4) == charged


@pytest.mark.parametrize("row", PUBLISHED["table5_bubble"]["rows"], ids=lambda row: row["id"])
def test_zb_1p_column_and_first_backward_bound(row):
    problem = published_problem("zb-h1", PROFILES[row["id"]])
    for bubble, column in (
        (zb_1p_bubble_ticks(problem), "ZB-1p"),
        (
            first_backward_bound_ticks(equal_ticks(problem, divided=True), problem.num_ranks, 10**6),
            "lower_bound_at_1p",
        ),
    ):
        work = problem.work_ticks
        assert round(bubble / (work + bubble), 4) == row[column]
    assert zb_limit_bytes(problem, 2) == (4 * problem.num_ranks,) * problem.num_ranks


def test_heterogeneous_instance_of_the_released_code():
    stages = tuple(
        StageCosts(
            F=OpCost(ticks=F, alloc_bytes=alloc),
            B=OpCost(ticks=B, free_bytes=freed),
            W=OpCost(ticks=W, free_bytes=alloc - freed),
            BW=OpCost(ticks=B + W, free_bytes=alloc),
        )
        for F, B, W, alloc, freed in zip(
            *(HETERO[k] for k in ("F", "B", "W", "F_alloc", "B_free")), strict=True
        )
    )
    problem = Problem(
        num_ranks=HETERO["p"],
        num_microbatches=HETERO["m"],
        placement=Placement.explicit(list(range(8))),
        stages=stages,
        transfer_ticks=uniform_transfers(8, HETERO["transfer"]),
    )
    known = HETERO["known"]["1F1B"]
    metrics = measured("1f1b", problem)
    assert metrics.makespan == known["makespan"] == 4178092
    assert metrics.peak_memory_bytes == tuple(known["peak"]) == BASELINES["1f1b"].peak_bytes(problem)
    for name in ("zb-h1", "zb-h2"):
        assert measured(name, problem).peak_memory_bytes == BASELINES[name].peak_bytes(problem)
        assert BASELINES[name].bubble_ticks(problem) is None


# [R], set c1: makespan and rank_span bubbles and peak against 1F1B at p = 4, 8, 16, 32 with m = 4p.
RELEASED_GROUPS = {  # (v, p / g): bubbles, peak
    (2, 1): ((0.077, 0.088, 0.093, 0.096), 1.0),
    (2, 2): ((0.110, 0.120, 0.125, 0.128), 0.75),
    (4, 1): ((0.049, 0.056, 0.059, 0.060), 1.0),
    (4, 2): (None, 0.625),
}
C1 = {"ticks": (18522, 18086, 9337), "transfer": 601}


def grouped_problem(p: int, m: int, v: int, share: int) -> Problem:
    """Set c1 cut into v chunks, 1/v µs to the tick, with the memory of groups of p / share."""
    problem = problem_for(
        "group-interleaved-1f1b", p, m, stage_of(*C1["ticks"]), transfer=v * C1["transfer"], chunks=v
    )
    return problem.with_memory_limit(2 * (p // share * (v - 1) + p))


@pytest.mark.parametrize(("v", "share"), RELEASED_GROUPS)
def test_group_interleaved_as_released(v, share):
    bubbles, peak = RELEASED_GROUPS[v, share]
    for n, p in enumerate((4, 8, 16, 32)):
        problem = grouped_problem(p, 4 * p, v, share)
        metrics = measured("group-interleaved-1f1b", problem)
        assert metrics.makespan == metrics.rank_span
        assert max(metrics.peak_memory_bytes) == peak * 2 * p * v
        assert bubbles is None or round(metrics.bubble_ratio, 3) == bubbles[n]


def test_group_interleaved_with_as_many_microbatches_as_ranks_as_released():
    """[R], set c1, m = p, four chunks: makespan bubbles from 17.2 at p = 4 to 20.5 at p = 32."""
    for p, bubble in ((4, 0.172), (32, 0.205)):
        metrics = measured("group-interleaved-1f1b", grouped_problem(p, p, 4, 1))
        assert round(metrics.bubble_ratio, 3) == bubble


@pytest.mark.parametrize("num_ranks", range(1, 10))
def test_groups_never_deadlock_and_trade_memory_for_time(num_ranks):
    """Published (PipeOffload): (p-g)(v-1) more idle slots and g(v-1) + p chunks, p/2 ≤ g ≤ p."""
    p = num_ranks
    for m in range(1, 3 * p + 2):
        for v in (1, 2, 4):
            problem = problem_for("group-interleaved-1f1b", p, m, stage_of(3, 4, 2), chunks=v, transfer=1)
            spans, peaks = [], []
            for sizes in group_sizes(problem):
                assert sum(sizes) == m
                assert len(sizes) == 1 or min(sizes) >= p / 2
                limit = 2 * min(sizes[0] * (v - 1) + p, m * v)
                metrics = measured("group-interleaved-1f1b", problem.with_memory_limit(limit))
                assert max(metrics.peak_memory_bytes) <= limit
                spans.append(metrics.rank_span)
                peaks.append(max(metrics.peak_memory_bytes))
            assert spans == sorted(spans)
            assert peaks == sorted(peaks, reverse=True)
            tight = measured("group-interleaved-1f1b", problem.with_memory_limit(0))
            assert max(tight.peak_memory_bytes) == peaks[-1]


RELEASED_V = {  # (V-Half, V-Min), rank_span bubble [R]
    "zb-1.5b-p8-m24": (0.1702, 0.3353),
    "zb-1.5b-p8-m32": (0.1339, 0.3103),
    "zb-1.5b-p8-m64": (0.0737, 0.2758),
    "zb-6.2b-p8-m24": (0.1447, 0.2721),
    "zb-6.2b-p8-m32": (0.1145, 0.2496),
    "zb-6.2b-p8-m64": (0.0607, 0.2013),
    "zb-14.6b-p16-m48": (0.1682, 0.2927),
    "zb-14.6b-p16-m64": (0.1318, 0.2615),
    "zb-14.6b-p16-m128": (0.0706, 0.2085),
    "zb-28.3b-p32-m96": (0.1780, 0.3027),
    "zb-28.3b-p32-m128": (0.1398, 0.2712),
    "zbv-6.2b-p16-m48": (0.1847, 0.3300),
    "zbv-6.2b-p16-m64": (0.1453, 0.3008),
    "zbv-6.2b-p16-m128": (0.0784, 0.2512),
}


@pytest.mark.parametrize("profile", RELEASED_V)
def test_v_half_and_v_min_as_released(profile):
    for name, bubble in zip(("v-half", "v-min"), RELEASED_V[profile], strict=True):
        problem = published_problem(name, PROFILES[profile], chunks=2)
        assert round(measured(name, problem).bubble_ratio, 4) == bubble


@pytest.mark.parametrize("size", PUBLISHED["code_instances"]["repository_example_profile_E"]["bubble"])
def test_v_half_and_v_min_on_the_released_example(size):
    """Its times are one chunk's in the V columns, a whole stage's in the 1F1B column: half the model."""
    example = PUBLISHED["code_instances"]["repository_example_profile_E"]
    p, m = (int(part[1:]) for part in size.split("-"))
    ticks, transfer = (example["F"], example["B"], example["W"]), example["transfer"]
    for name, column in (("1f1b", "1F1B"), ("v-min", "V-Min"), ("v-half", "V-Half")):
        problem = problem_for(name, p, m, stage_of(*ticks), transfer=transfer)
        assert round(measured(name, problem).bubble_ratio, 3) == example["bubble"][size][column]


@pytest.mark.parametrize(
    ("p", "m", "v_min", "v_half"), [(4, 16, 0.103, 0.050), (8, 24, 0.158, 0.106), (16, 48, 0.170, 0.125)]
)
def test_v_half_and_v_min_on_unit_times_as_released(p, m, v_min, v_half):
    for name, bubble in (("v-min", v_min), ("v-half", v_half), ("v-zb", 0.0)):
        problem = problem_for(name, p, m, UNIT_CHUNK)
        assert abs(measured(name, problem).bubble_ratio - bubble) <= 0.00051


def test_v_peaks_against_1f1b():
    """[R]: V-Half .75/.625/.5625/.53125 and V-Min .5/.5/.375/.375 of 1F1B's 2p chunks at p = 4, 8, 16, 32."""
    halves, thirds = [], []
    for p in (4, 8, 16, 32):
        for name, shares in (("v-half", halves), ("v-min", thirds)):
            problem = problem_for(name, p, 2 * p, UNIT_CHUNK)
            peaks = peak_memory_bytes(problem, baseline_orders(name, problem))
            assert peaks == BASELINES[name].peak_bytes(problem)
            shares.append(max(peaks) / (2 * p))
    assert halves == [0.75, 0.625, 0.5625, 0.53125]
    assert thirds == [0.5, 0.5, 0.375, 0.375]


# [R], set c1, m = 4p: bubble (the same for both objectives) and peak against 1F1B at p = 4, 8, 16, 32.
RELEASED_1F1B_V = {4: (0.261, 0.75), 8: (0.271, 0.75), 16: (0.301, 0.69), 32: (0.305, 0.69)}


@pytest.mark.parametrize("num_ranks", RELEASED_1F1B_V)
def test_1f1b_v_as_released(num_ranks):
    stage = stage_of(*C1["ticks"], activation=1, between=0)
    problem = problem_for("1f1b-v", num_ranks, 4 * num_ranks, stage, transfer=2 * C1["transfer"])
    metrics = measured("1f1b-v", problem)
    assert metrics.makespan == metrics.rank_span
    bubble, share = RELEASED_1F1B_V[num_ranks]
    assert abs(metrics.bubble_ratio - bubble) < 0.0006  # .30548 is printed as 30.5 %
    assert round(max(metrics.peak_memory_bytes) / (2 * num_ranks), 2) == share


def test_1f1b_v_block_fills_its_period_and_never_meets_itself():
    stage = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    for p in range(1, 25):
        problem = uniform_problem(p, 1, stage, chunks=2, kind=PlacementKind.V)
        assert not block_violations(one_f_one_b_v_block(p), problem)
        assert problem.work_ticks == one_f_one_b_v_block(p).period_ticks


def test_hanayo_hides_more_with_every_wave():
    """Published: the bubble shrinks with every wave. Here it is 28 slots: of 76 with one, of 124 with two."""
    shares = []
    for chunks in (2, 4, 8):
        problem = problem_for("hanayo", 8, 8, stage_of(1, 1, 1), chunks=chunks)
        shares.append(measured("hanayo", problem).bubble_ratio)
    one_f_one_b = measured("1f1b", problem_for("1f1b", 8, 8, UNIT)).bubble_ratio
    assert [one_f_one_b, *shares] == sorted([one_f_one_b, *shares], reverse=True)
    assert [round(share, 3) for share in shares] == [0.368, 0.226, 0.127]


def test_two_bp_runs_as_the_released_code_does():
    """2BP's training loop for four ranks: p - r forwards, B and F in turn, then B and W, then the other W."""
    problem = uniform_problem(4, 6, UNIT)
    for rank, order in enumerate(baseline_orders("2bp-1f1b", problem)):
        ahead = 4 - rank
        kinds = "F" * ahead + "BF" * (6 - ahead) + "BW" * ahead + "W" * (6 - ahead)
        assert "".join(op.kind for op in order) == kinds
        for kind in OpKind:
            microbatches = [op.microbatch for op in order if op.kind is kind]
            assert microbatches == sorted(microbatches)
    for order in baseline_orders("2bp-gpipe", problem):
        assert "".join(op.kind for op in order) == "F" * 6 + "B" * 6 + "W" * 6


def test_one_chunk_makes_known_schedules_of_the_interleaved_ones():
    problem = uniform_problem(4, 8, UNIT)
    assert baseline_orders("interleaved-zero-bubble", problem) == baseline_orders("zb-h1", problem)
    forwards, backwards = zip(
        *(split_by_f(order) for order in baseline_orders("looped-bfs", problem)), strict=True
    )
    in_gpipe = [split_by_f(order) for order in baseline_orders("gpipe", problem)]
    assert list(zip(forwards, (b[::-1] for b in backwards), strict=True)) == in_gpipe


def split_by_f(order):
    return [op for op in order if op.kind is OpKind.F], [op for op in order if op.kind is not OpKind.F]


def test_v_zb_has_no_bubble_at_the_memory_of_1f1b():
    for p in RANKS:
        for m in (2 * p, 2 * p + 1, 3 * p + 2):
            metrics = measured("v-zb", problem_for("v-zb", p, m, UNIT_CHUNK))
            assert metrics.rank_span == 6 * m
            assert metrics.peak_memory_bytes == (2 * p,) * p


# --- The blocks and the smaller closed forms ------------------------------------------------------------


@pytest.mark.parametrize("block_of", [v_min_block, v_half_block, v_zb_block])
def test_block_residues_never_meet_and_chains_ascend(block_of):
    for p in range(1, 25):
        block = block_of(p)
        starts = block.start_ticks
        for rank in range(p):
            slots = {start % 6 for (_, stage), start in starts.items() if stage in (rank, 2 * p - 1 - rank)}
            assert len(slots) == 4
        chain = [starts["F", s] for s in range(2 * p)] + [starts["B", s] for s in reversed(range(2 * p))]
        assert all(a < b for a, b in pairwise(chain))


@pytest.mark.parametrize("num_ranks", range(1, 9))
def test_v_orders_repeat_their_middle(num_ranks):
    """Orders of many microbatches are those of few, lengthened: as if all had been tightened."""
    few = FEW_PER_RANK * num_ranks
    for more in (1, 3, 2 * num_ranks):
        for block in (v_min_block(num_ranks), v_half_block(num_ranks), v_zb_block(num_ranks)):
            longer = lengthened(_tightened_orders(block, num_ranks, few), more, 6)
            assert longer == _tightened_orders(block, num_ranks, few + more)
        block = one_f_one_b_v_block(num_ranks)
        longer = lengthened(_all_moved_up(block, num_ranks, few), more, 4)
        assert longer == _all_moved_up(block, num_ranks, few + more)


def test_what_is_no_repetition_is_not_lengthened():
    problem = uniform_problem(2, 4, StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2)))
    assert lengthened(baseline_orders("gpipe", problem), 1, 2) is None


@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 24), st.booleans(), st.data())
def test_peaks_in_groups_are_those_of_their_orders(num_ranks, chunks, num_microbatches, divided, data):
    sizes = st.integers(0, 9)
    stages = []
    for _ in range(num_ranks * chunks):
        at_b, at_w, static = (data.draw(sizes) for _ in range(3))
        whole = OpCost(ticks=3, free_bytes=at_b + at_w)
        backward = (
            {"B": OpCost(ticks=2, alloc_bytes=1, free_bytes=at_b + 1), "W": OpCost(ticks=1, free_bytes=at_w)}
            if divided
            else {"BW": whole}
        )
        forward = OpCost(ticks=1, alloc_bytes=at_b + at_w)
        stages.append(StageCosts(F=forward, static_bytes=static, **backward))
    problem = replace(
        uniform_problem(num_ranks, num_microbatches, stages[0], chunks=chunks), stages=tuple(stages)
    )
    for group in group_sizes(problem):
        turn = tuple(range(num_ranks))
        peaks = peak_memory_bytes(problem, _orders(problem, turn, group))
        assert _peaks_in_groups(problem, turn, group) == peaks


def test_v_zb_lifespan_is_at_most_that_of_table_1():
    for p in range(1, 25):
        starts = v_zb_block(p).start_ticks
        # W of rank 0 stands in the idle residues 4 and 5, at most two slots behind B.
        assert max(starts["B", s] - starts["F", s] + 1 + 2 for s in range(2 * p)) <= 12 * p - 2


def test_closed_forms_of_the_searched_schedules():
    unit = EqualTicks(F=1, B=1, W=1, transfer=0)
    for p in (2, 4, 8):
        for m in range(1, p + 1):
            metrics = measured("zb-h1", problem_for("zb-h1", p, m, UNIT))
            assert metrics.rank_span == few_microbatches_ticks(unit, p, m)
        assert first_backward_bound_ticks(unit, p, 1) == 2 * (p - 1)
        assert flat_from_microbatches(unit, p) == 2 * p - 1
        assert flat_from_microbatches(unit, p, zero=True) == 3 * p - 2


# --- Where a baseline is not defined --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem", "message"),
    [
        (
            "1f1b",
            uniform_problem(2, 4, UNIT, chunks=2),
            r"1f1b is not defined here: 4 stages on 2 ranks; it needs one stage on every rank: "
            r"merge the stages to 2, or use interleaved-1f1b or a v- schedule",
        ),
        ("zb-h1", uniform_problem(2, 4, UNIT, chunks=2), r"zb-h1 .* 4 stages on 2 ranks"),
        (
            "zb-h2",
            uniform_problem(2, 4, replace(UNIT, B=None, W=None)),
            r"zb-h2 .* stages\[0\] offers BW only",
        ),
        (
            "interleaved-1f1b",
            uniform_problem(4, 6, UNIT, chunks=2),
            r"6 microbatches on 4 ranks; it runs them in groups of 4: use 4 or 8 microbatches",
        ),
        (
            "interleaved-1f1b",
            uniform_problem(4, 3, UNIT, chunks=2),
            r"in groups of 4: use 4 microbatches",
        ),
        (
            "interleaved-1f1b",
            uniform_problem(2, 4, UNIT, chunks=2, kind=PlacementKind.V),
            r"stage_to_rank is \[0, 1, 1, 0\]; it needs loop placement",
        ),
        (
            "group-interleaved-1f1b",
            uniform_problem(2, 4, UNIT, chunks=2, kind=PlacementKind.V),
            r"group-interleaved-1f1b .* it needs loop placement",
        ),
        (
            "v-half",
            uniform_problem(2, 4, UNIT, chunks=2),
            r'stage_to_rank is \[0, 1, 0, 1\]; it needs v placement.* give \{"kind": "v"\} with 4 stages',
        ),
        ("v-min", uniform_problem(4, 4, UNIT), r"it needs v placement"),
        ("1f1b-v", uniform_problem(4, 4, UNIT), r"1f1b-v .* it needs v placement"),
        (
            "hanayo",
            uniform_problem(2, 4, UNIT, chunks=3, kind=PlacementKind.WAVE),
            r"stage_to_rank is \[0, 1, 1, 0, 0, 1\]; it needs wave placement, an even number of stages per "
            r'rank.* give \{"kind": "wave"\} with a multiple of 4 stages',
        ),
        (
            "dualpipe-v",
            uniform_problem(2, 3, UNIT, chunks=2, kind=PlacementKind.V),
            r"3 microbatches with 4 stages; it needs as many microbatches as stages: use 4 or more",
        ),
        (
            "interleaved-zero-bubble",
            uniform_problem(2, 7, UNIT, chunks=2),
            r"7 microbatches on 2 ranks; it runs them in 3 groups of one size: use 6 microbatches, or any "
            r"multiple of 2",
        ),
        ("looped-bfs", uniform_problem(2, 4, UNIT, chunks=2, kind=PlacementKind.V), r"needs loop placement"),
        ("2bp-gpipe", uniform_problem(2, 4, replace(UNIT, B=None, W=None)), r"2bp-gpipe .* offers BW only"),
        ("pipedream", uniform_problem(2, 4, UNIT, chunks=2), r"pipedream .* 4 stages on 2 ranks"),
        ("pipedream-2bw", uniform_problem(2, 4, UNIT, chunks=2), r"pipedream-2bw .* 4 stages on 2 ranks"),
        ("2bp-1f1b", uniform_problem(2, 4, UNIT, chunks=2), r"2bp-1f1b .* 4 stages on 2 ranks"),
        (
            "2bp-interleaved-1f1b",
            uniform_problem(4, 6, UNIT, chunks=2),
            r"2bp-interleaved-1f1b .* 6 microbatches on 4 ranks; it runs them in groups of 4",
        ),
        (
            "v-zb",
            uniform_problem(2, 4, replace(UNIT, B=None, W=None), chunks=2, kind=PlacementKind.V),
            r"it divides every backward: give B and W for every stage",
        ),
    ],
)
def test_undefined_baselines_say_why(name, problem, message):
    with pytest.raises(BaselineUndefinedError, match=message):
        baseline_orders(name, problem)
    for closed_form in (BASELINES[name].bubble_ticks, BASELINES[name].peak_bytes):
        with pytest.raises(BaselineUndefinedError, match=message):
            closed_form(problem)


def test_unknown_names_list_near_ones():
    problem = uniform_problem(2, 2, UNIT)
    with pytest.raises(InputError, match=r"'1f1p' is no baseline: use 1f1b"):
        baseline_orders("1f1p", problem)
    with pytest.raises(
        InputError, match=r"'fastest' is no baseline: use gpipe or looped-bfs or 2bp-gpipe or 1f1b"
    ):
        baseline_orders("fastest", problem)


def test_closed_forms_are_silent_outside_their_domain():
    unequal = Problem(
        num_ranks=2,
        num_microbatches=4,
        placement=Placement.explicit([0, 1]),
        stages=(UNIT, stage_of(2, 2, 2)),
        transfer_ticks=uniform_transfers(2, 0),
    )
    keeps_gradients = replace(
        UNIT, B=OpCost(ticks=1, alloc_bytes=1, free_bytes=1), W=OpCost(ticks=1, free_bytes=2)
    )
    for name in CHAINS:
        assert BASELINES[name].bubble_ticks(unequal) is None
        assert BASELINES[name].peak_bytes(uniform_problem(2, 4, keeps_gradients)) is None
        exclusive = replace(uniform_problem(2, 4, UNIT, transfer_ticks=1), links=Links.EXCLUSIVE)
        assert BASELINES[name].bubble_ticks(exclusive) is None
    assert BASELINES["zb-h1"].bubble_ticks(uniform_problem(2, 4, stage_of(1, 3, 2))) is None
    assert BASELINES["zb-h2"].bubble_ticks(uniform_problem(2, 4, stage_of(3, 1, 2))) is None


@pytest.mark.parametrize("size", [2, 3, 4])
def test_groups_may_have_a_given_size(size):
    problem = uniform_problem(4, 12, UNIT, chunks=2)
    schedule = schedule_orders(problem, in_groups_of(problem, size))
    assert not verify_schedule(schedule)
    assert measure(schedule).peak_memory_bytes[0] == (size + 4) * UNIT.F.alloc_bytes


def test_groups_of_an_impossible_size_are_refused():
    with pytest.raises(BaselineUndefinedError, match="12 microbatches go into groups of 2, 3, 4, not 5"):
        in_groups_of(uniform_problem(4, 12, UNIT, chunks=2), 5)
