"""One rank alone in CP-SAT: all its ops, every other rank a pure delay.

Every kind of pass on every stage is a row of slots in microbatch order; the n-th backward takes either form,
and the W of one left whole takes no time. Rows in microbatch order lose nothing, since microbatches are
identical: sort the starts of every row, and the n-th is still late enough behind the n-th end of whatever it
waits for, because the wait is the same for every microbatch; what the rank holds depends on the kinds of its
ops in order, and not on their microbatches. So what is live when an op starts follows from how many of every
row ended before: counts of prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from ortools.sat.python import cp_model
from ortools.sat.python.cp_model_helper import Literal

from synth.bounds.chains import (
    backward_tails,
    forward_heads,
    gradient_ticks,
    round_trip_ticks,
    way_back_ticks,
)
from synth.bounds.relaxation import leaves_choice
from synth.ops import OpKind
from synth.problem import Objective, OpCost, Problem

Expr: TypeAlias = cp_model.LinearExpr | int


class Row(NamedTuple):
    """One kind of pass on one stage: F, B for a backward of either form, or W."""

    stage: int
    kind: OpKind


class Slot(NamedTuple):
    """The n-th op of a row."""

    row: Row
    number: int


class Wait(NamedTuple):
    """A row whose n-th op waits for the n-th of another, so many ticks from its end."""

    source: Row
    target: Row
    lag_ticks: int


def one_rank_model(problem: Problem, rank: int, least_ticks: int, most_ticks: int) -> cp_model.CpModel:
    """The least time that a rank takes, where that is between two values; there is no solution above them.

    For the makespan the time begins with the schedule, and ends when the rank's last gradient can have come
    to stage 0; else it is the rank's own span.

    Parameters
    ----------
    problem, rank
        The rank of the problem that is kept.
    least_ticks, most_ticks
        The values. What takes less is a solution too, of the lower one.
    """
    model = _Model(problem, rank, most_ticks)
    end = model.cp.new_int_var(least_ticks, most_ticks, "end")
    for slot, ends in model.end.items():
        model.cp.add(end >= ends + model.tail_ticks(slot))
    model.cp.add(end >= model.work)  # implied, and stronger where the forms of backwards are open
    model.cp.minimize(end)
    return model.cp


def way_up_ticks(problem: Problem, rank: int) -> int:
    """What follows the end of a rank's last backward on its first stage, on the gradient's way to stage 0."""
    first = problem.stages_by_rank[rank][0]
    return problem.lag_ticks(first, first - 1) + backward_tails(problem)[first - 1] if first else 0


def serial_ticks(problem: Problem, rank: int) -> int:
    """What a rank never takes longer than, in whatever order: every op and every wait one after another."""
    each = sum(wait.lag_ticks for wait in _waits(problem, rank))
    for stage in problem.stages_by_rank[rank]:
        each += sum(cost.ticks for _, cost in problem.stages[stage].offered)
    slowest = sum(costs.F.ticks + gradient_ticks(problem, s) for s, costs in enumerate(problem.stages))
    ends = forward_heads(problem)[-1] + backward_tails(problem)[-1]
    return ends + problem.num_microbatches * (each + slowest)


def order_literals(problem: Problem, rank: int) -> int:
    """About how many orders of two ops a rank's model leaves open."""
    if problem.memory_limit_bytes is None:
        return 0
    costs = [cost for s in problem.stages_by_rank[rank] for _, cost in problem.stages[s].offered]
    allocate = sum(cost.alloc_bytes > 0 for cost in costs)
    return allocate * len(costs) * problem.num_microbatches**2 // 2


