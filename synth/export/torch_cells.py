"""The cells of a PyTorch pipelining CSV: a row per rank, an action per cell, and what can be wrong with them.

An action is ``<stage><letter><microbatch>`` with PyTorch's letters: F forward, I gradient of the input, W of
the weights, B both undivided (``torch.distributed.pipelining.schedules``, 2.13, format ``compute_only``).
PyTorch matches its pattern at the start of a cell only and counts sets, so it takes ``0F0junk`` for ``0F0``
and lets a doubled action pass; here every cell counts. Rows and columns are numbered from 1, as in a
spreadsheet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from synth.export.torch_names import TORCH_LETTERS, torch_action
from synth.ops import Op, OpKind
from synth.placement import PlacementKind
from synth.problem import Problem

_KINDS = {letter: kind for kind, letter in TORCH_LETTERS.items()}
_NUMBER = "(0|[1-9][0-9]{0,8})"
_ACTION = re.compile(f"{_NUMBER}([FIWB]){_NUMBER}")
_ACTION_IN_ANY_CASE = re.compile(_ACTION.pattern, re.IGNORECASE)
_COMMUNICATION = re.compile(
    r"[0-9]+((WAIT_)?(SEND|RECV)_[FB]|UNSHARD|RESHARD|(WAIT_)?REDUCE_GRAD)[0-9]*", re.IGNORECASE
)
_COMPOUND = re.compile(r"\(([^()]*)\)([A-Z_]*)")
_OVERLAPPED = "OVERLAP_F_B"
"""The one compound action: a forward and a backward, which PyTorch by default runs one after the other."""
_LONGEST_SHOWN = 24
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class PlacedOp:
    """An op and the cell it stands in; several share the cell of a compound action."""

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
        A sentence for every cell that holds no action, or for a file that is no CSV.
    blank
        The (row, column) of every blank cell, at which a rank is idle.
    num_rows
        How many rows there are.
    """

    placed: tuple[PlacedOp, ...]
    faults: tuple[str, ...]
    blank: tuple[tuple[int, int], ...]
    num_rows: int


def read_cells(text: str) -> Cells:
    """Read every cell as PyTorch's loader does, but whole: blank ones are idle, spaces around are dropped."""
    placed: list[PlacedOp] = []
    faults: list[str] = []
    blank = []
    rows, fault = _rows(text)
    if fault:
        faults.append(fault)
    for row, words in enumerate(rows, start=1):
        for column, word in enumerate(map(str.strip, words), start=1):
            if not word:
                blank.append((row, column))
                continue
            ops, fault = _ops_in(word)
            placed += (PlacedOp(op, row, column) for op in ops)
            if fault:
                faults.append(f"row {row}, column {column} is {_shown(word)}: {fault}")
    return Cells(placed=tuple(placed), faults=tuple(faults), blank=tuple(blank), num_rows=len(rows))


