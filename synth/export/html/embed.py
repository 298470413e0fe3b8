"""What the page holds of a schedule: columns of integers in base64, and the numbers on top."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.certificate import Certificate
from synth.colours import shade
from synth.errors import InputError
from synth.export.shown import Shown
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Problem
from synth.schedule import Schedule, measure
from synth.stage_names import how_stages_read, names_of_stages, shape_words
from synth.timeline import Transfer, memory_steps, transfers

LARGEST = 2**53
"""A browser's numbers are exact below this."""

KINDS = tuple(OpKind)
"""Kinds by their code in the column ``kind``."""

Data = dict[str, Any]

_TYPES = ("u1", "u2", "i4", "f8")
"""The types of a column in numpy's letters, smallest first; all hold integers."""


def schedule_data(shown: Shown) -> Data:
    """Everything the page says and draws of one schedule, as JSON values.

    Raises
    ------
    InputError
        When the schedule lacks ops or runs two at once on a rank, a marked op is not in it, or a number is
        2**53 or more.
    """
    shown = replace(shown, schedule=_from_zero(shown.schedule))
    schedule = shown.schedule
    arrows = transfers(schedule)  # refuses what does not hold exactly the problem's ops
    _check_one_at_a_time(shown)
    _check_sizes(shown, arrows)
    numbers = {timed.op: number for number, timed in enumerate(_all_ops(schedule))}
    return {
        "title": shown.title,
        "notes": list(shown.notes),
        **_problem_data(schedule.problem),
        **_metrics_data(schedule),
        "certificate": None if shown.certificate is None else _certificate_data(shown.certificate),
        "ops": _ops(schedule),
        "memory": _memory(schedule),
        "transfers": _transfers(arrows, numbers),
        "marked": _column(_marked_numbers(shown, numbers)),
    }


def _from_zero(schedule: Schedule) -> Schedule:
    """The same, its first op at 0: so a measured timeline lines up with its plan whatever its clock said."""
    first = min((rank[0].start for rank in schedule.ranks if rank), default=0)
    if first == 0:
        return schedule
    return replace(
        schedule,
        ranks=tuple(
            tuple(TimedOp(op, start - first, end - first) for op, start, end in rank)
            for rank in schedule.ranks
        ),
    )


def _problem_data(problem: Problem) -> Data:
    chunks = max(problem.chunk_by_stage) + 1
    return {
        "name": problem.name,
        "source": problem.source,
        "num_microbatches": problem.num_microbatches,
        "tick_seconds": problem.tick_seconds,
        "objective": problem.objective.value,
        "limits": None if problem.memory_limit_bytes is None else list(problem.memory_limit_bytes),
        "static": list(problem.static_bytes_by_rank),
        "shape": shape_words(problem),
        "reading": how_stages_read(problem),
        "stage_names": names_of_stages(problem),
        "rank_of_stage": list(problem.stage_to_rank),
        "chunk_of_stage": list(problem.chunk_by_stage),
        "kinds": [kind.value for kind in KINDS],
        "shades": [[shade(kind, chunk, chunks)._asdict() for chunk in range(chunks)] for kind in KINDS],
        "costs": [
            {kind.value: [cost.alloc_bytes, cost.free_bytes] for kind, cost in costs.offered}
            for costs in problem.stages
        ],
    }


def _metrics_data(schedule: Schedule) -> Data:
    metrics = measure(schedule)
    return {
        "value": metrics.value(schedule.problem.objective),
        "bubble": metrics.bubble_ratio,
        "peaks": list(metrics.peak_memory_bytes),
    }


def _certificate_data(certificate: Certificate) -> Data:
    return {
        "objective": certificate.objective.value,
        "value": certificate.value,
        "lower_bound": certificate.lower_bound,
        "gap": certificate.gap,
        "status": certificate.status.value,
        "bound_from": certificate.bound_from,
    }


