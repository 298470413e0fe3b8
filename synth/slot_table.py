"""Slot tables: a schedule on a grid of equal time slots, as CSV, written and read.

The middle one of the three levels in "A Tabular Schedule Abstraction for Communication-Aware Evaluation of
Pipeline-Parallel LLM Training" (arXiv 2605.24006): between closed formulas and a simulation with
communication. A row is a rank, a column a slot, a cell the op that runs, as ``2F0``; a blank cell is an idle
slot. An op that lasts several slots stands in each of them, side by side: every op runs once, so equal
neighbours are one op.

Read are the orders, of a table in which every op stands behind what it waits for. A schedule in which no op
could start earlier comes back as it was, times included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from synth.cells import Cells, PlacedOp, orders_in, placed_as_run, read_rows, refuse, shown
from synth.errors import InputError, InvalidOrdersError
from synth.graph import build_graph, divided_in_orders
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Links, OpCost, Problem, StageCosts, uniform_transfers
from synth.schedule import Schedule
from synth.timing import schedule_orders

MOST_SLOTS = 10_000
"""Tables are not wider than this."""

_UNIT_SLOTS: Mapping[OpKind, int] = MappingProxyType(
    {OpKind.F: 1, OpKind.B: 1, OpKind.W: 1, OpKind.BW: 2, OpKind.R: 1}
)
_LETTERS: Mapping[OpKind, str] = MappingProxyType({kind: kind.value for kind in OpKind})
_LONGEST_CELL = 40


class _Span(NamedTuple):
    """The cells of an op: a row, and the columns from the first to the last."""

    row: int
    first: int
    last: int


def unit_problem(problem: Problem, *, slot_ticks: int | None = None) -> Problem:
    """The idealised problem: every op lasts whole slots, a slot is a tick, and transfers take no time.

    Parameters
    ----------
    problem
        Its stages, placement and memory stay.
    slot_ticks
        The ticks of a slot: ops last as many slots as is nearest to their own ticks, at least one. By default
        F, B and W last one slot and BW two, whatever their ticks.

    Raises
    ------
    InputError
        When a slot has no ticks.
    """
    if slot_ticks is not None and slot_ticks < 1:
        raise InputError(f"a slot of {slot_ticks} ticks is given: give an integer ≥ 1")

    def idealised(kind: OpKind, cost: OpCost) -> OpCost:
        return replace(
            cost, ticks=_UNIT_SLOTS[kind] if slot_ticks is None else _slots(cost.ticks, slot_ticks)
        )

    def stage(costs: StageCosts) -> StageCosts:
        return costs.map_costs(idealised)

    return replace(
        problem,
        stages=tuple(map(stage, problem.stages)),
        transfer_ticks=uniform_transfers(problem.num_ranks, 0),
        links=Links.FREE,
        tick_seconds=problem.tick_seconds * (slot_ticks or 1),
    )


def to_slot_table(schedule: Schedule) -> str:
    """Write a schedule as a table, in the longest slots on whose borders all of its ops start and end.

    >>> from synth.baselines import baseline_orders
    >>> from synth.problem import uniform_problem
    >>> problem = uniform_problem(2, 3, StageCosts(F=OpCost(ticks=10), BW=OpCost(ticks=20)))
    >>> print(to_slot_table(schedule_orders(problem, baseline_orders("1f1b", problem))), end="")
    0F0,0F1,,,0BW0,0BW0,0F2,0BW1,0BW1,,0BW2,0BW2
    ,1F0,1BW0,1BW0,1F1,1BW1,1BW1,1F2,1BW2,1BW2,,

    Raises
    ------
    InputError
        When there would be more than :data:`MOST_SLOTS` columns.
    InvalidOrdersError
        When an op lasts no time or two ops of a rank overlap: no table shows that.
    """
    first, slot, width = _grid(schedule)
    if width > MOST_SLOTS:
        raise InputError(
            f"the schedule lasts {width} slots of {_count_ticks(slot)} and a table has at most {MOST_SLOTS}: "
            "lay its orders out in unit times, or give the problem coarser ticks"
        )
    lines = []
    for row in schedule.ranks:
        words = [""] * width
        for op, start, end in row:
            begin, behind = (start - first) // slot, (end - first) // slot
            words[begin:behind] = [str(op)] * (behind - begin)
        lines.append(",".join(words) + "\n")
    return "".join(lines)


def to_slot_table_that_fits(schedule: Schedule) -> str:
    """Write a schedule as a table, its orders in unit times where exact slots are too many.

    Raises
    ------
    InputError, InvalidOrdersError
        As :func:`to_slot_table`.
    """
    if _grid(schedule)[2] > MOST_SLOTS:
        schedule = schedule_orders(unit_problem(schedule.problem), schedule.orders)
    return to_slot_table(schedule)


def from_slot_table(text: str, problem: Problem, source: str = "") -> RankOrders:
    """Read the orders of a table.

    Parameters
    ----------
    text
        The CSV; rows may differ in length.
    problem
        Whose orders they are. Where it leaves its placement open (``auto``), any will do.
    source
        Where the text came from, for messages.

    Raises
    ------
    InputError
        Naming row and column of the first fault, and how many more there are; an op that is no later than
        one it waits for is such a fault.
    """
    orders = orders_in(_read_cells(text), problem, source)
    refuse(_too_early(_spans(text), problem, orders), source)
    return orders


def schedule_from_slot_table(text: str, problem: Problem, source: str = "") -> Schedule:
    """Read the orders of a table and give them their earliest times on a problem's costs.

    Where the problem's placement is ``auto``, every stage is on the rank whose row runs it.

    Raises
    ------
    InputError
        As :func:`from_slot_table`.
    """
    orders = from_slot_table(text, problem, source)
    return schedule_orders(placed_as_run(problem, orders), orders)


def _slots(ticks: int, slot_ticks: int) -> int:
    return max(1, (2 * ticks + slot_ticks) // (2 * slot_ticks))


def _grid(schedule: Schedule) -> tuple[int, int, int]:
    """The first tick, the ticks of a slot, and how many slots there are."""
    _check_rows(schedule)
    first = min(row[0].start for row in schedule.ranks)
    borders = [ticks - first for row in schedule.ranks for timed in row for ticks in timed[1:]]
    slot = math.gcd(*borders)
    return first, slot, max(borders) // slot


def _check_rows(schedule: Schedule) -> None:
    for rank, row in enumerate(schedule.ranks):
        behind = row[0].start
        for timed in row:
            if timed.end <= timed.start:
                raise InvalidOrdersError(
                    f"rank {rank} runs {timed.op} in no time: give it an end after its start"
                )
            if timed.start < behind:
                raise InvalidOrdersError(
                    f"rank {rank} starts {timed.op} at {timed.start}, before it ends the op before at "
                    f"{behind}: a table has one op in a slot"
                )
            behind = timed.end


def _count_ticks(number: int) -> str:
    return "1 tick" if number == 1 else f"{number} ticks"


def _read_cells(text: str) -> Cells:
    rows, fault = read_rows(text)
    faults = [fault] if fault else []
    placed: list[PlacedOp] = []
    blank = []
    for row, words in enumerate(rows, start=1):
        for column, word in _where_changed(words):
            op = _op_in(word)
            if not word:
                blank.append((row, column))
            elif op is None:
                faults.append(
                    f"row {row}, column {column} is {shown(word)}: write stage, kind F, B, W, BW or R, and "
                    "microbatch, as in 2F0, and leave idle slots blank"
                )
            else:
                placed.append(PlacedOp(op, row, column))
    return Cells(
        placed=tuple(placed), faults=tuple(faults), blank=tuple(blank), num_rows=len(rows), letters=_LETTERS
    )


def _spans(text: str) -> dict[Op, _Span]:
    """Where every op stands, in a table without faults."""
    spans = {}
    for row, words in enumerate(read_rows(text)[0], start=1):
        changes = [*_where_changed(words), (len(words) + 1, "")]
        for (first, word), (behind, _) in pairwise(changes):
            if word:
                spans[Op.parse(word)] = _Span(row, first, behind - 1)
    return spans


def _too_early(spans: Mapping[Op, _Span], problem: Problem, orders: RankOrders) -> list[str]:
    """A sentence for every op that begins before all it waits for has ended, the leftmost first."""
    graph = build_graph(problem, divided_in_orders(problem, orders))
    ops = [graph.op(number) for number in range(graph.num_ops)]
    faults = []
    for number, op in enumerate(ops):
        begin = spans[op]
        late = [
            ops[source] for source, _ in graph.predecessors(number) if spans[ops[source]].last >= begin.first
        ]
        if late:
            end = spans[late[0]]
            told = (
                f"row {begin.row}, column {begin.first} is {op}: it waits for {late[0]}, which ends in row "
                f"{end.row}, column {end.last}; put it behind"
            )
            faults.append((begin.first, begin.row, told))
    return [told for *_, told in sorted(faults)]


def _where_changed(words: list[str]) -> Iterator[tuple[int, str]]:
    """The (column, word) of every cell that differs from the one before it."""
    before = None
    for column, word in enumerate(words, start=1):
        if word != before:
            yield column, word
        before = word


def _op_in(word: str) -> Op | None:
    if len(word) > _LONGEST_CELL:
        return None
    try:
        return Op.parse(word)
    except InputError:
        return None
