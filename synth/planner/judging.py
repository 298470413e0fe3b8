"""One configuration judged: bounds, then every published schedule that exists for it and fits."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from synth.baselines import BASELINES, baseline_orders
from synth.drafts import Draft, Recipe, WeightPolicy
from synth.errors import BaselineUndefinedError, InputError
from synth.graph import check_size
from synth.planner.steps import (
    buffered_step_ticks,
    least_step_ticks,
    least_undivided_step_ticks,
    ordered_step_ticks,
    quick_least_step_ticks,
)
from synth.problem import Problem
from synth.schedule import fits, peak_memory_bytes

DOUBLE_BUFFERED = "pipedream-2bw"
"""The one schedule of double buffering: 1F1B without flushes."""

FLUSHED = tuple(name for name, baseline in BASELINES.items() if baseline.reshape is None)
"""Schedules that end a batch before the next one begins, and take a chain of stages as it is.

Those that make another problem of it would cost more than a draft says: a second model on every rank and its
part of the all-reduce, or passes of sequence slices; and PipeDream flushes nothing.
"""

SCHEDULES = (*FLUSHED, DOUBLE_BUFFERED)

QUICK = ("1f1b", "zb-h1", "interleaved-1f1b", "group-interleaved-1f1b", DOUBLE_BUFFERED)
"""Schedules whose orders take a few milliseconds: enough to see what others would have to beat."""

UNDIVIDED = ("gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "hanayo", "1f1b-v")
"""Schedules that divide no backward where it need not: a bound of their own holds for them."""

ALL_AT_ONCE = ("gpipe", "2bp-gpipe")
"""Schedules that run all forwards of a batch first: where that does not fit, no orders need be made."""


CHOOSES_GROUPS = "group-interleaved-1f1b"
"""The schedule whose groups hang on what fits, and on the microbatches: fewer say nothing of it."""

EVEN_GROUPS = "interleaved-zero-bubble"
"""The schedule whose groups are of p where p divides the microbatches, and elsewhere hang on their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One schedule of a configuration.

    Parameters
    ----------
    schedule
        Its name.
    step_ticks
        How long a step takes, or None where it does not fit.
    peak_bytes
        What its fullest rank holds; where it does not fit, perhaps less than that.
    """

    schedule: str
    step_ticks: int | None
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of one configuration.

    Parameters
    ----------
    key, policy
        Which it is, and when its weights change.
    least_ticks, least_undivided_ticks
        No step of it is shorter; none that divides no backward.
    tried
        The schedules asked for; none where a bound or a refusal settled it.
    rows
        Those of them that exist.
    refusal
        Why it cannot be, or empty.
    """

    key: str
    policy: WeightPolicy
    least_ticks: int = 0
    least_undivided_ticks: int = 0
    tried: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    refusal: str = ""

    @property
    def best(self) -> Row | None:
        """The schedule with the shortest step of those that fit; of equals the one that holds least."""
        fitting = [(row.step_ticks, row.peak_bytes, row) for row in self.rows if row.step_ticks is not None]
        return min(fitting, key=lambda entry: entry[:2])[2] if fitting else None

    @property
    def step_ticks(self) -> int | None:
        """The shortest step of any schedule, None where none fits."""
        return None if self.best is None else self.best.step_ticks

    def least_ticks_of(self, schedule: str) -> int:
        """No step of that schedule is shorter."""
        return max(self.least_ticks, self.least_undivided_ticks if schedule in UNDIVIDED else 0)

    def of(self, schedules: Sequence[str]) -> Verdict:
        """What it says of some schedules."""
        return replace(
            self,
            tried=tuple(name for name in self.tried if name in schedules),
            rows=tuple(row for row in self.rows if row.schedule in schedules),
        )

    def and_then(self, other: Verdict) -> Verdict:
        """What two judgements of one configuration say together."""
        known = {row.schedule for row in self.rows}
        return replace(
            other,
            tried=(*self.tried, *(name for name in other.tried if name not in self.tried)),
            rows=(*self.rows, *(row for row in other.rows if row.schedule not in known)),
        )


