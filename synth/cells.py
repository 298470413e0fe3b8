"""Tables of ops: a row per rank, an op or two per cell, and what can be wrong with them.

What the readers of such files share, whatever they call an op. Rows and columns are numbered from 1, as in a
spreadsheet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from synth.errors import InputError
from synth.ops import PASSES, Op, OpKind, RankOrders
from synth.placement import Placement, PlacementKind
from synth.problem import Problem

_LONGEST_SHOWN = 24
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class PlacedOp:
    """An op and the cell it stands in; several may share a cell."""

    op: Op
    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """What the cells of a file hold.

    Parameters
    ----------
    placed
        The ops, in reading order.
    faults
        A sentence for every cell that holds no op, or for a file that is no CSV.
    blank
        The (row, column) of every blank cell, at which a rank is idle.
    num_rows
        How many rows there are.
    letters
        What the file calls every kind of op.
    """

    placed: tuple[PlacedOp, ...]
    faults: tuple[str, ...]
    blank: tuple[tuple[int, int], ...]
    num_rows: int
    letters: Mapping[OpKind, str]

    def name(self, op: Op) -> str:
        """An op as the file writes it."""
        return f"{op.stage}{self.letters[op.kind]}{op.microbatch}"

    def at(self, placed: PlacedOp) -> str:
        """An op and its cell, the begin of a sentence."""
        return f"{where(placed)} is {self.name(placed.op)}"


def read_rows(text: str) -> tuple[list[list[str]], str]:
    """The words of every row, spaces around dropped, and what keeps the text from being a CSV."""
    rows: list[list[str]] = []
    if text.startswith(_BYTE_ORDER_MARK):
        return rows, "the file starts with a byte order mark: save it as UTF-8 without one"
    try:
        rows.extend([word.strip() for word in row] for row in csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        return rows, f"row {len(rows) + 1} is no CSV ({error}): give cells between commas"
    return rows, ""


def orders_in(cells: Cells, problem: Problem, source: str) -> RankOrders:
    """Every row's ops in the order of its cells.

    Raises
    ------
    InputError
        Naming row and column of the first fault, and how many more there are.
    """
    refuse(find_faults(cells, problem), source)
    return orders_of(cells.placed, problem.num_ranks)


def refuse(faults: Sequence[str], source: str) -> None:
    """Raise an InputError of the first fault and how many more there are, where there is any."""
    if faults:
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"{source + ': ' if source else ''}{faults[0]}{more}")


def orders_of(placed: Iterable[PlacedOp], num_ranks: int) -> RankOrders:
    """Every row's ops in the order of its cells, whatever they are."""
    rows: list[list[Op]] = [[] for _ in range(num_ranks)]
    for each in placed:
        rows[each.row - 1].append(each.op)
    return tuple(map(tuple, rows))


def placed_as_run(problem: Problem, orders: RankOrders) -> Problem:
    """The problem with every stage on the rank whose order runs it, where its placement is ``auto``."""
    if problem.placement.kind is not PlacementKind.AUTO:
        return problem
    rank_of = {op.stage: rank for rank, order in enumerate(orders) for op in order}
    return problem.with_placement(Placement.explicit([rank_of[s] for s in range(problem.num_stages)]))


def find_faults(cells: Cells, problem: Problem) -> list[str]:
    """Everything that keeps cells from being orders of a problem, a sentence each.

    Under placement ``auto`` a stage may be in any one row, else it must be in the row of its rank. What is
    missing is named only where every cell could be read.
    """
    faults = list(cells.faults)
    if cells.num_rows != problem.num_ranks:
        faults.append(
            f"the file has {_count(cells.num_rows, 'row')} and the problem "
            f"{_count(problem.num_ranks, 'rank')}: give one row per rank, without blank lines"
        )
    why_unknown = {p: why for p in cells.placed if (why := _why_unknown(p.op, problem, cells.letters))}
    known = [placed for placed in cells.placed if placed not in why_unknown]
    faults += (f"{cells.at(placed)}: {why}" for placed, why in why_unknown.items())
    faults += _misplaced(cells, known, problem)
    faults += _doubled(cells, known)
    if not cells.faults:
        faults += _missing(cells, {placed.op for placed in known}, problem)
        faults += _without_ops(cells, problem)
    return faults


