"""The cells of a PyTorch pipelining CSV: a row per rank, an action per cell.

An action is ``<stage><letter><microbatch>`` with PyTorch's letters: F forward, I gradient of the input, W of
the weights, B both undivided (``torch.distributed.pipelining.schedules``, 2.13, format ``compute_only``).
PyTorch matches its pattern at the start of a cell only and counts sets, so it takes ``0F0junk`` for ``0F0``
and lets a doubled action pass; here every cell counts.
"""

from __future__ import annotations

import re

from synth.cells import Cells, PlacedOp, read_rows, shown
from synth.export.torch_names import TORCH_LETTERS
from synth.ops import Op

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


def read_cells(text: str) -> Cells:
    """Read every cell as PyTorch's loader does, but whole: blank ones are idle, spaces around are dropped."""
    placed: list[PlacedOp] = []
    blank = []
    rows, fault = read_rows(text)
    faults = [fault] if fault else []
    for row, words in enumerate(rows, start=1):
        for column, word in enumerate(words, start=1):
            if not word:
                blank.append((row, column))
                continue
            ops, fault = _ops_in(word)
            placed += (PlacedOp(op, row, column) for op in ops)
            if fault:
                faults.append(f"row {row}, column {column} is {shown(word)}: {fault}")
    return Cells(
        placed=tuple(placed),
        faults=tuple(faults),
        blank=tuple(blank),
        num_rows=len(rows),
        letters=TORCH_LETTERS,
    )


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