class _Model:
    """The variables: when slots start and end, which backwards are divided, what is before what."""

    def __init__(self, problem: Problem, rank: int, horizon_ticks: int) -> None:
        self.cp, self.problem, self.rank = cp_model.CpModel(), problem, rank
        self.held = problem.stages_by_rank[rank]
        self.is_makespan = problem.objective is Objective.MAKESPAN
        self.start: dict[Slot, cp_model.IntVar] = {}
        self.end: dict[Slot, Expr] = {}
        self._divided: dict[tuple[int, int], cp_model.IntVar] = {}
        self._before: dict[tuple[Slot, Slot], Literal] = {}
        self._waits = _waits(problem, rank)
        self._behind = _behind(self._waits)
        self._slots(horizon_ticks)
        self._microbatch_order()
        self._others_as_delays()
        self._memory_limit()
        self._prefixes()

    def _slots(self, horizon_ticks: int) -> None:
        """One op at a time."""
        intervals = []
        self.work: Expr = 0
        for row in _rows(self.problem, self.rank):
            for number in range(self.problem.num_microbatches):
                slot = Slot(row, number)
                start = self.start[slot] = self.cp.new_int_var(0, horizon_ticks, "")
                forms = self._forms(slot)
                if len(forms) == 1 and forms[0][1] is None:
                    ticks = forms[0][0].ticks
                    self.end[slot] = start + ticks
                    self.work += ticks
                    intervals.append(self.cp.new_fixed_size_interval_var(start, ticks, ""))
                else:
                    length = sum(_times(cost.ticks, chosen) for cost, chosen in forms)
                    end = self.end[slot] = self.cp.new_int_var(0, horizon_ticks, "")
                    intervals.append(self.cp.new_interval_var(start, length, end, ""))
                    self.work += length
        self.cp.add_no_overlap(intervals)

    def _forms(self, slot: Slot) -> list[tuple[OpCost, Literal | None]]:
        """The costs that a slot's op may have, each with its condition where there is a choice."""
        (stage, kind), number = slot
        costs = self.problem.stages[stage]
        if kind is OpKind.F:
            return [(costs.F, None)]
        if not costs.can_divide:
            return [(costs.cost(OpKind.BW), None)]
        if not leaves_choice(costs):
            return [(costs.cost(kind), None)]
        if (stage, number) not in self._divided:
            self._divided[stage, number] = self.cp.new_bool_var("")
        divided = self._divided[stage, number]
        whole = [] if kind is OpKind.W else [(costs.cost(OpKind.BW), ~divided)]
        return [(costs.cost(kind), divided), *whole]

    def _microbatch_order(self) -> None:
        """Every row runs its slots one after another."""
        for row in _rows(self.problem, self.rank):
            for earlier, later in pairwise(range(self.problem.num_microbatches)):
                self.cp.add(self.start[Slot(row, later)] >= self.end[Slot(row, earlier)])

    def _others_as_delays(self) -> None:
        """Every slot waits as long as the chains through the other ranks take at the least."""
        for number in range(self.problem.num_microbatches):
            for source, target, lag in self._waits:
                self.cp.add(self.start[Slot(target, number)] >= self.end[Slot(source, number)] + lag)
            self.cp.add(self.start[Slot(Row(self.held[0], OpKind.F), number)] >= self._head_ticks(number))

    def _head_ticks(self, number: int) -> int:
        """When a microbatch can have come to the rank: those before pass the stages ahead one by one."""
        if not self.is_makespan or not self.held[0]:
            return 0
        slowest = max(costs.F.ticks for costs in self.problem.stages[: self.held[0]])
        return forward_heads(self.problem)[self.held[0]] + number * slowest

    def tail_ticks(self, slot: Slot) -> int:
        """What follows a slot's end: the way of its gradient to stage 0, and of those behind it."""
        first = self.held[0]
        if not self.is_makespan or not first or slot.row != Row(first, OpKind.B):
            return 0
        slowest = max(gradient_ticks(self.problem, stage) for stage in range(first))
        behind = self.problem.num_microbatches - 1 - slot.number
        return way_up_ticks(self.problem, self.rank) + behind * slowest

    def _memory_limit(self) -> None:
        """Before any op that allocates, what the ops before it left leaves room for it."""
        if self.problem.memory_limit_bytes is None:
            return
        room = self.problem.memory_limit_bytes[self.rank] - self.problem.static_bytes_by_rank[self.rank]
        rows = _rows(self.problem, self.rank)
        for slot in self.start:
            needs = [_times(cost.alloc_bytes, chosen) for cost, chosen in self._forms(slot)]
            if any(cost.alloc_bytes for cost, _ in self._forms(slot)):
                left = [term for row in rows for term in self._left_before(row, slot)]
                self.cp.add(sum(needs) + sum(left) <= room)

    def _left_before(self, row: Row, slot: Slot) -> Iterator[Expr]:
        """What a row's ops before a slot leave: by their count, but where each may take two forms."""
        others = [Slot(row, number) for number in range(self.problem.num_microbatches)]
        forms = self._forms(others[0])
        if all(_left(cost) == 0 for cost, _ in forms):
            return
        before = [(other, self._precedes(other, slot)) for other in others if other != slot]
        if len(forms) == 1 and forms[0][1] is None:
            yield _left(forms[0][0]) * self._count([literal for _, literal in before])
            return
        for other, literal in before:
            for cost, chosen in self._forms(other):
                assert chosen is not None
                if literal is True:
                    yield _left(cost) * chosen
                elif literal is not False:
                    yield _left(cost) * self._both(literal, chosen)

    def _count(self, before: list[Literal | bool]) -> Expr:
        """How many ops of a row come before a slot, given for each whether it does: the first so many."""
        known = sum(literal is True for literal in before)
        asked = [literal for literal in before if not isinstance(literal, bool)]
        count = self.cp.new_int_var(0, len(asked), "")
        for number, literal in enumerate(asked):
            self.cp.add(count > number).only_enforce_if(literal)
            self.cp.add(count <= number).only_enforce_if(~literal)
        return known + count

    def _both(self, a: Literal, b: Literal) -> cp_model.IntVar:
        both = self.cp.new_bool_var("")
        self.cp.add_bool_and([a, b]).only_enforce_if(both)
        self.cp.add_bool_or([~a, ~b, both])
        return both

    def _precedes(self, first: Slot, then: Slot) -> Literal | bool:
        """Whether one op comes before another: known from the waits, or a literal of the model."""
        if self._must_precede(first, then):
            return True
        if self._must_precede(then, first):
            return False
        if (then, first) in self._before:
            return ~self._before[then, first]
        if (first, then) not in self._before:
            literal = self._before[first, then] = self.cp.new_bool_var("")
            self.cp.add(self.start[then] >= self.end[first]).only_enforce_if(literal)
            self.cp.add(self.start[first] >= self.end[then]).only_enforce_if(~literal)
        return self._before[first, then]

    def _must_precede(self, first: Slot, then: Slot) -> bool:
        """Whether waits and microbatch order put an op before another."""
        if first.row == then.row:
            return first.number < then.number
        return first.number <= then.number and then.row in self._behind[first.row]

    def _prefixes(self) -> None:
        """What comes before an op comes before the next of its row, and so does what came before that."""
        for (first, then), literal in self._before.items():
            following = (first._replace(number=first.number + 1), then)
            if following in self._before:
                self.cp.add_implication(self._before[following], literal)
            following = (first, then._replace(number=then.number + 1))
            if following in self._before:
                self.cp.add_implication(literal, self._before[following])


