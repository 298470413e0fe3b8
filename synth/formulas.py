"""Closed formulas: idle time, peak activations and weight copies as functions of a few numbers.

The first of the three levels in "A Tabular Schedule Abstraction for Communication-Aware Evaluation of
Pipeline-Parallel LLM Training" (arXiv 2605.24006). A schedule that can be run here has its formulas in its
baseline (:mod:`synth.baselines`), held to measured schedules; those that cannot, or whose published formula
leaves out what a schedule here takes, stand here as published.

Symbols: p ranks, m microbatches, v stages per rank, s parts of a sequence; F, B, W, BW ticks of one stage;
c ticks per transfer; A bytes that F allocates on one stage, A_W bytes still held between B and W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from synth.baselines import BASELINES, baseline_problem
from synth.errors import InputError
from synth.placement import PlacementKind
from synth.problem import Objective, OpCost, Problem, StageCosts, uniform_problem

Amount = int | Fraction
"""Ticks or bytes; a part of one where a formula divides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a formula is a function of: equal stages, equal transfers.

    Parameters
    ----------
    num_ranks, num_microbatches, chunks
        p, m and v, all at least 1.
    F, B, W
        Ticks of one stage; the undivided backward takes B + W.
    transfer_ticks
        c, between neighbouring ranks.
    activation_bytes, for_w_bytes
        A and A_W, the second at most the first.
    segments
        s, equal parts of a sequence in time and memory.
    """

    num_ranks: int
    num_microbatches: int
    chunks: int = 1
    F: int
    B: int
    W: int
    transfer_ticks: int = 0
    activation_bytes: int = 1
    for_w_bytes: int = 0
    segments: int = 1

    def __post_init__(self) -> None:
        for name in ("num_ranks", "num_microbatches", "chunks", "F", "B", "W", "segments"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give an integer ≥ 1")
        if self.transfer_ticks < 0 or not 0 <= self.for_w_bytes <= self.activation_bytes:
            raise InputError(
                f"transfer_ticks is {self.transfer_ticks}, activation_bytes {self.activation_bytes} and "
                f"for_w_bytes {self.for_w_bytes}: give integers ≥ 0, the last at most the one before"
            )

    @property
    def BW(self) -> int:
        """Ticks of the undivided backward."""
        return self.B + self.W

    def problem(self, kind: PlacementKind) -> Problem:
        """The setting as a problem: stages that may divide their backward or not, on a named placement."""
        between = self.for_w_bytes
        stage = StageCosts(
            F=OpCost(ticks=self.F, alloc_bytes=self.activation_bytes),
            B=OpCost(ticks=self.B, free_bytes=self.activation_bytes - between),
            W=OpCost(ticks=self.W, free_bytes=between),
            BW=OpCost(ticks=self.BW, free_bytes=self.activation_bytes),
        )
        return uniform_problem(
            self.num_ranks,
            self.num_microbatches,
            stage,
            transfer_ticks=self.transfer_ticks,
            chunks=self.chunks,
            kind=kind,
            objective=Objective.RANK_SPAN,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """The closed formulas of one schedule.

    Parameters
    ----------
    name
        As a baseline is named, of schedules that cannot be run here too.
    source
        Paper and place.
    bubble, peak
        As the field writes them.
    domain
        Where they hold beyond equal stages, in words.
    bubble_ticks
        Idle ticks of the rank with the longest span, or None outside the domain.
    peak_bytes
        Activations of the fullest rank, or None outside the domain.
    weight_copies
        How many copies of its stages' weights the fullest rank holds.

    The functions raise :class:`~synth.errors.BaselineUndefinedError` where a schedule that can be run here
    does not exist.
    """

    name: str
    source: str
    bubble: str
    peak: str
    domain: str
    bubble_ticks: Callable[[Setting], Amount | None]
    peak_bytes: Callable[[Setting], Amount | None]
    weight_copies: Callable[[Setting], int]


def _one_copy(_: Setting) -> int:
    return 1


def _two_copies(_: Setting) -> int:
    return 2


def _copy_per_rank(setting: Setting) -> int:
    return setting.num_ranks


def _of_baseline(
    name: str,
    bubble: str,
    peak: str,
    domain: str,
    kind: PlacementKind = PlacementKind.LOOP,
    weight_copies: Callable[[Setting], int] = _one_copy,
) -> Formula:
    """The formulas that a baseline brings; its placement is one on which it exists."""
    baseline = BASELINES[name]
    return Formula(
        name=name,
        source=baseline.source,
        bubble=bubble,
        peak=peak,
        domain=domain,
        bubble_ticks=lambda setting: baseline.bubble_ticks(baseline_problem(name, setting.problem(kind))),
        peak_bytes=_peak_of_baseline(name, kind),
        weight_copies=weight_copies,
    )


def _peak_of_baseline(name: str, kind: PlacementKind = PlacementKind.LOOP) -> Callable[[Setting], int | None]:
    """What a baseline's fullest rank holds."""

    def peak_bytes(setting: Setting) -> int | None:
        peaks = BASELINES[name].peak_bytes(baseline_problem(name, setting.problem(kind)))
        return None if peaks is None else max(peaks)

    return peak_bytes


