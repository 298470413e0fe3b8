"""Schedules as text: a row per rank, time to the right."""

from __future__ import annotations

from synth.ops import TimedOp
from synth.schedule import Schedule


def render_grid(schedule: Schedule, *, slot_ticks: int = 1, last_slot: int | None = None) -> str:
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
    """
    several = any(len(held) > 1 for held in schedule.problem.stages_by_rank)
    names = [[_name(timed, several) for timed in rank] for rank in schedule.ranks]
    width = max(len(name) for rank in names for name in rank) + 1
    first = min(rank[0].start for rank in schedule.ranks if rank)
    slots = max(_slot(rank[-1].end - first, slot_ticks) for rank in schedule.ranks if rank)
    cut = slots if last_slot is None else min(slots, last_slot)
    lines = []
    for number, (rank, row_names) in enumerate(zip(schedule.ranks, names, strict=True)):
        cells = [".".ljust(width)] * slots
        for timed, name in zip(rank, row_names, strict=True):
            begin = _slot(timed.start - first, slot_ticks)
            end = max(begin + 1, _slot(timed.end - first, slot_ticks))
            if begin < slots:
                cells[begin] = name.ljust(width - 1, "-" if end > begin + 1 else " ") + (
                    "-" if end > begin + 1 else " "
                )
            for slot in range(begin + 1, min(end, slots)):
                cells[slot] = "-" * width if slot < end - 1 else "-" * (width - 1) + " "
        lines.append(
            f"rank {number}  ".rjust(9) + "".join(cells[:cut]).rstrip() + (" …" if cut < slots else "")
        )
    return "\n".join(lines)


def _name(timed: TimedOp, with_stage: bool) -> str:
    return str(timed.op) if with_stage else f"{timed.op.kind}{timed.op.microbatch}"


def _slot(ticks: int, slot_ticks: int) -> int:
    return (2 * ticks + slot_ticks) // (2 * slot_ticks)
