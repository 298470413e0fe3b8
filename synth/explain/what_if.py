"""What would shorten a schedule: questions answered by timing its orders anew, or by searching anew.

Faster links and other stage times leave the orders executable, so their effect is exact: the same orders at
the new costs. More memory changes nothing about given orders, so that question goes to the search; and so do
links and balance a second time: a schedule made for the new costs may gain more than the old orders do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from synth.graph import KINDS, Ints, build_graph, divided_in_orders
from synth.ops import OpKind
from synth.problem import LARGEST_SUM, Objective, Problem, StageCosts
from synth.schedule import Schedule, fits, peak_memory_bytes
from synth.search.synthesizer import Result
from synth.timing import earliest_starts, schedule_orders

MOST_NAMED = 3
"""Of all links and all stages, only those that change the value most are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one change would do to the value.

    Parameters
    ----------
    change
        What would be different.
    value, before
        Ticks with and without the change, found the same way; not whole where re-timing divides ticks.
    lower_bound
        What no schedule can beat under the change, where the search was asked; None for re-timed orders.
    """

    change: str
    value: Fraction
    before: Fraction
    lower_bound: int | None = None

    @property
    def gain(self) -> float:
        """The share of the value that the change saves; negative where it costs."""
        return float(1 - self.value / self.before)

    @property
    def how(self) -> str:
        """Where the answer comes from."""
        return "same orders" if self.lower_bound is None else "searched anew"


def retimed_answers(schedule: Schedule) -> list[Answer]:
    """What faster links, balanced stages and faster stages would do with the schedule's own orders.

    Every link, and each of those that matter most, at twice the speed; no transfer time at all; every stage
    as long as their mean; and each stage that matters most a tenth faster.

    Parameters
    ----------
    schedule
        Its orders are used, and where spans count its ranks' first starts, but no other times.
    """
    orders = _Orders(schedule)
    before, planned = orders.value(), Fraction(schedule.value)

    def answer(change: str, *, lag: Ints = orders.lag, ticks: Ints = orders.ticks) -> Answer:
        return Answer(change=change, value=orders.value(lag=lag, ticks=ticks), before=before)

    answers = []
    if before != planned:
        change = "nothing but every op as early as its costs allow"
        answers.append(Answer(change=change, value=before, before=planned))
    if orders.lag.any():
        answers.append(answer("every link twice as fast", lag=orders.lag // 2))
        answers.append(answer("transfers take no time", lag=0 * orders.lag))
        answers += _most_telling(
            answer(f"the link between ranks {a} and {b} twice as fast", lag=np.where(between, lag // 2, lag))
            for lag in [orders.lag]
            for a, b, between in orders.links()
        )
    balanced = orders.balanced()
    if (balanced != orders.ticks).any():
        answers.append(answer("every stage as long as their mean", ticks=balanced))
    answers += _most_telling(
        answer(f"{stage} a tenth faster", ticks=np.where(on_it, ticks - ticks // 10, ticks))
        for ticks in [orders.ticks]
        for stage, on_it in orders.stages()
    )
    return answers


def _most_telling(answers: Iterator[Answer]) -> list[Answer]:
    useful = [answer for answer in answers if answer.value < answer.before]
    return sorted(useful, key=lambda answer: answer.value)[:MOST_NAMED]


class _Orders:
    """A schedule's orders, to be timed under other costs.

    Ticks are counted in parts so small that a half, a tenth and the mean of all stages are whole; where the
    sums would become too large for that they are so large that rounding to ticks means nothing.
    """

    def __init__(self, schedule: Schedule) -> None:
        problem = self._problem = schedule.problem
        self._graph = build_graph(problem, divided_in_orders(problem, schedule.orders))
        self._ids = self._graph.orders_to_ids(schedule.orders)
        first_starts = np.array([rank[0].start for rank in schedule.ranks])
        longest = int(self._graph.ticks.sum() + self._graph.edge_lag.sum() + abs(first_starts).max())
        scale = lcm(20, problem.num_stages)
        self._scale = scale if longest * scale < LARGEST_SUM else 1
        self._first_starts = (first_starts - first_starts.min()) * self._scale
        self.ticks: Ints = self._graph.ticks * self._scale
        self.lag: Ints = self._graph.edge_lag * self._scale

    def value(self, *, lag: Ints | None = None, ticks: Ints | None = None) -> Fraction:
        """The objective's value under other lags or durations, ticks.

        A rank that starts later may take a shorter span: there the ranks start as planned if that is better.
        """
        graph = replace(self._graph, edge_lag=self.lag if lag is None else lag)
        duration = self.ticks if ticks is None else ticks
        releases = [None]
        if self._problem.objective is Objective.RANK_SPAN:
            releases.append(self._first_starts.tolist())
        values = []
        for release in releases:
            starts = earliest_starts(graph, self._ids, ticks=duration, release_ticks=release)
            first = np.array([starts[ids[0]] for ids in self._ids])
            last = np.array([starts[ids[-1]] + duration[ids[-1]] for ids in self._ids])
            spans = self._problem.objective is Objective.RANK_SPAN
            values.append(int((last - first).max() if spans else last.max() - first.min()))
        return Fraction(min(values), self._scale)

    def links(self) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
        """Both directions of every link in use, with the edges that cross it."""
        graph = self._graph
        to = np.repeat(np.arange(graph.num_ops), np.diff(graph.edge_start))
        ends = np.sort([graph.rank[graph.edge_from], graph.rank[to]], axis=0)
        for a, b in np.unique(ends[:, graph.edge_lag > 0], axis=1).T.tolist():
            yield a, b, (ends[0] == a) & (ends[1] == b)

    def stages(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Every stage with its ops; of a flow every stage of the model, in all directions and slices."""
        feeds = self._problem.feeds
        alike = np.array([feed.model_stage for feed in feeds] or range(self._problem.num_stages))
        for stage in sorted(set(alike.tolist())):
            yield f"{'model stage' if feeds else 'stage'} {stage}", alike[self._graph.stage] == stage

    def balanced(self) -> Ints:
        """Durations with every stage's ops of a kind as long as the stages' mean."""
        mean = _mean_ticks(self._problem)
        ticks = [
            [round(mean.get((kind, number), Fraction(0)) * self._scale) for number in _slices(self._problem)]
            for kind in KINDS
        ]
        balanced: Ints = np.array(ticks, dtype=np.int64)[self._graph.kind, self._graph.stage]
        return balanced


