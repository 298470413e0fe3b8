"""The counter formulation in clauses: is there a schedule of a V, or a steady state, of so many slots?

Microbatches are identical, so every stream (one kind of op on one stage) runs them in order, and a schedule
is what its counters say: how many ops of each stream have started by the end of each slot. Written in unary,
a counter's digits are literals "op k of this stream has started by t", and every rule is a few short clauses.
A solver for Boolean satisfiability then decides what the linear relaxation only bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, combinations, pairwise
from typing import TypeVar

from pysat.solvers import Cadical195

from synth import Problem
from synth.ops import Op, OpKind, RankOrders
from synth.schedule import Schedule

YES, NO = 1, -1
"""The literal that always holds, and its negation."""

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Grid:
    """A V of equal stages whose ticks are few enough for each to be a slot.

    Parameters
    ----------
    problem
        Stages in a V, all alike; a microbatch holds one unit of memory on each from F to the end of W.
    """

    problem: Problem

    def length(self, kind: OpKind) -> int:
        """Slots that an op takes."""
        return self.problem.stages[0].cost(kind).ticks

    def work(self) -> int:
        """Slots that a microbatch takes of every rank."""
        return sum(2 * self.length(kind) for kind, _ in self.problem.stages[0].offered)

    def way(self) -> list[Op]:
        """The forwards and backwards of a microbatch in order, as those of microbatch 0."""
        stages = range(self.problem.num_stages)
        return [Op(OpKind.F, s, 0) for s in stages] + [Op(OpKind.B, s, 0) for s in reversed(stages)]

    def waits(self) -> list[int]:
        """Slots from the start of each of them to that of the next."""
        return [
            self.length(here.kind)
            + (self.problem.lag_ticks(here.stage, there.stage) if here.stage != there.stage else 0)
            for here, there in pairwise(self.way())
        ]


@dataclass(frozen=True, slots=True)
class Start:
    """When an op starts: a literal for every slot between the earliest and the latest."""

    earliest: int
    latest: int
    before: int

    def is_at_least(self, slot: int) -> int:
        """The literal that it starts in this slot or later."""
        if slot <= self.earliest:
            return YES
        return NO if slot > self.latest else self.before + slot


class _Clauses:
    """What both questions to the solver share: starts, what is later than what, and its answer.

    Parameters
    ----------
    grid
        The problem.
    count
        Microbatches.
    """

    def __init__(self, grid: Grid, count: int) -> None:
        self.grid, self.count = grid, count
        self.num_variables, self.num_clauses = YES, 0
        self._solver = Cadical195()
        self._add(YES)
        self.starts: dict[Op, Start] = {}

    def fits(self) -> bool:
        """The answer."""
        answer: bool = self._solver.solve()
        return answer

    def _add(self, *literals: int) -> None:
        if YES not in literals or literals == (YES,):
            self._solver.add_clause([literal for literal in literals if literal != NO])
            self.num_clauses += 1

    def _variables(self, number: int) -> int:
        """New variables; returns the one before them."""
        before = self.num_variables
        self.num_variables += number
        return before

    def _start(self, earliest: int, latest: int) -> Start:
        start = Start(earliest, latest, self._variables(latest - earliest) - earliest)
        for slot in range(earliest + 1, latest):
            self._add(-start.is_at_least(slot + 1), start.is_at_least(slot))
        return start

    def _later(self, op: Start, than: Start, slots: int) -> None:
        """One op starts at least so many slots after another."""
        for slot in range(than.earliest, than.latest + 1):
            self._add(-than.is_at_least(slot), op.is_at_least(slot + slots))

    def _run_in_order(self) -> None:
        """A microbatch goes its way, W comes after B, and every stream runs its microbatches in order."""
        way, waits = self.grid.way(), self.grid.waits()
        for k in range(self.count):
            for (here, there), slots in zip(pairwise(way), waits, strict=True):
                after = self.starts[Op(there.kind, there.stage, k)]
                self._later(after, self.starts[Op(here.kind, here.stage, k)], slots)
        for op, start in self.starts.items():
            if op.kind is OpKind.W:
                before = self.starts[Op(OpKind.B, op.stage, op.microbatch)]
                self._later(start, before, self.grid.length(OpKind.B))
            if op.microbatch:
                before = self.starts[Op(op.kind, op.stage, op.microbatch - 1)]
                self._later(start, before, self.grid.length(op.kind))

    def _one_op_at_a_time(self, stages: tuple[int, ...]) -> None:
        """No two streams of a rank are at work in the same slot."""
        at_work = [self._at_work(kind, stage) for stage in stages for kind in (OpKind.F, OpKind.B, OpKind.W)]
        for one, other in combinations(at_work, 2):
            for slot in one.keys() & other.keys():
                self._add(-one[slot], -other[slot])

    def _at_work(self, kind: OpKind, stage: int) -> dict[int, int]:
        """For every slot the literal that one of a stream's ops runs in it."""
        length = self.grid.length(kind)
        literals: dict[int, int] = {}
        for k in range(self.count):
            op = self.starts[Op(kind, stage, k)]
            for slot in range(op.earliest, op.latest + length):
                literal = self._literal(literals, self._same(slot))
                self._add(op.is_at_least(slot + 1), -op.is_at_least(slot - length + 1), literal)
        return literals

    def _within_memory(self, stages: tuple[int, ...]) -> None:
        """Where one stage of a rank holds so many activations, the other holds no more than are left."""
        limits = self.grid.problem.memory_limit_bytes
        assert limits is not None, "a problem with a memory limit"
        (limit,) = set(limits)
        one, other = (self._held(stage, limit) for stage in stages)
        for (held, slot), literal in one.items():
            self._add(-literal, -other.get((limit + 1 - held, slot), NO))

    def _held(self, stage: int, limit: int) -> dict[tuple[int, int], int]:
        """For every number up to the limit and every slot the literal that a stage holds that many, or more.

        It does where one microbatch has not ended its W and the one that many less one later has begun.
        """
        length = self.grid.length(OpKind.W)
        literals: dict[tuple[int, int], int] = {}
        for held in range(1, limit + 2):
            for k, begins, after in self._behind(stage, held - 1):
                lets_go = self.starts[Op(OpKind.W, stage, k)]
                if held > limit:
                    self._later(begins, lets_go, length - after)
                    continue
                for slot in range(begins.earliest + after, lets_go.latest + length):
                    literal = self._literal(literals, (held, self._same(slot)))
                    yet, not_yet = (
                        begins.is_at_least(slot - after + 1),
                        lets_go.is_at_least(slot - length + 1),
                    )
                    self._add(yet, -not_yet, literal)
        return literals

    def _literal(self, literals: dict[_Key, int], key: _Key) -> int:
        """The literal of a key, a new one where there is none yet."""
        if key not in literals:
            literals[key] = self._variables(1) + 1
        return literals[key]

    def _same(self, slot: int) -> int:
        """The first of all slots in which the same happens."""
        return slot

    def _behind(self, stage: int, number: int) -> Iterator[tuple[int, Start, int]]:
        """Every microbatch, F of the one so many behind it, and the slots to add to that start."""
        for k in range(self.count - number):
            yield k, self.starts[Op(OpKind.F, stage, k + number)], 0


