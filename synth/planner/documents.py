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
from synth.errors import InputError
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


def check_shows_steady_state(document: ScheduleDocument, num_microbatches: int) -> None:
    """See that a double-buffered schedule is of several batches: of one alone no reader can tell what it is.

    Parameters
    ----------
    document
        A schedule of :func:`schedule_document`.
    num_microbatches
        Of one batch.

    Raises
    ------
    InputError
        When there was room for one only.
    """
    buffered = document.provenance.method == DOUBLE_BUFFERED
    if buffered and document.schedule.problem.num_microbatches == num_microbatches:
        raise InputError(
            f"{num_microbatches} microbatches are too many to write two batches of the best plan, which are "
            "not flushed between them: give a larger --microbatch or --weights flush, or leave out -o"
        )


def _several_batches(problem: Problem) -> Problem:
    most = MOST_OPS // (3 * problem.num_stages * problem.num_microbatches)
    batches = min(BATCHES, most)
    if batches < 2:
        return problem
    words = f"{batches} batches of {problem.num_microbatches} microbatches, not flushed between them"
    return replace(
        problem,
        num_microbatches=batches * problem.num_microbatches,
        source=f"{problem.source}; {words}",
    )
