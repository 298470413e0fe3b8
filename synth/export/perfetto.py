"""Traces for Perfetto: a process per rank with its ops, its transfers and its memory.

The format is Chrome's trace events in JSON, which Perfetto opens. Ops are named as torch names its profiler
ranges, so that a plan and a profile of its run read alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, NamedTuple

from synth.export.shown import Shown
from synth.export.torch_names import torch_action
from synth.ops import Op
from synth.schedule import Schedule
from synth.stage_names import how_stages_read, names_of_stages
from synth.timeline import Transfer, memory_steps, transfers

Event = dict[str, Any]

OP_LANE = 1
"""The number of the lane of a rank's ops; transfers have those behind it."""


class Span(NamedTuple):
    """From when to when, in nanoseconds."""

    start: int
    end: int


class Lane(NamedTuple):
    """A row of a trace, a thread of a process: spans on one lane do not overlap."""

    process: int
    number: int


@dataclass(frozen=True, slots=True)
class Clock:
    """From a schedule's ticks to nanoseconds after its first start.

    Perfetto keeps whole nanoseconds. Only moments are rounded, never lengths: what follows one another in
    ticks does so in nanoseconds.
    """

    from_tick: int
    tick_nanoseconds: Fraction

    @classmethod
    def of(cls, schedule: Schedule) -> Clock:
        """A clock that is 0 at the schedule's first start."""
        first = min(rank[0].start for rank in schedule.ranks if rank)
        return cls(first, Fraction(repr(schedule.problem.tick_seconds)) * 10**9)

    def span(self, start: int, end: int) -> Span:
        """From one tick to another."""
        return Span(self.at(start), self.at(end))

    def at(self, tick: int) -> int:
        """A moment."""
        return round((tick - self.from_tick) * self.tick_nanoseconds)


def render_perfetto(shown: Sequence[Shown]) -> bytes:
    """Write schedules as one trace, each from its first start on, the ranks of each together."""
    events: list[Event] = []
    flow_numbers = count(1)
    first_process = 1  # 0 stands for the idle processor in system traces
    for one in shown:
        title = f"{one.title}: " if len(shown) > 1 else ""
        trace = _Trace(one, first_process, title)
        events += [*trace.names(), *trace.ops(), *trace.transfers(flow_numbers), *trace.memory()]
        first_process += one.schedule.problem.num_ranks
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    about = json.dumps([_about(one) for one in shown], ensure_ascii=False)
    head = f'"displayTimeUnit": "ms",\n"otherData": {{"schedules": {about}}}'
    return f'{{{head},\n"traceEvents": [\n{lines}\n]}}\n'.encode()