class WholeSchedule(_Clauses):
    """Does a schedule of all microbatches fit in so many slots?

    Parameters
    ----------
    grid
        The problem, whose objective is ``rank_span``: no rank may take longer from its first start to its
        last end.
    span
        Slots.
    """

    def __init__(self, grid: Grid, span: int) -> None:
        super().__init__(grid, grid.problem.num_microbatches)
        self.span = span
        self._make_starts()
        self._run_in_order()
        self._span_no_more()
        for stages in grid.problem.stages_by_rank:
            self._one_op_at_a_time(stages)
            self._within_memory(stages)

    def admits(self, schedule: Schedule) -> bool:
        """Whether the clauses hold for a schedule of the problem, which starts in slot 0."""
        literals = []
        for timed in chain.from_iterable(schedule.ranks):
            start = self.starts[timed.op]
            literals += [start.is_at_least(timed.start), -start.is_at_least(timed.start + 1)]
        answer: bool = self._solver.solve(assumptions=literals)
        return answer

    def orders(self) -> RankOrders:
        """The order of every rank's ops in the schedule that was found to fit."""
        holds = {literal for literal in self._solver.get_model() if literal > 0}
        at = {
            op: start.earliest
            + sum(start.before + slot in holds for slot in range(start.earliest + 1, start.latest + 1))
            for op, start in self.starts.items()
        }
        return tuple(
            tuple(sorted((op for op in at if op.stage in stages), key=lambda op: at[op]))
            for stages in self.grid.problem.stages_by_rank
        )

    def _make_starts(self) -> None:
        """As early and as late as a microbatch's own way and those before and behind it allow."""
        grid, length = self.grid, self.grid.length
        heads = list(accumulate(grid.waits(), initial=0))
        for step, head in zip(grid.way(), heads, strict=True):
            tail = heads[-1] - head + length(OpKind.B) + length(OpKind.W)
            for k in range(self.count):
                earliest = head + k * length(step.kind)
                latest = self.span - tail - (self.count - 1 - k) * length(step.kind)
                self.starts[Op(step.kind, step.stage, k)] = self._start(earliest, latest)
        self._add(-self.starts[Op(OpKind.F, 0, 0)].is_at_least(1))
        for stage in range(grid.problem.num_stages):
            first = self.starts[self._first(stage)].latest if stage in self._not_on_first_rank() else 0
            for k in range(self.count):
                earliest = self.starts[Op(OpKind.B, stage, k)].earliest + length(OpKind.B)
                latest = first + self.span - (self.count - k) * length(OpKind.W)
                self.starts[Op(OpKind.W, stage, k)] = self._start(earliest, latest)

    def _not_on_first_rank(self) -> set[int]:
        ranks = self.grid.problem.stage_to_rank
        return {stage for stage, rank in enumerate(ranks) if rank != ranks[0]}

    def _first(self, stage: int) -> Op:
        """The first op of a stage's rank."""
        problem = self.grid.problem
        return Op(OpKind.F, min(problem.stages_by_rank[problem.stage_to_rank[stage]]), 0)

    def _span_no_more(self) -> None:
        """The last W of every stage ends no later than a span after its rank's first start."""
        for stage in self._not_on_first_rank():
            last = self.starts[Op(OpKind.W, stage, self.count - 1)]
            self._later(self.starts[self._first(stage)], last, self.grid.length(OpKind.W) - self.span)