def judge(
    recipe: Recipe,
    key: str,
    most_ticks: int | None = None,
    schedules: Sequence[str] = SCHEDULES,
    known: Verdict | None = None,
) -> Verdict:
    """Judge a configuration.

    Parameters
    ----------
    recipe, key
        Which configuration.
    most_ticks
        A longer step is of no interest: where the bound is above it, no schedule is tried.
    schedules
        The names of those to try.
    known
        A judgement of before, whose bounds hold.
    """
    policy = recipe.policy_of(key)
    with _collecting_nothing():
        try:
            draft = recipe.draft(key)
            check_size(draft.problem)
        except InputError as error:
            return Verdict(key=key, policy=policy, refusal=str(error))
        verdict = _bounded(draft, key, most_ticks) if known is None else replace(known, tried=(), rows=())
        if most_ticks is not None and verdict.least_ticks > most_ticks:
            return verdict
        return replace(verdict, tried=tuple(schedules), rows=tuple(_rows(draft, schedules)))


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Without the garbage collector: orders are many small objects, and none is part of a cycle."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _rows(draft: Draft, schedules: Sequence[str]) -> list[Row]:
    """Those of the schedules that exist for a draft."""
    if draft.policy is WeightPolicy.DOUBLE_BUFFERED:
        return [_buffered(draft)] if DOUBLE_BUFFERED in schedules else []
    return [row for name in schedules if name in FLUSHED and (row := _flushed(draft, name))]


def _bounded(draft: Draft, key: str, most_ticks: int | None) -> Verdict:
    """What bounds say: the quick one first, and the others where it leaves anything to say."""
    verdict = Verdict(key=key, policy=draft.policy, least_ticks=quick_least_step_ticks(draft))
    if draft.policy is WeightPolicy.DOUBLE_BUFFERED:
        return verdict
    if most_ticks is not None and verdict.least_ticks > most_ticks:
        return verdict
    return replace(
        verdict,
        least_ticks=least_step_ticks(draft),
        least_undivided_ticks=least_undivided_step_ticks(draft),
    )


def _flushed(draft: Draft, name: str) -> Row | None:
    """A published schedule of one batch, None where it does not exist."""
    problem = draft.problem
    if name in ALL_AT_ONCE:
        least = _bytes_of_all_forwards(problem)
        if not fits(problem, least):
            return Row(schedule=name, step_ticks=None, peak_bytes=max(least))
    try:
        least = _bytes_of_first_microbatches(problem, name)
        if not fits(problem, least):
            return Row(schedule=name, step_ticks=None, peak_bytes=max(least))
        orders = baseline_orders(name, problem)
    except BaselineUndefinedError:
        return None
    peaks = peak_memory_bytes(problem, orders)
    step = None
    if fits(problem, peaks):
        step = ordered_step_ticks(problem, orders, draft.all_reduce_ticks)
    return Row(schedule=name, step_ticks=step, peak_bytes=max(peaks))


def _bytes_of_first_microbatches(problem: Problem, name: str) -> tuple[int, ...]:
    """What every rank holds at least, by the same schedule of so few microbatches that it takes less to find.

    Whole rounds are left out of the middle: what divides the microbatches divides those left, and what warms
    up and cools down has the microbatches that it needs. Nothing where these would begin in another way.
    """
    p, m = problem.num_ranks, problem.num_microbatches
    first = 4 * p + m % (2 * p)
    if first >= m or name == CHOOSES_GROUPS or (name == EVEN_GROUPS and m % p):
        return problem.static_bytes_by_rank
    few = replace(problem, num_microbatches=first)
    return peak_memory_bytes(few, baseline_orders(name, few))


def _bytes_of_all_forwards(problem: Problem) -> tuple[int, ...]:
    """What every rank holds behind all forwards and before any backward."""
    kept = [costs.F.alloc_bytes - costs.F.free_bytes for costs in problem.stages]
    return tuple(
        static + problem.num_microbatches * sum(kept[stage] for stage in held)
        for static, held in zip(problem.static_bytes_by_rank, problem.stages_by_rank, strict=True)
    )


def _buffered(draft: Draft) -> Row:
    """1F1B without flushes: it holds what 1F1B does, and a second version of the weights."""
    peaks = peak_memory_bytes(draft.problem, baseline_orders(DOUBLE_BUFFERED, _first_batch(draft.problem)))
    step = buffered_step_ticks(draft.problem, draft.all_reduce_ticks)
    return Row(
        schedule=DOUBLE_BUFFERED,
        step_ticks=step if fits(draft.problem, peaks) else None,
        peak_bytes=max(peaks),
    )


def _first_batch(problem: Problem) -> Problem:
    """As many microbatches as are ever in flight: beyond them the peak of 1F1B stays."""
    return replace(problem, num_microbatches=min(problem.num_microbatches, problem.num_ranks))
