"""One configuration judged: bounds, then every published schedule that exists for it and fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from synth.baselines import BASELINES, baseline_orders
from synth.drafts import Draft, Recipe, WeightPolicy
from synth.errors import BaselineUndefinedError, InputError
from synth.graph import check_size
from synth.planner.steps import (
    buffered_step_ticks,
    flushed_step_ticks,
    least_step_ticks,
    quick_least_step_ticks,
)
from synth.problem import Problem
from synth.schedule import fits, peak_memory_bytes
from synth.timing import schedule_orders

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
        What its fullest rank holds.
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
    least_ticks
        No step of it is shorter.
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
    recipe: Recipe, key: str, most_ticks: int | None = None, schedules: Sequence[str] = SCHEDULES
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
    """
    policy = recipe.policy_of(key)
    try:
        draft = recipe.draft(key)
        check_size(draft.problem)
    except InputError as error:
        return Verdict(key=key, policy=policy, refusal=str(error))
    verdict = Verdict(key=key, policy=policy)
    for bound in (quick_least_step_ticks, least_step_ticks):
        verdict = replace(verdict, least_ticks=bound(draft))
        if most_ticks is not None and verdict.least_ticks > most_ticks:
            return verdict
    if policy is WeightPolicy.DOUBLE_BUFFERED:
        rows = [_buffered(draft)] if DOUBLE_BUFFERED in schedules else []
    else:
        rows = [row for name in schedules if name in FLUSHED and (row := _flushed(draft, name))]
    return replace(verdict, tried=tuple(schedules), rows=tuple(rows))


def _flushed(draft: Draft, name: str) -> Row | None:
    """A published schedule of one batch, None where it does not exist."""
    problem = draft.problem
    try:
        orders = baseline_orders(name, problem)
    except BaselineUndefinedError:
        return None
    peaks = peak_memory_bytes(problem, orders)
    step = None
    if fits(problem, peaks):
        step = flushed_step_ticks(schedule_orders(problem, orders), draft.all_reduce_ticks)
    return Row(schedule=name, step_ticks=step, peak_bytes=max(peaks))


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
