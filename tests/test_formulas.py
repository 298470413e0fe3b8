"""Closed formulas: as written, as computed and as measured are the same, wherever they are said to hold."""

from itertools import product
from math import ceil, floor

import pytest

from synth.baselines import BASELINES, baseline_problem, baseline_schedule, cut_sequences
from synth.errors import BaselineUndefinedError, InputError
from synth.formulas import FORMULAS, Setting
from synth.placement import PlacementKind
from synth.schedule import measure

TICKS = ((1, 1, 1), (10, 9, 6), (10, 6, 4), (9, 9, 3), (7, 9, 9), (21, 18, 9), (5, 4, 6))
"""F, B and W: equal, W short, W long, BW = 2F, and some in no formula's domain."""

RANKS = (1, 2, 4, 5, 6)
V_NAMES = ("v-min", "v-half", "v-zb", "1f1b-v", "dualpipe-v", "hanayo")
DIRECTED = ("chimera", "chimera-asymmetric", "dualpipe")
AS_PUBLISHED = ("bpipe", "seq1f1b")
"""Those with a baseline, whose bubble here differs from the published formula or is a part of it."""
UNFLUSHED = ("pipedream", "pipedream-2bw")
CHAINS = ("1f1b", "zb-h1", "zb-h2", "2bp-1f1b", "gpipe", "2bp-gpipe", *UNFLUSHED, *DIRECTED, *AS_PUBLISHED)
OF_BASELINES = tuple(name for name in BASELINES if name not in AS_PUBLISHED)


def chunks_of(name):
    if name == "hanayo":
        return (2, 4)
    return (2,) if name in V_NAMES else (1,) if name in CHAINS else (1, 2, 3)


def settings_of(name):
    """A grid of settings on which the schedule exists."""
    for p, chunks, ticks, transfer in product(RANKS, chunks_of(name), TICKS, (0, 1)):
        for m in sorted({p, p + 1, 2 * p, 3 * p}):
            setting = Setting(
                num_ranks=p,
                num_microbatches=m,
                chunks=chunks,
                **dict(zip("FBW", ticks, strict=True)),
                transfer_ticks=transfer,
                activation_bytes=6,
                for_w_bytes=6 if name in V_NAMES else 2,
            )
            try:
                baseline_problem(name, setting.problem(kind_of(name)))
                FORMULAS[name].bubble_ticks(setting)
            except BaselineUndefinedError:
                continue
            yield setting


def kind_of(name):
    return PlacementKind.WAVE if name in V_NAMES else PlacementKind.LOOP


@pytest.mark.parametrize("name", OF_BASELINES)
def test_formulas_meet_measured_schedules(name):
    formula, bubbles, peaks = FORMULAS[name], 0, 0
    for setting in settings_of(name):
        bubble, peak = formula.bubble_ticks(setting), formula.peak_bytes(setting)
        if bubble is None and peak is None:
            continue
        metrics = measure(baseline_schedule(name, setting.problem(kind_of(name))))
        if bubble is not None:
            assert metrics.rank_span - metrics.work == bubble, setting
            bubbles += 1
        if peak is not None:
            assert max(metrics.peak_memory_bytes) == peak, setting
            peaks += 1
    assert min(bubbles, peaks) >= 10


def asymmetric_bubble(p, m, work, u):
    return (p - 2) * (work - u + (m / p - 1) * (work - 2 * u))