def _flushed_bubble_ticks(setting: Setting) -> int | None:
    """1F1B's (p-1)(F+BW)."""
    if setting.transfer_ticks or setting.chunks > 1:
        return None
    return (setting.num_ranks - 1) * (setting.F + setting.BW)


def _seq1f1b_bubble_ticks(setting: Setting) -> Fraction | None:
    """(p-1)(F+BW)/s."""
    flushed = _flushed_bubble_ticks(setting)
    return None if flushed is None else Fraction(flushed, setting.segments)


def _held_chunks(count: Callable[[Setting], Amount]) -> Callable[[Setting], Amount | None]:
    """So many activations of one microbatch on one rank, for schedules of one stage per rank and m ≥ p."""

    def peak_bytes(setting: Setting) -> Amount | None:
        if setting.chunks > 1 or setting.num_microbatches < setting.num_ranks:
            return None
        return count(setting) * setting.activation_bytes

    return peak_bytes


def _of_baselines() -> Iterable[Formula]:
    wave = PlacementKind.WAVE
    any_m = "any m, any c"
    yield _of_baseline("gpipe", "(p-1)(F+BW+2c)", "m·A", any_m)
    one_f_one_b = "(p-1)(F+BW) + 2(p-1+m-1-⌈(m-1)/p⌉)c"
    yield _of_baseline("1f1b", one_f_one_b, "min(p, m)·A", any_m)
    unflushed = f"{any_m}, m the microbatches of all batches; none between batches for c = 0"
    for name, copies in (("pipedream", _copy_per_rank), ("pipedream-2bw", _two_copies)):
        yield _of_baseline(name, one_f_one_b, "min(p, m)·A", unflushed, weight_copies=copies)
    yield _of_baseline(
        "interleaved-1f1b", "(p-1)(F+BW) + 2(pv-1)c", "min(mv, pv+p-1)·A", "m a multiple of p, c ≤ F, c ≤ BW"
    )
    yield _of_baseline(
        "group-interleaved-1f1b", "(p-1)(F+B) + ((v+1)p-2)c", "pv·A", "m a multiple of p, 2c ≤ F, B, W"
    )
    yield _of_baseline("zb-h1", "(p-1)(F+B-W) + 4(p-1)c", "p·A", "m > p, W ≤ F, 2c ≤ W")
    yield _of_baseline("zb-h2", "(p-1)(F+B-2W) + 2(p-1)c", "(2p-1)·A", "m ≥ 2p-1, W ≤ F, W ≤ B, 2c ≤ W")
    unit = "F = B = W, c = 0, m ≥ 2p"
    yield _of_baseline("v-min", "(4p-5)F, (4p-7)F where 3 divides p", "2⌊(p+4)/3⌋·A", unit, wave)
    yield _of_baseline("v-half", "(3p-7)F for even p, (3p-4)F for odd", "2⌊(p+2)/2⌋·A", unit, wave)
    yield _of_baseline("v-zb", "0", "2p·A", unit, wave)
    yield _of_baseline(
        "1f1b-v",
        "(5p-5)F, (5p-7)F or (5p-8)F for p ≡ 1, 2 or 0 modulo 3",
        "2⌊(2p+3)/3⌋·A",
        "BW = 2F, c = 0, m ≥ 2p, p none of 2, 3, 9",
        wave,
    )
    yield _of_baseline(
        "interleaved-zero-bubble",
        "(p-1)(F+B-W) + ((v+3)p-4)c",
        "pv·A",
        "m a multiple of p from 2p on, W ≤ F, 2c ≤ W",
    )
    yield _of_baseline(
        "looped-bfs", "(p-1)(F+BW+2c)", "mv·A", "p·c ≤ (m-p)F and (m-p)BW; more for larger c ≤ F, BW"
    )
    yield _of_baseline(
        "hanayo",
        "4(p-1)F + (m/p-1)(2p-3)F",
        "pv·A",
        "BW = 2F, c = 0, m a multiple of p; the peak with one wave for m = p",
        wave,
    )
    yield _of_baseline(
        "dualpipe-v", "(p-1)(F+B-W+4c)", "(2p+1)·A", "m ≥ 2p, W ≤ B, B+2c ≤ F ≤ B+W, no overlap", wave
    )
    yield _of_baseline("2bp-gpipe", "(p-1)(F+B+2c)", "m·A", any_m)
    yield _of_baseline(
        "2bp-1f1b", "(p-1)(F+B-W) + 2(p-1+m-1-⌈(m-1)/p⌉)c", "p·A + (m-p)·A_W", "m ≥ p, W ≤ F, any c"
    )
    yield _of_baseline(
        "2bp-interleaved-1f1b",
        "(p-1)(F+B-2W) + ((v+1)p-2)c",
        "(pv+p-1)·A + (mv-pv-p+1)·A_W",
        "m a multiple of p from 2p on, 2W ≤ F, c ≤ W, c ≤ B",
    )
    yield from _of_two_directions()