class SteadyState(_Clauses):
    """May a few microbatches take turns, each as the one so many before it did a period earlier?

    Parameters
    ----------
    grid
        The problem.
    count
        Microbatches in a period.
    period
        Slots.
    most_wait
        Slots that a microbatch may wait on its way, all in all, and a W after its B.
    """

    def __init__(self, grid: Grid, count: int, period: int, most_wait: int) -> None:
        super().__init__(grid, count)
        self.period, self.most_wait = period, most_wait
        self._make_starts()
        self._run_in_order()
        self._wait_no_more()
        self._come_round()
        for stages in grid.problem.stages_by_rank:
            self._one_op_at_a_time(stages)
            self._within_memory(stages)

    def _make_starts(self) -> None:
        """The first microbatch enters in slot 0, the others in turn before it comes round."""
        grid, length = self.grid, self.grid.length
        apart = min(length(OpKind.F), length(OpKind.B))
        for step, head in zip(grid.way(), accumulate(grid.waits(), initial=0), strict=True):
            for k in range(self.count):
                entry = self.period - (self.count - k) * apart if k else 0
                start = self._start(head + k * apart, head + entry + self.most_wait)
                self.starts[Op(step.kind, step.stage, k)] = start
        self._add(-self.starts[Op(OpKind.F, 0, 0)].is_at_least(1))
        for stage in range(grid.problem.num_stages):
            for k in range(self.count):
                after = self.starts[Op(OpKind.B, stage, k)]
                soonest = after.earliest + length(OpKind.B)
                latest = after.latest + length(OpKind.B) + self.most_wait
                self.starts[Op(OpKind.W, stage, k)] = self._start(soonest, latest)

    def _wait_no_more(self) -> None:
        way_slots = sum(self.grid.waits()) + self.most_wait
        for k in range(self.count):
            entry, out = self.starts[Op(OpKind.F, 0, k)], self.starts[Op(OpKind.B, 0, k)]
            self._later(entry, out, -way_slots)
            for stage in range(self.grid.problem.num_stages):
                after, weight = (self.starts[Op(kind, stage, k)] for kind in (OpKind.B, OpKind.W))
                self._later(after, weight, -self.grid.length(OpKind.B) - self.most_wait)

    def _come_round(self) -> None:
        """In every stream the first microbatch of the next period comes after the last of this one."""
        for op, start in self.starts.items():
            if op.microbatch == 0:
                last = self.starts[Op(op.kind, op.stage, self.count - 1)]
                self._later(start, last, self.grid.length(op.kind) - self.period)

    def _same(self, slot: int) -> int:
        return slot % self.period

    def _behind(self, stage: int, number: int) -> Iterator[tuple[int, Start, int]]:
        for k in range(self.count):
            laps, turn = divmod(k + number, self.count)
            yield k, self.starts[Op(OpKind.F, stage, turn)], laps * self.period
