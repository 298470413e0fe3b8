"""The counter bound: a linear programme over how many ops of each stream have started by when.

Microbatches are identical, so counters describe a schedule's start: how many ops of each stream (one kind on
one stage) have started by a time. Precedence, memory and "one op at a time" are linear in them, and no
microbatch is named; the linear relaxation is strong, and its size depends on how far one looks, not on how
many microbatches there are. Two windows are looked at, one from the first start on and one back from the last
end, on a few ranks, all others being pure delays. What a rank idles there adds to its work:

    objective ≥ work of a rank + its idle time in the first window + its idle time in the last window

for every rank looked at, and the programme minimises the largest right-hand side over all it cannot exclude.

Time is cut into slots of δ ticks, and only what holds for any schedule is asked: a counter at a slot's end;
how much of a stream has been executed by then, between the counter's averages over one op's duration before
that slot and including it; waits rounded down to whole slots. A rank executes at most δ ticks per slot,
exactly.

The solver's answer is not taken on trust: its prices (dual values), rounded to integers, are multiplied out
in exact arithmetic, which bounds the programme from below whatever the solver did (:mod:`synth.linear`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from synth.bounds.bound import Bound
from synth.bounds.chains import forward_heads, way_back_ticks
from synth.bounds.windows import Window, cool_down, warm_up
from synth.cpsat import SolveParams
from synth.linear import Ints, LinearProgram
from synth.ops import OpKind
from synth.problem import Objective, Problem

MOST_SLOTS_TRIED = 2000
"""Slot lengths tried for one that loses little."""

SLOTS = (60, 160)
"""Slots per window: few to see what a pair of ranks may say, more where that is the most so far."""

SMALLEST_PART = 1 / 12
"""Smaller parts of a slot are rounded off: tiny coefficients defeat the solver."""


def counter_bounds(problem: Problem, params: SolveParams) -> Iterator[Bound]:
    """Bounds by pairs of ranks, the rank of stage 0 with every other one, until time is up.

    Parameters
    ----------
    problem
        The problem.
    params
        Limits for all bounds together.
    """
    deadline = time.monotonic() + params.time_limit_s
    first = problem.stage_to_rank[0]
    others = [rank for rank in reversed(range(problem.num_ranks)) if rank != first]
    best = 0
    for ranks in [[first, other] for other in others] or [[first]]:
        for slots in SLOTS:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            bound = counter_bound(problem, ranks, slots, replace(params, time_limit_s=left))
            yield bound
            if bound.ticks <= best:
                break
            best = bound.ticks


def counter_bound(problem: Problem, ranks: Sequence[int], slots: int, params: SolveParams) -> Bound:
    """The bound that a few ranks' counters prove in two windows.

    Parameters
    ----------
    problem
        The problem; under ``rank_span`` the rank of stage 0 must be among ``ranks``.
    ranks
        The ranks looked at.
    slots
        About how many slots each window has; more are sharper and slower.
    params
        Limits for the solver.

    References
    ----------
    Time-indexed formulations of scheduling problems: Dyer and Wolsey, Discrete Applied Mathematics 26 (1990).
    The published run time ``6n + 6p - 3k - 1`` of a V in unit times (Pipeline Parallelism with Controllable
    Memory, arXiv 2405.15362, figure 13) is what it gives there for the first and the last rank.
    """
    windows = (warm_up(problem, ranks), cool_down(problem, ranks))
    length = window_ticks(problem)
    slot = slot_ticks(windows, length, slots)
    program = LinearProgram(unit=slot)
    parts = [_Counters(program, problem.num_microbatches, window, slot, length // slot) for window in windows]
    for window, part in zip(windows, parts, strict=True):
        part.start_in_order()
        part.execute_what_has_started()
        part.wait(window)
        part.one_op_at_a_time()
        if problem.memory_limit_bytes is not None:
            for rank in ranks:
                room = problem.memory_limit_bytes[rank] - problem.static_bytes_by_rank[rank]
                part.memory_limit(rank, room - window.left_bytes[rank])
    _work_and_idle(program, problem, ranks, windows, parts)
    proved = program.lower_bound(params.time_limit_s, params.on_wait)
    ticks = max(proved, *(problem.work_ticks_by_rank[rank] for rank in ranks))  # the solver may have failed
    named = " and ".join(map(str, ranks)) if len(ranks) < 3 else ", ".join(map(str, ranks))
    return Bound(
        "counters",
        ticks,
        f"the work of rank{'s' if len(ranks) > 1 else ''} {named}, and the least that they idle in the first "
        f"and the last {length // slot * slot} ticks even if every other rank is a pure delay",
    )


def window_ticks(problem: Problem) -> int:
    """How long each window is: a microbatch's whole way, but at most half of what the schedule must last."""
    last = problem.num_stages - 1
    way = forward_heads(problem)[last] + problem.stages[last].F.ticks + way_back_ticks(problem, last, 0)
    way += problem.stages[0].least_backward_ticks
    work = problem.work_ticks_by_rank
    lasts = work[problem.stage_to_rank[0]] if problem.objective is Objective.RANK_SPAN else max(work)
    return min(way, max(way, lasts) // 2)


def slot_ticks(windows: Sequence[Window], length: int, slots: int) -> int:
    """A slot of about the asked length that loses little where waits are rounded down to whole slots."""
    least, most = max(1, length * 2 // (3 * slots)), max(1, length * 3 // (2 * slots))
    tried = np.unique(np.linspace(least, most, MOST_SLOTS_TRIED).astype(np.int64))
    lost = np.zeros(len(tried), dtype=np.int64)
    for window in windows:
        for lag in {lag for wait in window.waits for _, lag in wait.sources}:
            lost += lag % tried
        for ticks in {stream.ticks for stream in window.streams if stream.free_bytes}:
            lost += ticks % tried
    return int(tried[lost == lost.min()][-1])


class _Counters:
    """One window's columns: how many ops of each stream have started, and been executed, by a slot's end."""

    def __init__(
        self, program: LinearProgram, num_microbatches: int, window: Window, slot: int, slots: int
    ) -> None:
        self.streams = window.streams
        self._program, self._slot, self._slots = program, slot, slots
        self.length_ticks = slot * slots
        ends = np.arange(1, slots + 1) * slot
        most = []
        for stream in window.streams:
            fitting = -(-np.maximum(0, ends - stream.release_ticks) // stream.ticks)
            most.append(np.full(slots, num_microbatches) if stream.may_lead else fitting)
        uppers = np.minimum(np.array(most), num_microbatches)
        leads = [num_microbatches if stream.may_lead else 0 for stream in window.streams]
        self.lead = program.add_columns(leads)
        self.started = program.add_columns(uppers)
        self.executed = program.add_columns(uppers)

    def _by(self, stream: int, delay: int) -> Ints:
        """The columns of a stream's started ops, so many slots before every slot's end."""
        ends = np.arange(self._slots) - delay
        columns: Ints = np.where(ends < 0, self.lead[stream], self.started[stream, np.maximum(ends, 0)])
        return columns

    def start_in_order(self) -> None:
        """Counters never fall."""
        for stream in range(len(self.streams)):
            rows = self._program.add_rows(np.zeros(self._slots))
            self._program.add_terms(rows, self.started[stream], 1)
            self._program.add_terms(rows, self._by(stream, 1), -1)
            rows = self._program.add_rows(np.zeros(self._slots - 1))
            self._program.add_terms(rows, self.executed[stream, 1:], 1)
            self._program.add_terms(rows, self.executed[stream, :-1], -1)

    def execute_what_has_started(self) -> None:
        """What has been executed is the started counter's average over one op's duration.

        That average lies between those of the counter a slot early and at the slots' ends.
        """
        for number, stream in enumerate(self.streams):
            whole, part = divmod(stream.ticks, self._slot)
            is_small = whole > 0 and part < self._slot * SMALLEST_PART
            for sign, early in ((1, 0), (-1, 1)):
                rows = self._program.add_rows(np.zeros(self._slots))
                for slot in range(whole):
                    self._program.add_terms(rows, self._by(number, slot + early), sign * self._slot)
                if not is_small:
                    self._program.add_terms(rows, self._by(number, whole + early), sign * part)
                elif sign > 0:  # counted a slot later, where the counter is no lower
                    self._program.add_terms(rows, self._by(number, whole - 1), part)
                self._program.add_terms(rows, self.lead[number], -sign * stream.ticks)
                self._program.add_terms(rows, self.executed[number], -sign * stream.ticks)

    def wait(self, window: Window) -> None:
        """No more have started than what they wait for allows."""
        for wait in window.waits:
            rows = self._program.add_rows(np.zeros(self._slots))
            for source, lag in wait.sources:
                self._program.add_terms(rows, self._by(source, lag // self._slot), 1)
            for target in wait.targets:
                self._program.add_terms(rows, self.started[target], -1)

    def one_op_at_a_time(self) -> None:
        """A rank executes no more in a slot than the slot lasts."""
        for rank in {stream.rank for stream in self.streams}:
            rows = self._program.add_rows(np.full(self._slots, -self._slot))
            for number, stream in enumerate(self.streams):
                if stream.rank == rank:
                    self._program.add_terms(rows, self.executed[number], -stream.ticks)
                    self._program.add_terms(rows[1:], self.executed[number, :-1], stream.ticks)

    def memory_limit(self, rank: int, room_bytes: int) -> None:
        """What a rank's started ops hold, less what ended ones have let go, is within its room."""
        rows = self._program.add_rows(np.full(self._slots, -room_bytes))
        for number, stream in enumerate(self.streams):
            if stream.rank == rank:
                self._program.add_terms(rows, self.started[number], -stream.alloc_bytes)
                ended = self._by(number, stream.ticks // self._slot)
                self._program.add_terms(rows, ended, stream.free_bytes)


def _work_and_idle(
    program: LinearProgram,
    problem: Problem,
    ranks: Sequence[int],
    windows: Sequence[Window],
    parts: Sequence[_Counters],
) -> None:
    """The objective is at least each rank's work and what it idles in the windows.

    A window's idle time is its length less what is executed in it, and no op is executed more than once.
    Where a stage offers BW beside B and W, a column counts the backwards left undivided.
    """
    streams = windows[0].streams
    m = problem.num_microbatches
    undivided = {
        stage: program.add_columns([m])
        for stage in {stream.stage for stream in streams}
        if problem.stages[stage].can_divide and not problem.stages[stage].must_divide
    }
    for number, stream in enumerate(streams):
        counted = [part.executed[number, -1] for part in parts] + [part.lead[number] for part in parts]
        is_choice = stream.stage in undivided and stream.kind is not OpKind.F
        (row,) = program.add_rows([0 if is_choice and stream.kind is OpKind.BW else -m])
        program.add_terms(row, counted, -1)
        if is_choice:
            program.add_terms(row, undivided[stream.stage], 1 if stream.kind is OpKind.BW else -1)
    covered = 2 * parts[0].length_ticks
    for rank in ranks:
        work = 0
        executed = []
        for stage in problem.stages_by_rank[rank]:
            costs = problem.stages[stage]
            ticks = {kind: cost.ticks for kind, cost in costs.offered}
            whole = ticks[OpKind.B] + ticks[OpKind.W] if costs.can_divide else ticks[OpKind.BW]
            work += m * (ticks[OpKind.F] + whole)
            if stage in undivided:
                executed.append((undivided[stage], whole - ticks[OpKind.BW]))
        for number, stream in enumerate(streams):
            if stream.rank == rank:
                executed += [(part.executed[number, -1], stream.ticks) for part in parts]
                executed += [(part.lead[number], stream.ticks) for part in parts]
        (row,) = program.add_rows([work + covered])
        program.add_terms(row, 0, 1)
        for column, per_op in executed:
            program.add_terms(row, column, per_op)
