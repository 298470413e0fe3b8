"""Schedules as text: a row per rank, time to the right."""

from __future__ import annotations

from synth.ops import TimedOp
from synth.schedule import Schedule

MORE = " …"
"""Ends a row that is cut off."""

LEAST_MARGIN = len(" rank 0  ")


def render_grid(
    schedule: Schedule, *, slot_ticks: int = 1, last_slot: int | None = None, columns: int | None = None
) -> str:
    """Print a schedule on a grid of equal time slots.

    An op shows its kind and microbatch, and its stage too where a rank holds several; dashes fill the slots
    it lasts, a dot is an idle slot. An op that starts or ends inside a slot is drawn from the nearest slot
    border, so the grid is exact when all times are multiples of ``slot_ticks``.

    Parameters
    ----------
    schedule
        What to print.
    slot_ticks
        Ticks per slot.
    last_slot
        Cut off after this many slots.
    columns
        Cut off, after a whole slot, what would make a line longer than this; one slot always stays.
    """
    heads = [f"rank {rank}  " for rank in range(len(schedule.ranks))]
    margin = max(LEAST_MARGIN, *map(len, heads))
    several = any(len(held) > 1 for held in schedule.problem.stages_by_rank)
    width = max((len(_name(timed, several)) for rank in schedule.ranks for timed in rank), default=0) + 1
    first = min((rank[0].start for rank in schedule.ranks if rank), default=0)
    slots = max((_slot(rank[-1].end - first, slot_ticks) for rank in schedule.ranks if rank), default=0)
    shown = slots if last_slot is None else min(slots, last_slot)
    if columns is not None and margin + shown * width - 1 > columns:
        shown = max(1, (columns - margin - len(MORE)) // width)
    lines = []
    for head, rank in zip(heads, schedule.ranks, strict=True):
        cells = [".".ljust(width)] * shown
        for timed in rank:
            begin, end = (_slot(ticks - first, slot_ticks) for ticks in (timed.start, timed.end))
            # Also behind the border of what is shown, so that an op cut off there goes on to it.
            length = max(1, min(end, shown + 1) - begin)
            for slot in range(begin, min(begin + length, shown)):
                cells[slot] = _cell(_name(timed, several), slot - begin, length, width)
        lines.append(head.rjust(margin) + "".join(cells).rstrip() + (MORE if shown < slots else ""))
    return "\n".join(lines)


def _cell(name: str, slot: int, length: int, width: int) -> str:
    """One of the slots that an op lasts: its name, dashes, and a space behind the last."""
    text = name if slot == 0 else ""
    return text.ljust(width) if length == 1 else text.ljust(width - (slot == length - 1), "-").ljust(width)


def _name(timed: TimedOp, with_stage: bool) -> str:
    return str(timed.op) if with_stage else f"{timed.op.kind}{timed.op.microbatch}"


def _slot(ticks: int, slot_ticks: int) -> int:
    return (2 * ticks + slot_ticks) // (2 * slot_ticks)