def _why_unknown(op: Op, problem: Problem, letters: Mapping[OpKind, str]) -> str:
    """Why a problem has no such op, or nothing."""
    if op.stage >= problem.num_stages:
        return f"the problem has {_count(problem.num_stages, 'stage')}, numbered from 0"
    if op.microbatch >= problem.num_microbatches:
        return f"the problem has {_count(problem.num_microbatches, 'microbatch')}, numbered from 0"
    offered = [kind for kind, _ in problem.stages[op.stage].offered]
    if op.kind is OpKind.R and op.kind in offered:
        return "" if op.microbatch == 0 else "a sum of gradients runs once, as microbatch 0"
    if op.microbatch not in problem.microbatches_of(op.stage):
        return f"stage {op.stage} does not carry microbatch {op.microbatch}"
    if op.kind in offered:
        return ""
    names = ", ".join(letters[kind] for kind in offered)
    return f"the costs of stage {op.stage} offer only {names}; give the stage costs for it"


def _misplaced(cells: Cells, known: Sequence[PlacedOp], problem: Problem) -> Iterator[str]:
    """A stage in the row of another rank, or in two rows: its first cell there."""
    is_open = problem.placement.kind is PlacementKind.AUTO
    rows: dict[int, int] = {} if is_open else {s: r + 1 for s, r in enumerate(problem.stage_to_rank)}
    told = set()
    for placed in known:
        stage, row = placed.op.stage, placed.row
        due = rows.setdefault(stage, row)
        if row != due and (stage, row) not in told:
            told.add((stage, row))
            if is_open:
                yield f"{cells.at(placed)}: stage {stage} is in row {due} already; keep a stage in one row"
            else:
                yield (
                    f"{cells.at(placed)}: the problem places stage {stage} on rank {due - 1}, which is row "
                    f"{due}; move it there, or give the problem this placement, or auto"
                )


def _doubled(cells: Cells, known: Sequence[PlacedOp]) -> Iterator[str]:
    """An op in a second cell, or a backward both divided and undivided."""
    seen: dict[Op, PlacedOp] = {}
    for placed in known:
        first = seen.setdefault(placed.op, placed)
        if first is not placed:
            yield f"{cells.at(placed)}: it is in {where(first)} already; keep one"
    for op, placed in seen.items():
        if op.kind is OpKind.BW:
            for kind in (OpKind.B, OpKind.W):
                if part := seen.get(op._replace(kind=kind)):
                    twin = f"{cells.name(part.op)} of the same backward is in {where(part)}"
                    yield f"{cells.at(placed)}: {twin}; divide it or not"


def _missing(cells: Cells, present: set[Op], problem: Problem) -> Iterator[str]:
    """Ops that no cell runs."""
    is_open = problem.placement.kind is PlacementKind.AUTO
    for stage, rank in enumerate(problem.stage_to_rank):
        to = "" if is_open else f" to row {rank + 1}"
        for microbatch in problem.microbatches_of(stage):
            ops = {kind: Op(kind, stage, microbatch) for kind in PASSES}
            due = [ops[OpKind.F]]
            if ops[OpKind.B] in present or ops[OpKind.W] in present:
                due += [ops[OpKind.B], ops[OpKind.W]]
            elif ops[OpKind.BW] not in present:
                due.append(ops[OpKind.B if problem.stages[stage].must_divide else OpKind.BW])
            yield from (f"no cell runs {cells.name(op)}: add it{to}" for op in due if op not in present)
        if problem.stages[stage].R is not None and Op(OpKind.R, stage, 0) not in present:
            yield f"no cell runs {cells.name(Op(OpKind.R, stage, 0))}: add it{to}"


def _without_ops(cells: Cells, problem: Problem) -> Iterator[str]:
    filled = {placed.row for placed in cells.placed}
    rows = range(1, min(cells.num_rows, problem.num_ranks) + 1)
    yield from (f"row {row} holds no op: every rank runs a stage" for row in rows if row not in filled)


def where(placed: PlacedOp) -> str:
    """The cell of an op, in words."""
    return f"row {placed.row}, column {placed.column}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith("ch") else "s")


def shown(word: str) -> str:
    """A cell's text, cut off where it is long."""
    return repr(word if len(word) <= _LONGEST_SHOWN else word[:_LONGEST_SHOWN] + "…")
