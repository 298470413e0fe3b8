"""The synthesizer where a published schedule may be beaten: on the best configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from synth.document import ScheduleDocument, read_schedule, write_schedule
from synth.drafts import Recipe, WeightPolicy
from synth.errors import InfeasibleError, InputError, NoScheduleFoundError
from synth.planner.executors import Executor
from synth.planner.journal import Journal, Record
from synth.planner.steps import flushed_step_ticks
from synth.planner.sweeping import Sweep
from synth.search.synthesizer import synthesize


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesized:
    """The schedule found for a configuration.

    Parameters
    ----------
    key
        The configuration.
    step_ticks
        How long a step takes, None where no schedule was found.
    document
        The schedule.
    """

    key: str
    step_ticks: int | None = None
    document: ScheduleDocument | None = None

    @property
    def peak_bytes(self) -> int:
        """What the fullest rank holds."""
        return max(self.document.metrics.peak_memory_bytes) if self.document else 0


def synthesize_step(recipe: Recipe, key: str, time_limit_s: float, seed: int) -> Synthesized:
    """Search one configuration's schedule: its makespan, to which what is exposed of the sums is added."""
    draft = recipe.draft(key)
    try:
        result = synthesize(draft.problem, time_limit_s, 1, seed)
    except (InfeasibleError, NoScheduleFoundError):
        return Synthesized(key=key)
    return Synthesized(
        key=key,
        step_ticks=flushed_step_ticks(result.schedule, draft.all_reduce_ticks),
        document=ScheduleDocument.of(result.schedule, result.certificate, result.provenance),
    )


def synthesis_candidates(standing: Sweep) -> list[str]:
    """The flushed configurations whose bound is below the best flushed step, the best known step first.

    Those for which no published schedule fits come last, by their bounds.
    """
    ranking = standing.ranking(WeightPolicy.FLUSH)
    best = ranking[0].step_ticks if ranking else None
    known = {verdict.key: number for number, verdict in enumerate(ranking)}
    open_ones = [
        verdict
        for verdict in standing.verdicts.values()
        if verdict.policy is WeightPolicy.FLUSH
        and not verdict.refusal
        and (best is None or verdict.least_ticks < best)
    ]
    ordered = sorted(open_ones, key=lambda v: (known.get(v.key, len(known)), v.least_ticks, v.key))
    return [verdict.key for verdict in ordered]


def synthesize_best(
    recipe: Recipe,
    executor: Executor,
    standing: Sweep,
    *,
    most: int,
    time_limit_s: float,
    seed: int = 0,
    journal: Journal | None = None,
    on_found: Callable[[Synthesized], None] | None = None,
) -> Sequence[Synthesized]:
    """Search up to so many configurations that can still win.

    Parameters
    ----------
    recipe, executor, standing
        What was swept, where work is done, and what is known.
    most, time_limit_s, seed
        How many configurations, how many seconds for each, and the seed.
    journal
        What was found before with that time and seed, and where answers are kept.
    on_found
        Called with every answer.

    Returns
    -------
    An answer for each; after an interrupt, with ``standing.interrupted`` set, those there are.
    """
    record, effort = None if journal is None else journal.synthesized, (time_limit_s, seed)
    candidates = synthesis_candidates(standing)[:most]
    known = {} if record is None else _known(record, effort)
    found = [known[key] for key in candidates if key in known]
    under_way = 0

    def hear() -> None:
        found.append(executor.next())
        if record is not None:
            record.add(_line(found[-1], effort))
        if on_found is not None:
            on_found(found[-1])

    try:
        for key in candidates:
            if key in known:
                continue
            if under_way >= executor.width:
                hear()
                under_way -= 1
            steps = [answer.step_ticks for answer in found if answer.step_ticks is not None]
            if steps and standing.verdicts[key].least_ticks >= min(steps):
                continue
            executor.submit(synthesize_step, recipe, key, time_limit_s, seed)
            under_way += 1
        for _ in range(under_way):
            hear()
    except KeyboardInterrupt:
        standing.interrupted = True
    return found


def _line(answer: Synthesized, effort: tuple[float, int]) -> dict[str, Any]:
    text = None if answer.document is None else write_schedule(answer.document)
    return {"key": answer.key, "effort": effort, "step_ticks": answer.step_ticks, "document": text}


def _known(record: Record, effort: tuple[float, int]) -> dict[str, Synthesized]:
    """What was found with such effort, by key; broken lines are left out."""
    known: dict[str, Synthesized] = {}
    for tree in record.read():
        with suppress(KeyError, TypeError, InputError):
            text = tree["document"]
            if tuple(tree["effort"]) == effort:
                known[tree["key"]] = Synthesized(
                    key=tree["key"],
                    step_ticks=tree["step_ticks"],
                    document=None if text is None else read_schedule(text),
                )
    return known