def _rows(text: str) -> tuple[list[list[str]], str]:
    """The words of every row, and what keeps the text from being a CSV."""
    rows: list[list[str]] = []
    if text.startswith(_BYTE_ORDER_MARK):
        return rows, "the file starts with a byte order mark: save it as UTF-8 without one"
    try:
        rows.extend(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        return rows, f"row {len(rows) + 1} is no CSV ({error}): give actions between commas"
    return rows, ""


def _ops_in(word: str) -> tuple[list[Op], str]:
    """The ops of a cell, several in a compound action, and why it holds none."""
    ops = []
    parts, fault = _split(word)
    for part in parts:
        match = _ACTION.fullmatch(part)
        if match is None:
            return [], _why_no_action(part)
        ops.append(Op(_KINDS[match[2]], int(match[1]), int(match[3])))
    return ops, fault


def _split(word: str) -> tuple[list[str], str]:
    """The single actions of a cell, and what is wrong with it as a compound."""
    compound = _COMPOUND.fullmatch(word)
    if compound is None:
        return [word], ""
    if compound[2] != _OVERLAPPED:
        return [], f"the one compound is (<forward>;<backward>){_OVERLAPPED}; give every action its cell"
    return [part.strip() for part in compound[1].split(";")], ""


def _why_no_action(word: str) -> str:
    if _COMMUNICATION.fullmatch(word):
        return 'this is communication; dump the schedule with format="compute_only", PyTorch adds it again'
    if _ACTION_IN_ANY_CASE.fullmatch(word):
        return f"write it in capitals, {word.upper()}"
    if match := _ACTION.match(word):
        return f"only {match[0]} of it is an action; remove what follows"
    return "write stage, F, I, W or B, and microbatch, as in 2F0; a file has neither header nor notes"


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
    why_unknown = {placed: why for placed in cells.placed if (why := _why_unknown(placed.op, problem))}
    known = [placed for placed in cells.placed if placed not in why_unknown]
    faults += (f"{_at(placed)}: {why}" for placed, why in why_unknown.items())
    faults += _misplaced(known, problem)
    faults += _doubled(known)
    if not cells.faults:
        faults += _missing({placed.op for placed in known}, problem)
        faults += _without_ops(cells, problem)
    return faults


def _why_unknown(op: Op, problem: Problem) -> str:
    """Why a problem has no such op, or nothing."""
    if op.stage >= problem.num_stages:
        return f"the problem has {_count(problem.num_stages, 'stage')}, numbered from 0"
    if op.microbatch >= problem.num_microbatches:
        return f"the problem has {_count(problem.num_microbatches, 'microbatch')}, numbered from 0"
    offered = [kind for kind, _ in problem.stages[op.stage].offered]
    if op.kind in offered:
        return ""
    letters = ", ".join(TORCH_LETTERS[kind] for kind in offered)
    return f"the costs of stage {op.stage} offer only {letters}; give the stage costs for it"


def _misplaced(known: Sequence[PlacedOp], problem: Problem) -> Iterator[str]:
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
                yield f"{_at(placed)}: stage {stage} is in row {due} already; keep a stage in one row"
            else:
                yield (
                    f"{_at(placed)}: the problem places stage {stage} on rank {due - 1}, which is row {due}; "
                    "move it there, or give the problem this placement, or auto"
                )


def _doubled(known: Sequence[PlacedOp]) -> Iterator[str]:
    """An op in a second cell, or a backward both divided and undivided."""
    seen: dict[Op, PlacedOp] = {}
    for placed in known:
        first = seen.setdefault(placed.op, placed)
        if first is not placed:
            yield f"{_at(placed)}: it is in {_where(first)} already; keep one"
    for op, placed in seen.items():
        if op.kind is OpKind.BW:
            for kind in (OpKind.B, OpKind.W):
                if part := seen.get(op._replace(kind=kind)):
                    twin = f"{torch_action(part.op)} of the same backward is in {_where(part)}"
                    yield f"{_at(placed)}: {twin}; divide it or not"


def _missing(present: set[Op], problem: Problem) -> Iterator[str]:
    """Ops that no cell runs."""
    is_open = problem.placement.kind is PlacementKind.AUTO
    for stage, rank in enumerate(problem.stage_to_rank):
        to = "" if is_open else f" to row {rank + 1}"
        for microbatch in range(problem.num_microbatches):
            ops = {kind: Op(kind, stage, microbatch) for kind in OpKind}
            due = [ops[OpKind.F]]
            if ops[OpKind.B] in present or ops[OpKind.W] in present:
                due += [ops[OpKind.B], ops[OpKind.W]]
            elif ops[OpKind.BW] not in present:
                due.append(ops[OpKind.B if problem.stages[stage].must_divide else OpKind.BW])
            yield from (f"no cell runs {torch_action(op)}: add it{to}" for op in due if op not in present)


def _without_ops(cells: Cells, problem: Problem) -> Iterator[str]:
    filled = {placed.row for placed in cells.placed}
    rows = range(1, min(cells.num_rows, problem.num_ranks) + 1)
    yield from (f"row {row} holds no action: every rank runs a stage" for row in rows if row not in filled)


def _at(placed: PlacedOp) -> str:
    return f"{_where(placed)} is {torch_action(placed.op)}"


def _where(placed: PlacedOp) -> str:
    return f"row {placed.row}, column {placed.column}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith("ch") else "s")


def _shown(word: str) -> str:
    return repr(word if len(word) <= _LONGEST_SHOWN else word[:_LONGEST_SHOWN] + "…")


def orders_of(placed: Iterable[PlacedOp], num_ranks: int) -> tuple[tuple[Op, ...], ...]:
    """Every row's ops in the order of its cells."""
    rows: list[list[Op]] = [[] for _ in range(num_ranks)]
    for each in placed:
        rows[each.row - 1].append(each.op)
    return tuple(map(tuple, rows))
