"""Baselines that make another problem of a plain chain: directions, sequence slices, stages that evict."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.baselines import BASELINES, baseline_orders, baseline_problem, baseline_schedule, cut_sequences
from synth.baselines.balanced_memory import bpipe_problem
from synth.baselines.pieces import piece_of
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, read_schedule, write_schedule
from synth.errors import BaselineUndefinedError, InputError
from synth.feed import Feed
from synth.flows import Direction, with_directions
from synth.ops import OpKind
from synth.placement import Placement
from synth.problem import (
    Links,
    Objective,
    OpCost,
    Problem,
    StageCosts,
    uniform_problem,
    uniform_transfers,
)
from synth.schedule import measure
from synth.timing import schedule_orders
from synth.verify import verify_schedule
from tests.strategies import stage_costs

RESHAPING = tuple(name for name, baseline in BASELINES.items() if baseline.reshape is not None)
DIRECTED = ("chimera", "chimera-asymmetric", "dualpipe")
EVEN_RANKS = (2, 4, 6, 8)
TICKS = ((12, 12, 12), (12, 8, 4), (36, 12, 12), (12, 36, 36))
"""F, B and W, all of which make three thirds and four slices."""


def stage_of(F, B, W, *, activation=12, between=4, static=7):
    """A stage that holds ``activation`` bytes from F and ``between`` from B to W, and offers BW too."""
    return StageCosts(
        F=OpCost(ticks=F, alloc_bytes=activation),
        B=OpCost(ticks=B, free_bytes=activation - between),
        W=OpCost(ticks=W, free_bytes=between),
        BW=OpCost(ticks=B + W, free_bytes=activation),
        static_bytes=static,
    )


STAGE = stage_of(12, 8, 4)


def chain(num_ranks, num_microbatches, stage=STAGE, **more):
    return uniform_problem(num_ranks, num_microbatches, stage, objective=Objective.RANK_SPAN, **more)


def sizes_for(name):
    """Ranks and microbatches on which the baseline exists."""
    for p in EVEN_RANKS if name in DIRECTED else (1, 2, 3, 4, 5, 8):
        numbers = {2, p, p + 2, 2 * p, 3 * p}
        if name == "dualpipe":
            numbers = {2 * p, 2 * p + 2, 3 * p}
        elif name not in DIRECTED:
            numbers = {1, p, p + 1, 2 * p}
        yield from ((p, m) for m in sorted(numbers) if m % 2 == 0 or name not in DIRECTED)


def measured(schedule):
    """What a schedule achieves, once no rule is broken."""
    metrics = measure(schedule)
    assert verify_schedule(schedule, metrics=metrics) == []
    return metrics


@pytest.mark.parametrize("name", RESHAPING)
def test_closed_forms_hold(name):
    """Over ranks, microbatches, costs and transfers, both where they are given and where they are silent."""
    bubbles = 0
    for (p, m), ticks, transfer in product(sizes_for(name), TICKS, (0, 1)):
        schedule = baseline_schedule(name, chain(p, m, stage_of(*ticks), transfer_ticks=transfer))
        metrics = measured(schedule)
        bubble = BASELINES[name].bubble_ticks(schedule.problem)
        assert metrics.peak_memory_bytes == BASELINES[name].peak_bytes(schedule.problem)
        if bubble is not None:
            assert metrics.rank_span - metrics.work == bubble, (p, m, ticks, transfer)
            bubbles += 1
    assert bubbles >= 30


@st.composite
def chains(draw, name):
    """A chain of one stage per rank with costs of its own each, on which the baseline exists."""
    num_ranks = draw(st.integers(1, 3)) * (2 if name in DIRECTED else 1) + (name == "bpipe") * 3
    num_microbatches = draw(st.integers(1, 6)) * (2 if name in DIRECTED else 1)
    costs = stage_costs()
    if name == "dualpipe":
        num_microbatches += 2 * num_ranks
        costs = costs.filter(lambda stage: stage.can_divide)
    if name == "seq1f1b":
        costs = costs.map(lambda stage: stage.map_costs(lambda _, cost: replace(cost, ticks=3 + cost.ticks)))
    if draw(st.booleans()):
        summed = OpCost(ticks=draw(st.integers(1, 5)))
        costs = costs.map(lambda stage: replace(stage, R=summed))
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=num_microbatches,
        placement=Placement.explicit(draw(st.permutations(range(num_ranks)))),
        stages=tuple(draw(costs) for _ in range(num_ranks)),
        transfer_ticks=uniform_transfers(num_ranks, draw(st.integers(0, 20))),
        links=draw(st.sampled_from(Links)),
    )


@pytest.mark.parametrize("name", RESHAPING)
@given(data=st.data())
@settings(max_examples=40)
def test_schedules_are_valid_on_any_costs(name, data):
    problem = data.draw(chains(name))
    schedule = baseline_schedule(name, problem)
    metrics = measured(schedule)
    peak = BASELINES[name].peak_bytes(schedule.problem)
    assert peak is None or metrics.peak_memory_bytes == peak
    kept = [costs.R is not None for costs in schedule.problem.stages]
    assert any(kept) == (problem.stages[0].R is not None)


@pytest.mark.parametrize("name", RESHAPING)
def test_what_is_made_of_a_chain_stays_as_it_is(name):
    problem = chain(6, 12)
    reshaped = baseline_problem(name, problem)
    assert reshaped != problem
    assert baseline_problem(name, reshaped) is reshaped
    assert schedule_orders(reshaped, baseline_orders(name, reshaped)) == baseline_schedule(name, problem)
    with pytest.raises(BaselineUndefinedError, match=f"{name} .* it schedules another problem: "):
        baseline_orders(name, problem)


@pytest.mark.parametrize("name", RESHAPING)
def test_documents_bring_back_the_schedule(name):
    schedule = baseline_schedule(name, chain(4, 8))
    certificate = Certificate(
        objective=Objective.RANK_SPAN,
        value=schedule.value,
        lower_bound=schedule.problem.work_ticks,
        bound_from="period",
    )
    provenance = Provenance(method=name, created="2026-01-01T00:00:00+00:00", tool_version="0")
    written = write_schedule(ScheduleDocument.of(schedule, certificate, provenance))
    assert read_schedule(written).schedule == schedule


def test_no_other_baseline_takes_directions_or_slices():
    for made in ("chimera", "seq1f1b", "bpipe"):
        problem = baseline_problem(made, chain(4, 8))
        taken = {name for name in BASELINES if _takes(name, problem)}
        assert taken == (set(DIRECTED) if made == "chimera" else {made})


def _takes(name, problem):
    try:
        baseline_orders(name, problem)
    except BaselineUndefinedError:
        return False
    return True


def test_gradients_are_summed_behind_everything_else():
    """On a plain chain too, whose stages may be replicated elsewhere."""
    problem = chain(4, 8, replace(STAGE, R=OpCost(ticks=5)))
    for name in ("1f1b", *RESHAPING):
        schedule = baseline_schedule(name, problem)
        measured(schedule)
        assert BASELINES[name].bubble_ticks(schedule.problem) is None
        for order in schedule.orders:
            kinds = [op.kind for op in order]
            first = kinds.index(OpKind.R)
            assert set(kinds[first:]) == {OpKind.R}
            assert len(kinds[first:]) == (2 if name in DIRECTED else 1)


# --- Two directions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_ranks", EVEN_RANKS)
@pytest.mark.parametrize("units", [1, 2, 5])
def test_chimera_has_the_published_ratios(num_ranks, units):
    """(D-2)/(2N+D-2) for BW = F; for BW = 2F and one unit (D-2)/(3N/2+D-2); D/2+1 to D activations."""
    p, m = num_ranks, units * num_ranks
    even = measured(baseline_schedule("chimera", chain(p, m, stage_of(2, 1, 1))))
    assert even.bubble_ratio == pytest.approx((p - 2) / (2 * m + p - 2))
    if units == 1:
        double = measured(baseline_schedule("chimera", chain(p, m, stage_of(1, 1, 1))))
        assert double.bubble_ratio == pytest.approx((p - 2) / (3 * m / 2 + p - 2))
    held = [(peak - 14) / 12 for peak in even.peak_memory_bytes]
    assert (min(held), max(held)) == (p / 2 + 1, p)


def test_directions_hold_the_weights_twice():
    for name in ("chimera", "dualpipe"):
        assert baseline_problem(name, chain(4, 8)).static_bytes_by_rank == (14,) * 4
    uneven = baseline_problem("chimera-asymmetric", chain(4, 8, stage_of(12, 8, 4, static=6)))
    assert uneven.static_bytes_by_rank == (12,) * 4
    assert [costs.static_bytes for costs in uneven.stages] == [4, 4, 8, 8] * 2


@pytest.mark.parametrize("num_ranks", EVEN_RANKS)
def test_the_asymmetric_cut_leaves_the_highest_peak_and_every_ranks_work(num_ranks):
    """As Barley et al. find, it does not lower the global peak; without transfers it is no faster either."""
    for units, ticks in product((1, 2, 4), TICKS):
        problem = chain(num_ranks, units * num_ranks, stage_of(*ticks, static=0))
        usual, uneven = (baseline_schedule(name, problem) for name in ("chimera", "chimera-asymmetric"))
        assert uneven.problem.work_ticks_by_rank == usual.problem.work_ticks_by_rank
        before, after = measured(usual), measured(uneven)
        assert max(after.peak_memory_bytes) == max(before.peak_memory_bytes)
        assert after.rank_span >= before.rank_span


def test_directions_may_carry_any_half():
    problem = chain(4, 8)
    ranks = problem.stage_to_rank
    halves = (0, 2, 4, 6), (1, 3, 5, 7)
    directions = [Direction(ranks, halves[0]), Direction(ranks[::-1], halves[1])]
    given_flow = with_directions(problem, directions)
    for name in ("chimera", "dualpipe"):
        mine = measured(baseline_schedule(name, given_flow))
        assert mine == measured(baseline_schedule(name, problem))


def test_chimera_is_ahead_of_1f1b_with_few_microbatches_only():
    """For BW = 2F every unit but the last leaves (p-2)F idle: as Barley et al. find, too, it pays early."""
    ahead = []
    for units in (1, 2, 3, 4):
        problem = chain(8, 8 * units, stage_of(12, 12, 12))
        chimera, flushed = (measured(baseline_schedule(name, problem)) for name in ("chimera", "1f1b"))
        ahead.append(chimera.rank_span < flushed.rank_span)
    assert ahead == [True, True, False, False]


def test_dualpipe_is_faster_than_chimera_and_holds_one_microbatch_more():
    problem = chain(8, 16, stage_of(12, 12, 12, static=0))
    one_f_one_b, chimera, dualpipe = (
        measured(baseline_schedule(name, problem)) for name in ("1f1b", "chimera", "dualpipe")
    )
    assert dualpipe.rank_span < chimera.rank_span < one_f_one_b.rank_span
    assert dualpipe.peak_memory_bytes == (9 * 12,) * 8


# --- BPipe ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_ranks", range(1, 12))
def test_bpipe_holds_the_cap_and_ends_little_later_than_1f1b(num_ranks):
    p = num_ranks
    cap = -(-(p + 2) // 2)
    for m, ticks in product((1, cap, p, 2 * p, 3 * p + 1), TICKS[:3]):
        problem = chain(p, m, stage_of(*ticks, static=0))
        schedule, flushed = (baseline_schedule(name, problem) for name in ("bpipe", "1f1b"))
        metrics, usual = measured(schedule), measured(flushed)
        held = [peak / 12 for peak in metrics.peak_memory_bytes]
        assert max(held) == min(p, m, cap)
        if p % 2 == 0 and m >= p:  # all but the ranks in the middle are full
            assert held == [cap] * (p // 2 - 1) + [min(p, cap), min(p // 2, p)] + [cap] * (p // 2 - 1)
        evictions = sum(order.kind is OpKind.F for order in _storage_ops(schedule))
        assert evictions == 0 or m > cap
        assert usual.makespan <= metrics.makespan <= usual.makespan + 2 * evictions


def _storage_ops(schedule):
    """The ops that take activations in and hand them back: those a tick long."""
    ticks = {stage: costs.F.ticks for stage, costs in enumerate(schedule.problem.stages)}
    return [op for order in schedule.orders for op in order if ticks[op.stage] == 1]


def test_evicted_activations_are_stored_while_they_are_away():
    schedule = baseline_schedule("bpipe", chain(8, 16))
    problem = schedule.problem
    assert problem.static_bytes_by_rank == (7,) * 8
    begins = {timed.op: timed for rank in schedule.ranks for timed in rank}
    stored = {op for op in _storage_ops(schedule) if op.kind is OpKind.F}
    assert stored
    for op in stored:
        taken, handed_back = begins[op], begins[op._replace(kind=OpKind.BW)]
        (evicted,) = problem.inputs_by_stage[op.stage]
        assert begins[op._replace(stage=evicted)].end <= taken.start < handed_back.start
        assert handed_back.end <= begins[op._replace(stage=evicted, kind=OpKind.BW)].start
        assert problem.stage_to_rank[op.stage] == 7 - problem.stage_to_rank[evicted]


def test_with_few_ranks_or_microbatches_nothing_is_evicted():
    for problem in (chain(3, 9), chain(8, 5)):
        assert baseline_problem("bpipe", problem) is problem
        assert baseline_orders("bpipe", problem) == baseline_orders("1f1b", problem)


# --- Seq1F1B -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_seq1f1b_divides_bubble_and_memory(slices):
    """(p-1)(F+BW)/k and (k+p-1)/k activations; one slice is 1F1B."""
    for p, m in product((1, 2, 4, 7), (1, 3, 8)):
        problem = chain(p, m, stage_of(24, 24, 12, static=0))
        metrics = measured(baseline_schedule("seq1f1b", cut_sequences(problem, slices)))
        assert metrics.work == m * 60
        assert metrics.rank_span - metrics.work == (p - 1) * 60 // slices
        assert max(metrics.peak_memory_bytes) == 12 * min(slices + p - 1, m * slices) // slices
        if slices == 1:
            assert metrics == measured(baseline_schedule("1f1b", problem))


def most_bytes(costs):
    """What a microbatch holds at most in a stage, whichever way its backward goes."""
    return costs.F.alloc_bytes + (costs.B.alloc_bytes if costs.B is not None else 0)


@given(
    costs=stage_costs(max_ticks=2000),
    slices=st.integers(1, 6),
    attention=st.fractions(0, 1, max_denominator=50),
    balanced=st.booleans(),
)
@settings(max_examples=60)
def test_slices_take_what_the_stage_takes(costs, slices, attention, balanced):
    costs = costs.map_costs(lambda _, cost: replace(cost, ticks=100 + cost.ticks))
    problem = cut_sequences(chain(1, 2, costs), slices, attention, balanced=balanced)
    for kind, whole in costs.offered:
        parts = [stage.cost(kind) for stage in problem.stages]
        # An op lasts a tick at least, which the last of many short W, or the first of B, may not.
        assert abs(sum(part.ticks for part in parts) - whole.ticks) <= slices
    assert sum(map(most_bytes, problem.stages)) == most_bytes(costs)
    for stage in problem.stages:
        for way in ((stage.F, stage.B, stage.W), (stage.F, stage.BW)):
            if None not in way:
                assert sum(cost.alloc_bytes - cost.free_bytes for cost in way) == 0
    whole_ticks = [stage.F.ticks + stage.least_backward_ticks for stage in problem.stages]
    if balanced and costs.must_divide is False and costs.can_divide is False:
        assert max(whole_ticks) - min(whole_ticks) <= 4
    assert sum(problem.static_bytes_by_rank) == costs.static_bytes


def test_balanced_slices_are_equal_in_time_and_shorter_in_the_end():
    """With a fifth of the time in attention; F 250 each, tokens from a third of the quadratic equation."""
    stage = stage_of(1000, 1200, 800, activation=1000, between=0)
    balanced = cut_sequences(chain(2, 4, stage), 4, Fraction(1, 5)).stages[:4]
    assert [costs.F.ticks for costs in balanced] == [250] * 4
    assert [costs.B.ticks + costs.W.ticks for costs in balanced] == [500] * 4
    held = [costs.F.alloc_bytes for costs in balanced]
    assert held == sorted(held, reverse=True)
    reached = 0
    for number, costs in enumerate(balanced, start=1):
        reached += costs.F.alloc_bytes / 1000
        assert 0.8 * reached + 0.2 * reached**2 == pytest.approx(number / 4, abs=1e-3)
    long = cut_sequences(chain(2, 4, stage), 4, Fraction(1, 5), balanced=False).stages[:4]
    assert [costs.F.alloc_bytes for costs in long] == [250] * 4
    assert [costs.W.ticks for costs in long] == [200] * 4
    assert [costs.F.ticks for costs in long] == [212, 238, 262, 288]


def test_balanced_slices_are_faster_than_equally_long_ones():
    problem = chain(8, 8, stage_of(10_000, 10_000, 10_000))
    balanced, long = (
        measured(baseline_schedule("seq1f1b", cut_sequences(problem, 4, Fraction(1, 2), balanced=way)))
        for way in (True, False)
    )
    assert balanced.rank_span < long.rank_span


def test_backwards_of_slices_come_the_other_way_round():
    orders = baseline_orders("seq1f1b", cut_sequences(chain(2, 3), 4))
    for order in orders:
        stages = {kind: [op.stage % 4 for op in order if op.kind is kind] for kind in (OpKind.F, OpKind.BW)}
        assert stages == {OpKind.F: [0, 1, 2, 3] * 3, OpKind.BW: [3, 2, 1, 0] * 3}


@given(stage_costs(max_ticks=50), st.fractions(0, 1), st.fractions(0, 1))
def test_pieces_side_by_side_are_the_stage(costs, first, second):
    costs = replace(costs, layers=tuple("abcdefg"), weight_bytes=costs.static_bytes)
    begin, end = sorted((first, second))
    pieces = [piece_of(costs, *span) for span in ((Fraction(0), begin), (begin, end), (end, Fraction(1)))]
    assert sum((piece.layers for piece in pieces), ()) == costs.layers
    for what in ("static_bytes", "weight_bytes"):
        assert sum(getattr(piece, what) for piece in pieces) == getattr(costs, what)
    for kind, whole in costs.offered:
        ticks = sum(piece.cost(kind).ticks for piece in pieces)
        assert whole.ticks <= ticks <= whole.ticks + 2


# --- Where they are not defined ------------------------------------------------------------------------


TWO_WAYS = baseline_problem("chimera", chain(4, 8))
MOVED = replace(TWO_WAYS, placement=Placement.explicit((0, 1, 2, 3, 3, 2, 0, 1)))
LOPSIDED = with_directions(
    chain(4, 8), [Direction((0, 1, 2, 3), (0, 1, 2)), Direction((3, 2, 1, 0), (3, 4, 5, 6, 7))]
)
SHARED = replace(
    TWO_WAYS, feeds=tuple(replace(feed, microbatches=tuple(range(8))) for feed in TWO_WAYS.feeds)
)
ONE_RANK_TWICE = replace(
    chain(2, 4),
    stages=(STAGE,) * 2,
    feeds=(
        Feed(inputs=(), microbatches=(0, 1, 2, 3), model_stage=0),
        Feed(inputs=(), microbatches=(0, 1, 2, 3), model_stage=1),
    ),
)


@pytest.mark.parametrize(
    ("name", "problem", "message"),
    [
        ("chimera", chain(3, 6), "3 ranks; half of its work runs against the other half: use 2 or 4 ranks"),
        ("chimera", chain(1, 6), "1 ranks; half .* use 2 ranks"),
        ("chimera-asymmetric", chain(4, 7), "7 microbatches; .* use 6 or 8 microbatches"),
        ("chimera", chain(2, 4, chunks=2), "4 stages on 2 ranks; it needs one stage on every rank"),
        ("chimera-asymmetric", chain(2, 4, chunks=2), "4 stages on 2 ranks"),
        ("chimera", MOVED, "the 8 stages are no two opposite pipelines with half of the microbatches each"),
        ("dualpipe", LOPSIDED, "no two opposite pipelines"),
        ("chimera-asymmetric", SHARED, "no two opposite pipelines"),
        ("chimera", ONE_RANK_TWICE, "the 2 stages are no two opposite pipelines"),
        (
            "dualpipe",
            chain(4, 6),
            "6 microbatches on 4 ranks; it needs twice as many as ranks: use 8 or more",
        ),
        ("dualpipe", chain(4, 8, replace(STAGE, B=None, W=None)), "offers BW only"),
        ("bpipe", chain(2, 4, chunks=2), "4 stages on 2 ranks"),
        ("bpipe", TWO_WAYS, "the 8 stages are not those of a chain whose first ranks evict activations"),
        ("bpipe", ONE_RANK_TWICE, "not those of a chain"),
        ("seq1f1b", chain(2, 4, chunks=2), "4 stages on 2 ranks"),
        ("seq1f1b", chain(2, 4, stage_of(12, 12, 3)), r"stages\[0\].W takes 3 ticks, too few for 4 slices"),
        ("seq1f1b", TWO_WAYS, "the 8 stages are no slices of one chain with one stage per rank"),
        ("seq1f1b", ONE_RANK_TWICE, "the 2 stages are no slices of one chain"),
        ("1f1b", TWO_WAYS, "no plain chain, but directions or slices"),
        ("pipedream", TWO_WAYS, "no plain chain, but directions or slices"),
        ("1f1b", bpipe_problem(chain(4, 8)), "the stages are no plain chain$"),
    ],
)
def test_undefined_baselines_say_why(name, problem, message):
    with pytest.raises(BaselineUndefinedError, match=message):
        baseline_schedule(name, problem)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": 0}, "the number of slices is 0: give an integer ≥ 1"),
        ({"attention_share": Fraction(-1, 3)}, "the share of attention is -1/3: give a number from 0 to 1"),
        ({"attention_share": Fraction(4, 3)}, "the share of attention is 4/3"),
    ],
)
def test_cuts_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        cut_sequences(chain(2, 4), **options)


def test_slices_are_not_cut_again():
    with pytest.raises(BaselineUndefinedError, match="no plain chain, which alone can be cut"):
        cut_sequences(cut_sequences(chain(2, 4), 2), 2)


def test_closed_forms_are_silent_outside_their_domain():
    for name in RESHAPING:
        unequal = replace(chain(4, 8), stages=(STAGE, *[stage_of(24, 12, 8)] * 3))
        assert BASELINES[name].bubble_ticks(baseline_problem(name, unequal)) is None
        gradients = replace(
            STAGE,
            B=OpCost(ticks=8, alloc_bytes=4, free_bytes=4),
            W=OpCost(ticks=4, free_bytes=12),
        )
        assert BASELINES[name].peak_bytes(baseline_problem(name, chain(4, 8, gradients))) is None