class _Trace:
    """One schedule's events."""

    def __init__(self, shown: Shown, first_process: int, title: str) -> None:
        self._shown, self._title = shown, title
        self._schedule = shown.schedule
        self._clock = Clock.of(shown.schedule)
        self._processes = range(first_process, first_process + shown.schedule.problem.num_ranks)
        self._moves = transfers(shown.schedule)
        self._lanes = self._lanes_of_transfers()

    def names(self) -> Iterator[Event]:
        """What processes and lanes are called, and in which order they stand.

        Perfetto puts processes with more slices first, whatever order is asked for, and sorts equal ones
        by name: so ranks are written with as many digits as the last one.
        """
        digits = len(str(len(self._processes) - 1))
        for rank, process in enumerate(self._processes):
            yield _meta("process_name", process, name=f"{self._title}rank {rank:0{digits}}")
            yield _meta("process_sort_index", process, sort_index=process)
            yield from _lane_names(Lane(process, OP_LANE), "ops")
        named: dict[Lane, str] = {}
        for move, lane in zip(self._moves, self._lanes, strict=True):
            named[lane] = f"to rank {move.to_rank}"
        for lane in sorted(named):
            yield from _lane_names(lane, named[lane])

    def ops(self) -> Iterator[Event]:
        """A slice for every op."""
        marked = set(self._shown.marked)
        names = names_of_stages(self._schedule.problem)
        for process, rank in zip(self._processes, self._schedule.ranks, strict=True):
            for op, start, end in rank:
                event = _slice(Lane(process, OP_LANE), f"PP:{torch_action(op)}", self._clock.span(start, end))
                known: dict[str, Any] = {"op": str(op), "stage": op.stage, "microbatch": op.microbatch}
                if names:
                    known["model stage"] = names[op.stage]
                yield event | {
                    "cat": op.kind.value,
                    "args": known | ({"marked": True} if op in marked else {}),
                }

    def transfers(self, numbers: Iterator[int]) -> Iterator[Event]:
        """A slice for every transfer that takes time, and an arrow from its producer to its consumer."""
        spans = {op: self._clock.span(start, end) for rank in self._schedule.ranks for op, start, end in rank}
        for move, lane in zip(self._moves, self._lanes, strict=True):
            span = self._clock.span(move.start, move.end)
            if span.end > span.start:
                known = {"from": str(move.producer), "to": str(move.consumer)}
                name = f"{move.producer} to {move.consumer}"
                yield _slice(lane, name, span) | {"cat": "transfer", "args": known}
            yield from self._arrow(move, lane, spans, next(numbers))

    def memory(self) -> Iterator[Event]:
        """A counter for every rank: what it holds, static bytes included."""
        for process, steps in zip(self._processes, memory_steps(self._schedule), strict=True):
            for tick, live_bytes in steps:
                moment = {"ph": "C", "pid": process, "ts": _microseconds(self._clock.at(tick))}
                yield {"name": "memory", **moment, "args": {"bytes": live_bytes}}

    def _lanes_of_transfers(self) -> list[Lane]:
        """A lane for every transfer: one for each pair of ranks, and more where transfers overlap."""
        free_from: dict[tuple[int, int], list[int]] = {}
        places: list[tuple[int, int, int]] = []
        for move in self._moves:
            lanes = free_from.setdefault((move.from_rank, move.to_rank), [])
            start, end = self._clock.span(move.start, move.end)
            turn = next((n for n, free in enumerate(lanes) if free <= start), len(lanes))
            lanes[turn : turn + 1] = [end]
            places.append((move.from_rank, move.to_rank, turn))
        numbers: dict[tuple[int, int, int], Lane] = {}
        used = [OP_LANE] * len(self._processes)
        for place in sorted(set(places)):
            used[place[0]] += 1
            numbers[place] = Lane(self._processes[place[0]], used[place[0]])
        return [numbers[place] for place in places]

    def _arrow(self, move: Transfer, lane: Lane, spans: dict[Op, Span], number: int) -> Iterator[Event]:
        """Three points that Perfetto joins: in the producer, at the transfer, at the consumer.

        A timeline that was measured may not keep to the planned transfer times: what would point back in time
        is left out.
        """
        producer, consumer = spans[move.producer], spans[move.consumer]
        sent, arrived = self._clock.span(move.start, move.end)
        if consumer.start < producer.end:
            return
        # An arrow belongs to the slice around its point, and a slice no longer holds its own end.
        leaves = max(producer.start, producer.end - 1)
        yield _flow("s", number, Lane(self._processes[move.from_rank], OP_LANE), leaves)
        if sent < arrived and sent <= consumer.start:
            yield _flow("t", number, lane, sent)
        yield _flow("f", number, Lane(self._processes[move.to_rank], OP_LANE), consumer.start) | {"bp": "e"}


def _about(shown: Shown) -> dict[str, Any]:
    """What is known of a schedule, for who reads the file."""
    known: dict[str, Any] = {"title": shown.title, "problem": shown.schedule.problem.name}
    if shown.certificate is not None:
        claim = shown.certificate
        known |= {"objective": claim.objective.value, "value_ticks": claim.value}
        known |= {"lower_bound_ticks": claim.lower_bound, "gap": claim.gap}
    if reading := how_stages_read(shown.schedule.problem):
        known["stages"] = reading
    return known | {"tick_seconds": shown.schedule.problem.tick_seconds, "notes": list(shown.notes)}


def _lane_names(lane: Lane, name: str) -> Iterator[Event]:
    yield _meta("thread_name", lane.process, name=name) | {"tid": lane.number}
    yield _meta("thread_sort_index", lane.process, sort_index=lane.number) | {"tid": lane.number}


def _meta(what: str, process: int, **args: str | int) -> Event:
    return {"name": what, "ph": "M", "pid": process, "args": args}


def _slice(lane: Lane, name: str, span: Span) -> Event:
    times = {"ts": _microseconds(span.start), "dur": _microseconds(span.end - span.start)}
    return {"name": name, "ph": "X", "pid": lane.process, "tid": lane.number, **times}


def _flow(phase: str, number: int, lane: Lane, moment: int) -> Event:
    what = {"name": "transfer", "cat": "transfer", "ph": phase, "id": number}
    return {**what, "pid": lane.process, "tid": lane.number, "ts": _microseconds(moment)}


def _microseconds(nanoseconds: int) -> int | float:
    whole, rest = divmod(nanoseconds, 1000)
    return nanoseconds / 1000 if rest else whole