def _ops(schedule: Schedule) -> Data:
    """Columns over all ops, rank after rank in execution order; rank r's ops start at ``rank_start[r]``."""
    ops = list(_all_ops(schedule))
    return {
        "rank_start": _starts(map(len, schedule.ranks)),
        "kind": _column(KINDS.index(timed.op.kind) for timed in ops),
        "stage": _column(timed.op.stage for timed in ops),
        "microbatch": _column(timed.op.microbatch for timed in ops),
        "start": _column(timed.start for timed in ops),
        "end": _column(timed.end for timed in ops),
    }


def _memory(schedule: Schedule) -> Data:
    """Columns over all memory steps, rank after rank in order of time."""
    steps = memory_steps(schedule)
    return {
        "rank_start": _starts(map(len, steps)),
        "tick": _column(step.tick for rank in steps for step in rank),
        "live": _column(step.live_bytes for rank in steps for step in rank),
    }


def _transfers(found: Sequence[Transfer], numbers: dict[Op, int]) -> Data:
    """Columns over all transfers, in order of the producer's number."""
    return {
        "producer": _column(numbers[transfer.producer] for transfer in found),
        "consumer": _column(numbers[transfer.consumer] for transfer in found),
        "start": _column(transfer.start for transfer in found),
        "end": _column(transfer.end for transfer in found),
    }


def _marked_numbers(shown: Shown, numbers: dict[Op, int]) -> list[int]:
    for op in shown.marked:
        if op not in numbers:
            raise InputError(f"{shown.title}: marked op {op} is not in the schedule; mark ops that are")
    return sorted({numbers[op] for op in shown.marked})


def _all_ops(schedule: Schedule) -> Iterable[TimedOp]:
    return chain.from_iterable(schedule.ranks)


def _starts(lengths: Iterable[int]) -> list[int]:
    return list(accumulate(lengths, initial=0))


def _column(values: Iterable[int]) -> Data:
    """Integers in the smallest type that holds them all, little-endian, in base64."""
    wide = np.fromiter(values, dtype=np.float64)
    name = next(name for name in _TYPES if _holds(name, wide))
    narrow = wide.astype(f"<{name}")
    return {"type": name, "data": base64.b64encode(narrow.tobytes()).decode("ascii")}


def _holds(name: str, values: NDArray[np.float64]) -> bool:
    if name == "f8" or not len(values):
        return True
    limits = np.iinfo(np.dtype(name))
    return bool(limits.min <= values.min() and values.max() <= limits.max)


def _check_one_at_a_time(shown: Shown) -> None:
    for rank, ops in enumerate(shown.schedule.ranks):
        for before, after in pairwise(ops):
            if not before.start <= before.end <= after.start <= after.end:
                raise InputError(
                    f"{shown.title}: rank {rank} starts {after} before {before.op} ends at {before.end}; "
                    "show a schedule in which every rank runs one op at a time"
                )


def _check_sizes(shown: Shown, arrows: Sequence[Transfer]) -> None:
    for what, unit, values in _sizes(shown, arrows):
        largest = max(map(abs, values), default=0)
        if largest >= LARGEST:
            raise InputError(
                f"{shown.title}: {what} reaches {largest}, and a page holds numbers below 2**53; "
                f"use a larger {unit}"
            )


def _sizes(shown: Shown, arrows: Sequence[Transfer]) -> Iterable[tuple[str, str, Iterable[int]]]:
    """The largest numbers of the page by what they are; all others are below one of them."""
    problem = shown.schedule.problem
    ticks = "tick_seconds"
    yield "an op's time in ticks", ticks, (t for op in _all_ops(shown.schedule) for t in (op.start, op.end))
    yield "a transfer's time in ticks", ticks, (arrow.end for arrow in arrows)
    if shown.certificate is not None:
        claims = (shown.certificate.value, shown.certificate.lower_bound)
        yield "the certificate in ticks", ticks, claims
    offered = [cost for costs in problem.stages for _, cost in costs.offered]
    yield "memory in bytes", "memory unit", (cost.free_bytes for cost in offered)
    yield "memory in bytes", "memory unit", measure(shown.schedule).peak_memory_bytes
    yield "a memory limit in bytes", "memory unit", problem.memory_limit_bytes or ()