def _rows(problem: Problem, rank: int) -> list[Row]:
    """The rows of a rank."""
    kinds = (OpKind.F, OpKind.B, OpKind.W)
    return [
        Row(stage, kind)
        for stage in problem.stages_by_rank[rank]
        for kind in kinds
        if kind is not OpKind.W or problem.stages[stage].can_divide
    ]


def _waits(problem: Problem, rank: int) -> list[Wait]:
    """What waits for what on a rank, with the least ticks in between."""
    heads, held, waits = forward_heads(problem), problem.stages_by_rank[rank], []
    for near, far in pairwise(held):
        down = heads[far] - heads[near] - problem.stages[near].F.ticks
        up = way_back_ticks(problem, far, near) - gradient_ticks(problem, far)
        waits.append(Wait(Row(near, OpKind.F), Row(far, OpKind.F), down))
        waits.append(Wait(Row(far, OpKind.B), Row(near, OpKind.B), up))
    for stage in held:
        turn = round_trip_ticks(problem, stage, stage)
        waits.append(Wait(Row(stage, OpKind.F), Row(stage, OpKind.B), turn))
        if problem.stages[stage].can_divide:
            waits.append(Wait(Row(stage, OpKind.B), Row(stage, OpKind.W), 0))
    return waits


def _behind(waits: list[Wait]) -> dict[Row, set[Row]]:
    """For every row, those that wait for it, themselves or through others."""
    behind: dict[Row, set[Row]] = {row: set() for wait in waits for row in (wait.source, wait.target)}
    for _ in behind:
        for source, target, _lag in waits:
            behind[source] |= {target} | behind[target]
    return behind


def _left(cost: OpCost) -> int:
    """What an op leaves live."""
    return cost.alloc_bytes - cost.free_bytes


def _times(size: int, chosen: Literal | None) -> Expr:
    return size if chosen is None else size * chosen