@dataclass(frozen=True, slots=True)
class Question:
    """A changed problem for the search.

    Parameters
    ----------
    change
        What is different.
    problem
        With the change.
    only_eases
        Whether every schedule of the problem as it was stays possible and takes no longer.
    """

    change: str
    problem: Problem
    only_eases: bool


def search_questions(problem: Problem) -> list[Question]:
    """More memory, faster links and balanced stages, as far as the problem leaves room for them."""
    questions = []
    if problem.memory_limit_bytes is not None:
        units = [min(problem.stages[s].F.alloc_bytes for s in held) for held in problem.stages_by_rank]
        more = [limit + unit for limit, unit in zip(problem.memory_limit_bytes, units, strict=True)]
        change = "memory for one more forward on every rank"
        questions.append(Question(change, problem.with_memory_limit(more), True))
        questions.append(Question("no memory limit", problem.with_memory_limit(None), True))
    if any(map(any, problem.transfer_ticks)):
        halved = tuple(tuple(ticks // 2 for ticks in row) for row in problem.transfer_ticks)
        change = "every link twice as fast"
        questions.append(Question(change, replace(problem, transfer_ticks=halved), True))
    balanced = balanced_stages(problem)
    if balanced != problem.stages:
        change = "every stage as long as their mean"
        questions.append(Question(change, replace(problem, stages=balanced), False))
    return questions


def searched_anew(schedule: Schedule, result: Result) -> Answer:
    """What a search finds with nothing changed: how far the given schedule is from what can be had.

    Parameters
    ----------
    schedule
        The given one. Its orders count at its problem's costs and only within its limits: it may be measured,
        or hold too much.
    result
        The search's, for the schedule's problem.
    """
    retimed = schedule_orders(schedule.problem, schedule.orders)
    peaks = peak_memory_bytes(schedule.problem, schedule.orders)
    found = [result.value, retimed.value] if fits(schedule.problem, peaks) else [result.value]
    return Answer(
        change="nothing, searched anew",
        value=Fraction(min(found)),
        before=Fraction(retimed.value),
        lower_bound=result.lower_bound,
    )


def searched_answer(question: Question, result: Result, unchanged: Answer) -> Answer:
    """The answer to a question, from what a search found.

    Parameters
    ----------
    question
        The change.
    result
        The search's, for the changed problem.
    unchanged
        What a search of the same effort finds without the change.
    """
    value = Fraction(result.value)
    return Answer(
        change=question.change,
        value=min(value, unchanged.value) if question.only_eases else value,
        before=unchanged.value,
        lower_bound=result.lower_bound,
    )


def balanced_stages(problem: Problem) -> tuple[StageCosts, ...]:
    """The stages with every op as long as the mean over the stages that offer its kind; bytes as they are.

    Sequence slices differ by their nature: each is as long as the mean of the slices of its number.
    """
    mean = {key: max(1, round(exact)) for key, exact in _mean_ticks(problem).items()}

    def balanced(costs: StageCosts, number: int) -> StageCosts:
        return costs.map_costs(lambda kind, cost: replace(cost, ticks=mean[kind, number]))

    return tuple(map(balanced, problem.stages, _slices(problem)))


def _slices(problem: Problem) -> list[int]:
    """The slice of every stage."""
    return [feed.slice for feed in problem.feeds] or [0] * problem.num_stages


def _mean_ticks(problem: Problem) -> dict[tuple[OpKind, int], Fraction]:
    """What a kind of op of one slice takes in the mean over the stages that offer it."""
    ticks: dict[tuple[OpKind, int], list[int]] = {}
    for costs, number in zip(problem.stages, _slices(problem), strict=True):
        for kind, cost in costs.offered:
            ticks.setdefault((kind, number), []).append(cost.ticks)
    return {key: Fraction(sum(found), len(found)) for key, found in ticks.items()}
