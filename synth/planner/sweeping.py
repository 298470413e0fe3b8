"""All configurations judged: those whose bound is above what is known to be possible are not looked at."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from synth.drafts import Outline, Recipe, WeightPolicy
from synth.planner.executors import Executor
from synth.planner.journal import Journal
from synth.planner.judging import DOUBLE_BUFFERED, QUICK, SCHEDULES, Verdict, judge

KEEP = 10
"""How many of the best of each policy are sure to be found."""


@dataclass(slots=True)
class Sweep:
    """Where a sweep stands: the bounds of all configurations, and the verdicts of those looked at.

    Parameters
    ----------
    outlines
        Of every configuration, in the recipe's order.
    keep
        How many of the best are wanted, of each policy.
    verdicts
        By key.
    swept
        Whether all that can be among the best was looked at.
    interrupted
        Whether Ctrl-C ended it, or what came after.
    """

    outlines: Sequence[Outline]
    keep: int = KEEP
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    swept: bool = False
    interrupted: bool = False
    _places: dict[str, int] = field(init=False, repr=False)
    _most_ticks: dict[WeightPolicy, int | None] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {outline.key: number for number, outline in enumerate(self.outlines)}

    def note(self, verdict: Verdict) -> None:
        """Add a judgement to what is known of its configuration."""
        known = self.verdicts.get(verdict.key)
        self.verdicts[verdict.key] = known.and_then(verdict) if known else verdict
        self._most_ticks.clear()

    def ranking(self, policy: WeightPolicy | None = None) -> list[Verdict]:
        """Those that fit, of one policy or of all, the shortest step first; equals in the recipe's order."""
        fitting = [
            (verdict.step_ticks, self._places[verdict.key], verdict)
            for verdict in self.verdicts.values()
            if verdict.step_ticks is not None
            and policy in (None, verdict.policy)
            and verdict.key in self._places
        ]
        return [verdict for _, _, verdict in sorted(fitting, key=lambda entry: entry[:2])]

    def most_ticks(self, policy: WeightPolicy) -> int | None:
        """A step above this is not among the best wanted; None while there are too few."""
        if policy not in self._most_ticks:
            ranking = self.ranking(policy)
            enough = len(ranking) >= self.keep
            self._most_ticks[policy] = ranking[self.keep - 1].step_ticks if enough else None
        return self._most_ticks[policy]

    def least_ticks(self, outline: Outline) -> int:
        """The best bound known of a configuration."""
        known = self.verdicts.get(outline.key)
        return max(outline.least_ticks, known.least_ticks if known else 0)

    def can_win(self, outline: Outline) -> bool:
        """Whether a configuration may still be among the best wanted."""
        known = self.verdicts.get(outline.key)
        if outline.refusal or (known and known.refusal):
            return False
        most = self.most_ticks(outline.policy)
        return most is None or self.least_ticks(outline) <= most


def sweep(
    recipe: Recipe,
    executor: Executor,
    *,
    keep: int = KEEP,
    schedules: Sequence[str] = SCHEDULES,
    journal: Journal | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> Sweep:
    """Judge every configuration of a recipe.

    Bounds in closed form come first, for all. Then configurations are looked at in the order of their bounds,
    each twice: it is laid out, which gives a better bound, and when it is first again the schedules that are
    quick to build are tried. Those that can still win are then tried with all others. What is left out is
    proved to be no better than the ``keep``-th best of its policy; so the ``keep`` best are those that
    judging everything finds, however many processes there are.

    Parameters
    ----------
    recipe, executor
        What is judged, and where.
    keep
        How many of the best are wanted, of each policy.
    schedules
        The names of those to try.
    journal
        What is known from before, and where judgements are kept.
    on_verdict
        Called with every judgement.

    Returns
    -------
    All of it; after an interrupt (Ctrl-C) what there was until then.
    """
    standing = Sweep([recipe.outline(key) for key in recipe.keys], keep)
    if journal is not None:
        asked = {outline.key for outline in standing.outlines}
        known = journal.read().values()
        standing.verdicts = {verdict.key: verdict.of(schedules) for verdict in known if verdict.key in asked}

    def note(verdict: Verdict) -> None:
        if journal is not None:
            journal.add(verdict)
        standing.note(verdict)
        if on_verdict is not None:
            on_verdict(verdict)

    quick = [name for name in schedules if name in QUICK]
    try:
        for names in (quick, list(schedules)) if quick else (list(schedules),):
            _pass(recipe, executor, standing, names, note)
        standing.swept = True
    except KeyboardInterrupt:
        standing.interrupted = True
    return standing


def _pass(
    recipe: Recipe,
    executor: Executor,
    standing: Sweep,
    names: Sequence[str],
    note: Callable[[Verdict], None],
) -> None:
    """Try these schedules on whatever can still win, the lowest bound first; more than one call at a time.

    A configuration that is only outlined is laid out first, without schedules, and takes its turn again by
    the bound that this gives.
    """
    places = {outline.key: number for number, outline in enumerate(standing.outlines)}
    waiting = [(standing.least_ticks(outline), place) for place, outline in enumerate(standing.outlines)]
    heapq.heapify(waiting)
    under_way = 0
    while waiting or under_way:
        if not waiting or under_way >= 2 * executor.width:
            verdict = executor.next()
            under_way -= 1
            note(verdict)
            if not verdict.tried and not verdict.refusal:
                heapq.heappush(waiting, (verdict.least_ticks, places[verdict.key]))
            continue
        outline = standing.outlines[heapq.heappop(waiting)[1]]
        left = _left(standing, outline, names)
        if left and standing.can_win(outline):
            most = standing.most_ticks(outline.policy)
            known = standing.verdicts.get(outline.key)
            executor.submit(judge, recipe, outline.key, most, left if known else (), known)
            under_way += 1


def _left(standing: Sweep, outline: Outline, names: Sequence[str]) -> tuple[str, ...]:
    """The schedules not tried yet that the policy allows, and that bounds do not show to be too slow."""
    buffered = outline.policy is WeightPolicy.DOUBLE_BUFFERED
    allowed = tuple(name for name in names if (name == DOUBLE_BUFFERED) == buffered)
    known = standing.verdicts.get(outline.key)
    if known is None:
        return allowed
    wanted = [ticks for ticks in (standing.most_ticks(outline.policy), known.step_ticks) if ticks is not None]
    return tuple(
        name
        for name in allowed
        if name not in known.tried and all(known.least_ticks_of(name) <= ticks for ticks in wanted)
    )