def _of_two_directions() -> Iterable[Formula]:
    yield _of_baseline(
        "chimera",
        "(p-2)(max(F, BW) + (m/p-1)|BW-F|)",
        "min(p, m)·A",
        "p even, m a multiple of p, c = 0; (p-2)(F+BW) - (m-2)min(F, BW) for even m ≤ p",
        weight_copies=_two_copies,
    )
    yield _of_baseline(
        "chimera-asymmetric",
        "(p-2)(F+BW-u + (m/p-1)(F+BW-2u)), u = min(F, BW, (F+BW)/3)",
        "min(p, m)·A",
        "p even, m a multiple of p, c = 0, F, BW and A multiples of 3; (p-2)(F+BW) - (m-2)u for even m ≤ p",
        weight_copies=_two_copies,
    )
    yield _of_baseline(
        "dualpipe",
        "(p/2-1)(F+B-W) + (5p/2-3)c",
        "(p+1)·A",
        "p even, m even, m ≥ 2p, W ≤ B, B+2c ≤ F ≤ B+W, no overlap",
        weight_copies=_two_copies,
    )


def _of_papers() -> Iterable[Formula]:
    yield Formula(
        name="bpipe",
        source=BASELINES["bpipe"].source,
        bubble="(p-1)(F+BW)",
        peak="min(p, m, ⌈(p+2)/2⌉)·A",
        domain="c = 0, moving activations between ranks hidden, which takes at most 2 ticks each here",
        bubble_ticks=_flushed_bubble_ticks,
        peak_bytes=_peak_of_baseline("bpipe"),
        weight_copies=_one_copy,
    )
    yield Formula(
        name="seq1f1b",
        source=BASELINES["seq1f1b"].source,
        bubble="(p-1)(F+BW)/s",
        peak="(s+p-1)/s·A",
        domain="m ≥ p, c = 0, s parts of equal time and memory, keys and values among the activations",
        bubble_ticks=_seq1f1b_bubble_ticks,
        peak_bytes=_held_chunks(
            lambda setting: Fraction(setting.segments + setting.num_ranks - 1, setting.segments)
        ),
        weight_copies=_one_copy,
    )


FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {formula.name: formula for formula in (*_of_baselines(), *_of_papers())}
)
"""The formulas by name: those of every baseline, then those that are only published."""
