"""What torch calls an op (FORMATS.md, Words): its letters differ from the papers'."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from synth.ops import Op, OpKind

TORCH_LETTERS: Mapping[OpKind, str] = MappingProxyType(
    {OpKind.F: "F", OpKind.B: "I", OpKind.W: "W", OpKind.BW: "B"}
)


def torch_action(op: Op) -> str:
    """An op as torch writes it.

    >>> torch_action(Op.parse("3B1")), torch_action(Op.parse("3BW1"))
    ('3I1', '3B1')
    """
    if op.kind is OpKind.R:
        return f"{op.stage}REDUCE_GRAD"
    return f"{op.stage}{TORCH_LETTERS[op.kind]}{op.microbatch}"