# The formulas as written, once more as functions: of the setting's letters, and g, the groups of p.
BUBBLES = {
    "(p-1)(F+BW+2c)": lambda p, F, BW, c, **_: (p - 1) * (F + BW + 2 * c),
    "(p-1)(F+BW) + 2(p-1+m-1-⌈(m-1)/p⌉)c": lambda p, m, F, BW, c, **_: (
        (p - 1) * (F + BW) + 2 * (p - 1 + m - 1 - ceil((m - 1) / p)) * c
    ),
    "(p-1)(F+BW) + 2(pv-1)c": lambda p, v, F, BW, c, **_: (p - 1) * (F + BW) + 2 * (p * v - 1) * c,
    "(p-1)(F+B) + ((v+1)p-2)c": lambda p, v, F, B, c, **_: (p - 1) * (F + B) + ((v + 1) * p - 2) * c,
    "(p-1)(F+B-W) + 4(p-1)c": lambda p, F, B, W, c, **_: (p - 1) * (F + B - W) + 4 * (p - 1) * c,
    "(p-1)(F+B-2W) + 2(p-1)c": lambda p, F, B, W, c, **_: (p - 1) * (F + B - 2 * W) + 2 * (p - 1) * c,
    "(4p-5)F, (4p-7)F where 3 divides p": lambda p, F, **_: (4 * p - (5 if p % 3 else 7)) * F,
    "(3p-7)F for even p, (3p-4)F for odd": lambda p, F, **_: (3 * p - (4 if p % 2 else 7)) * F,
    "0": lambda **_: 0,
    "(5p-5)F, (5p-7)F or (5p-8)F for p ≡ 1, 2 or 0 modulo 3": lambda p, F, **_: (
        (5 * p - {1: 5, 2: 7, 0: 8}[p % 3]) * F
    ),
    "(p-1)(F+B-W) + ((v+3)p-4)c": lambda p, v, F, B, W, c, **_: (p - 1) * (F + B - W) + ((v + 3) * p - 4) * c,
    "4(p-1)F + (m/p-1)(2p-3)F": lambda p, m, F, **_: 4 * (p - 1) * F + (m // p - 1) * (2 * p - 3) * F,
    "(p-1)(F+B-W+4c)": lambda p, F, B, W, c, **_: (p - 1) * (F + B - W + 4 * c),
    "(p-1)(F+B+2c)": lambda p, F, B, c, **_: (p - 1) * (F + B + 2 * c),
    "(p-1)(F+B-W) + 2(p-1+m-1-⌈(m-1)/p⌉)c": lambda p, m, F, B, W, c, **_: (
        (p - 1) * (F + B - W) + 2 * (p - 1 + m - 1 - ceil((m - 1) / p)) * c
    ),
    "(p-2)(max(F, BW) + (m/p-1)|BW-F|)": lambda p, m, F, BW, **_: (
        (p - 2) * (max(F, BW) + (m // p - 1) * abs(BW - F))
    ),
    "(p-2)(F+BW-u + (m/p-1)(F+BW-2u)), u = min(F, BW, (F+BW)/3)": lambda p, m, F, BW, **_: asymmetric_bubble(
        p, m, F + BW, min(F, BW, (F + BW) / 3)
    ),
    "(p/2-1)(F+B-W) + (5p/2-3)c": lambda p, F, B, W, c, **_: (
        (p // 2 - 1) * (F + B - W) + (5 * p // 2 - 3) * c
    ),
    "(p-1)(F+B-2W) + ((v+1)p-2)c": lambda p, v, F, B, W, c, **_: (
        (p - 1) * (F + B - 2 * W) + ((v + 1) * p - 2) * c
    ),
}
PEAKS = {
    "m·A": lambda m, A, **_: m * A,
    "min(p, m)·A": lambda p, m, A, **_: min(p, m) * A,
    "min(mv, pv+p-1)·A": lambda p, m, v, A, **_: min(m * v, p * v + p - 1) * A,
    "pv·A": lambda p, v, A, **_: p * v * A,
    "p·A": lambda p, A, **_: p * A,
    "(2p-1)·A": lambda p, A, **_: (2 * p - 1) * A,
    "2⌊(p+4)/3⌋·A": lambda p, A, **_: 2 * floor((p + 4) / 3) * A,
    "2⌊(p+2)/2⌋·A": lambda p, A, **_: 2 * floor((p + 2) / 2) * A,
    "2p·A": lambda p, A, **_: 2 * p * A,
    "2⌊(2p+3)/3⌋·A": lambda p, A, **_: 2 * floor((2 * p + 3) / 3) * A,
    "mv·A": lambda m, v, A, **_: m * v * A,
    "(p+1)·A": lambda p, A, **_: (p + 1) * A,
    "(2p+1)·A": lambda p, A, **_: (2 * p + 1) * A,
    "p·A + (m-p)·A_W": lambda p, m, A, A_W, **_: p * A + (m - p) * A_W,
    "(pv+p-1)·A + (mv-pv-p+1)·A_W": lambda p, m, v, A, A_W, **_: (
        (p * v + p - 1) * A + (m * v - p * v - p + 1) * A_W
    ),
}


def letters(s):
    return {
        "p": s.num_ranks,
        "m": s.num_microbatches,
        "v": s.chunks,
        "c": s.transfer_ticks,
        "A": s.activation_bytes,
        "A_W": s.for_w_bytes,
        **{letter: getattr(s, letter) for letter in ("F", "B", "W", "BW")},
    }


@pytest.mark.parametrize("name", OF_BASELINES)
def test_formulas_are_as_written(name):
    """Where the whole of the written domain holds: many groups of microbatches, and small transfers."""
    formula, compared = FORMULAS[name], 0
    for p, chunks in product((4, 6, 8) if name in DIRECTED else (4, 5, 6, 8), chunks_of(name)):
        for ticks in ((6, 6, 6), (21, 18, 9), (21, 18, 15), (9, 12, 6)):
            for transfer in (0, 1):
                setting = Setting(
                    num_ranks=p,
                    num_microbatches=3 * p,
                    chunks=chunks,
                    **dict(zip("FBW", ticks, strict=True)),
                    transfer_ticks=transfer,
                    activation_bytes=6,
                    for_w_bytes=6 if name in ("v-min", "v-half", "v-zb") else 2,
                )
                bubble, peak = formula.bubble_ticks(setting), formula.peak_bytes(setting)
                if bubble is not None:
                    assert BUBBLES[formula.bubble](**letters(setting)) == bubble, setting
                    compared += 1
                assert peak is None or PEAKS[formula.peak](**letters(setting)) == peak, setting
    assert compared >= 4


def test_every_baseline_has_formulas():
    assert set(BASELINES) == set(FORMULAS)
    for formula in FORMULAS.values():
        assert all((formula.source, formula.bubble, formula.peak, formula.domain))


# What is only published.


def unit(p, m, **more):
    return Setting(num_ranks=p, num_microbatches=m, **{"F": 1, "B": 1, "W": 1, **more})


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_chimera_has_the_published_ratio(p, groups):
    """(D-2) / (2N+D-2) for equal forwards and backwards: F = BW = 2."""
    m = groups * p
    setting = unit(p, m, F=2)
    bubble = FORMULAS["chimera"].bubble_ticks(setting)
    assert bubble / (m * 4 + bubble) == pytest.approx((p - 2) / (2 * m + p - 2))
    assert FORMULAS["chimera"].peak_bytes(setting) == p
    assert setting.problem(PlacementKind.LOOP).work_ticks == 4 * m
    assert FORMULAS["chimera"].weight_copies(setting) == 2


def test_two_directions_hold_the_weights_twice():
    setting = unit(8, 24, F=3, B=2)
    twice = {name for name in BASELINES if FORMULAS[name].weight_copies(setting) == 2}
    assert twice == {*DIRECTED, "pipedream-2bw"}
    assert FORMULAS["dualpipe"].bubble_ticks(setting) == 3 * (3 + 2 - 1)
    assert FORMULAS["dualpipe"].peak_bytes(setting) == 9


def test_segments_divide_the_bubble_and_the_memory_of_1f1b():
    whole, parts = unit(8, 24), unit(8, 24, segments=4)
    one_f_one_b, seq = FORMULAS["1f1b"], FORMULAS["seq1f1b"]
    assert seq.bubble_ticks(whole) == one_f_one_b.bubble_ticks(whole) == 21
    assert seq.peak_bytes(whole) == one_f_one_b.peak_bytes(whole) == 8
    assert seq.bubble_ticks(parts) == 21 / 4
    assert seq.peak_bytes(parts) == 11 / 4


@pytest.mark.parametrize("segments", [1, 2, 3, 6])
def test_segments_meet_measured_schedules(segments):
    for p, m in product((1, 2, 5, 8), (8, 12)):
        setting = unit(p, m, F=6, B=6, W=12, activation_bytes=6, segments=segments)
        chain = setting.problem(PlacementKind.LOOP)
        metrics = measure(baseline_schedule("seq1f1b", cut_sequences(chain, segments)))
        assert metrics.rank_span - metrics.work == FORMULAS["seq1f1b"].bubble_ticks(setting)
        assert max(metrics.peak_memory_bytes) == FORMULAS["seq1f1b"].peak_bytes(setting)


def test_bpipe_is_1f1b_at_about_half_the_memory():
    for p in range(1, 12):
        setting = unit(p, 2 * p)
        assert FORMULAS["bpipe"].bubble_ticks(setting) == FORMULAS["1f1b"].bubble_ticks(setting)
        assert FORMULAS["bpipe"].peak_bytes(setting) == min(p, ceil((p + 2) / 2))


def test_weight_versions_without_flushes():
    setting = unit(6, 12)
    assert FORMULAS["pipedream"].weight_copies(setting) == 6
    assert FORMULAS["pipedream-2bw"].weight_copies(setting) == 2
    for name in ("pipedream", "pipedream-2bw"):
        # Filled and emptied once: as much for twelve microbatches as for twelve thousand.
        assert FORMULAS[name].bubble_ticks(setting) == FORMULAS[name].bubble_ticks(unit(6, 12_000)) == 15
        assert FORMULAS[name].peak_bytes(setting) == 6


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("chimera", unit(4, 6, F=2)),
        ("chimera", unit(4, 8, F=2, transfer_ticks=1)),
        ("chimera-asymmetric", unit(4, 8, F=2)),
        ("dualpipe", unit(4, 20, W=9)),
        ("bpipe", unit(4, 8, transfer_ticks=1)),
        ("seq1f1b", unit(4, 8, chunks=2)),
    ],
)
def test_formulas_are_silent_outside_their_domain(name, setting):
    assert FORMULAS[name].bubble_ticks(setting) is None


def test_schedules_that_do_not_exist_say_why():
    with pytest.raises(BaselineUndefinedError, match="1f1b is not defined here: 8 stages on 4 ranks"):
        FORMULAS["1f1b"].bubble_ticks(unit(4, 8, chunks=2))
    with pytest.raises(BaselineUndefinedError, match="chimera is not defined here: 3 ranks"):
        FORMULAS["chimera"].bubble_ticks(unit(3, 6))
    with pytest.raises(BaselineUndefinedError, match="dualpipe is not defined here: 6 microbatches"):
        FORMULAS["dualpipe"].peak_bytes(unit(4, 6))
    with pytest.raises(BaselineUndefinedError, match="it needs v placement"):
        FORMULAS["v-half"].peak_bytes(unit(4, 8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"F": 0}, "F is 0: give an integer ≥ 1"),
        ({"segments": 0}, "segments is 0"),
        ({"transfer_ticks": -1}, "transfer_ticks is -1, activation_bytes 1 and"),
        ({"activation_bytes": 1, "for_w_bytes": 2}, "for_w_bytes 2: give integers ≥ 0, the last at most the"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        unit(4, 8, **wrong)
