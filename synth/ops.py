"""Ops: the units of work a rank orders, printed as ``2F0`` (stage, kind, microbatch)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from synth.errors import InputError


class OpKind(StrEnum):
    """What an op computes; the letters follow the zero-bubble papers (FORMATS.md)."""

    F = "F"
    """Forward."""
    B = "B"
    """Backward, gradient of the stage's input only."""
    W = "W"
    """Backward, gradient of the stage's weights only."""
    BW = "BW"
    """Both, undivided."""
    R = "R"
    """Sum of a stage's weight gradients over its replicas: once per stage, as microbatch 0."""


PASSES = (OpKind.F, OpKind.B, OpKind.W, OpKind.BW)
"""The kinds of op that a stage runs for every microbatch."""

_PATTERN = re.compile(r"(\d+)(F|BW|B|W|R)(\d+)")


class Op(NamedTuple):
    """One kind of work on one stage for one microbatch.

    >>> str(Op(OpKind.F, 2, 0)), Op.parse("3BW11")
    ('2F0', Op(kind=<OpKind.BW: 'BW'>, stage=3, microbatch=11))
    """

    kind: OpKind
    stage: int
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind.value}{self.microbatch}"

    @classmethod
    def parse(cls, text: str) -> Op:
        """Read an op as printed.

        Raises
        ------
        InputError
            When the text is not ``<stage><F|B|W|BW|R><microbatch>``.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InputError(f"{text!r} is no op: write stage, kind and microbatch, as in 2F0 or 3BW11")
        return cls(OpKind(match[2]), int(match[1]), int(match[3]))


class TimedOp(NamedTuple):
    """An op with its planned start and end, in ticks."""

    op: Op
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.op}@{self.start}"


RankOrders = tuple[tuple[Op, ...], ...]
"""For every rank, its ops in execution order: the decision that times follow from."""
