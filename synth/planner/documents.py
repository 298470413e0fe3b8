"""The chosen configuration as a schedule document."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

from synth.baselines import baseline_schedule
from synth.bounds import best_bound
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument
from synth.drafts import Draft
from synth.graph import MOST_OPS
from synth.planner.judging import DOUBLE_BUFFERED
from synth.problem import Problem

BATCHES = 3
"""Batches of a double-buffered schedule that are written down: the middle one is in the steady state."""


def schedule_document(draft: Draft, schedule: str) -> ScheduleDocument:
    """A published schedule of a draft.

    Double buffering is written over :data:`BATCHES` batches' microbatches, or as many as can be laid out:
    nothing is flushed between them.
    """
    buffered = schedule == DOUBLE_BUFFERED
    timed = baseline_schedule(schedule, _several_batches(draft.problem) if buffered else draft.problem)
    problem = timed.problem
    bound = best_bound(problem)
    return ScheduleDocument.of(
        timed,
        Certificate(
            objective=problem.objective, value=timed.value, lower_bound=bound.ticks, bound_from=bound.argument
        ),
        Provenance(
            method=schedule,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            tool_version=version("pipesynth"),
        ),
    )


def _several_batches(problem: Problem) -> Problem:
    most = MOST_OPS // (3 * problem.num_stages * problem.num_microbatches)
    batches = max(1, min(BATCHES, most))
    words = f"{batches} batches of {problem.num_microbatches} microbatches, not flushed between them"
    return replace(
        problem,
        num_microbatches=batches * problem.num_microbatches,
        source=f"{problem.source}; {words}",
    )
