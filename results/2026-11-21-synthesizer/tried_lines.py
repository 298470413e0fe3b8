"""How short a steady state of crossing lines can get at k = 8 in 1.5B times.

Every way to send a few microbatches through a V in slots, again and again, without two of them on a rank at
once: each enters in some slot and waits for two slots once on its way, or not at all. For each a small MILP
puts the weight gradients between the forwards and backwards and finds the least period that eight chunk
activations allow, if it is below 1.1. Rewrites ``tried_lines.csv``; about three minutes.

    python results/2026-11-21-synthesizer/tried_lines.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pulp
from config import SPAN, V_TIMES, v_shaped

HERE = Path(__file__).parent
P, LIMIT = 8, 8
LAST = 4 * P - 1
CASES = ((2, 10, 2), (3, 14, 3), (4, 18, 4), (4, 20, 1), (5, 22, 2), (5, 24, 2), (6, 28, 1), (7, 32, 1))
"""Microbatches, slots after which they repeat, and how many of them may wait two slots once."""

WORST = 1.1
"""Periods above this many times the work are not told apart."""

Line = tuple[int, ...]
"""The slot of every op of a microbatch, down, up, down, up."""


def stage_of(step: int) -> int:
    """The stage of a microbatch's op."""
    return min(step, LAST - step)


def rank_of(step: int) -> int:
    """Its rank."""
    return min(stage_of(step), 2 * P - 1 - stage_of(step))


def lines(slots: int) -> Iterator[tuple[int, Line, int]]:
    """Every line that does not meet itself: its cells (rank, slot) as bits, its slots, whether it waits."""
    for entry in range(slots):
        for wait in (None, *range(1, LAST + 1)):
            line = tuple(entry + n + (2 if wait is not None and n >= wait else 0) for n in range(LAST + 1))
            cells = {rank_of(n) * slots + slot % slots for n, slot in enumerate(line)}
            if len(cells) == len(line):
                yield sum(1 << cell for cell in cells), line, wait is not None


def patterns(microbatches: int, slots: int, waits: int) -> Iterator[list[Line]]:
    """Every set of lines of which no two meet, the first of them entering in slot 0."""
    every = list(lines(slots))

    def add(
        chosen: list[Line], cells: int, waited: int, left: list[tuple[int, Line, int]]
    ) -> Iterator[list[Line]]:
        if len(chosen) == microbatches:
            yield chosen
            return
        for number, (more, line, wait) in enumerate(left):
            if not cells & more and waited + wait <= waits:
                rest = [other for other in left[number + 1 :] if not other[0] & (cells | more)]
                yield from add([*chosen, line], cells | more, waited + wait, rest)

    others = [found for found in every if found[1][0]]
    for cells, line, wait in every:
        if line[0] == 0:
            yield from add([line], cells, wait, [other for other in others if not other[0] & cells])


def in_flight(chosen: list[Line], slots: int, rank: int, slot: int) -> int:
    """Chunk activations between the start of F and the end of B on a rank in a slot."""
    return sum(
        (slot - line[stage]) // slots - (slot - line[LAST - stage] - 1) // slots
        for line in chosen
        for stage in (rank, 2 * P - 1 - rank)
    )


def least_period(chosen: list[Line], slots: int, cut: float) -> float | None:
    """The least period in a microbatch's work, None where it is above the cut."""
    (problem,) = v_shaped(*V_TIMES["1.5b"], P, 24, LIMIT, SPAN)
    costs = problem.stages[0]
    ticks = [costs.F.ticks if n <= LAST // 2 else costs.B.ticks for n in range(LAST + 1)]
    work = problem.work_ticks / problem.num_microbatches
    count = len(chosen)
    program = pulp.LpProblem("period", pulp.LpMinimize)
    period = pulp.LpVariable("period", count * work, cut * count * work)
    program += period
    start = [[pulp.LpVariable(f"t{i}_{n}") for n in range(LAST + 1)] for i in range(count)]
    for times in start:
        for n in range(LAST):
            lag = problem.lag_ticks(stage_of(n), stage_of(n + 1))
            program += times[n + 1] >= times[n] + ticks[n] + lag
    for rank in range(P):
        ops = sorted(
            (line[n] % slots, line[n] // slots, i, n)
            for i, line in enumerate(chosen)
            for n in range(LAST + 1)
            if rank_of(n) == rank
        )
        weights = [pulp.LpVariable(f"w{rank}_{n}", 0, 2 * count, "Integer") for n in range(len(ops))]
        program += pulp.lpSum(weights) == 2 * count
        owed = pulp.LpVariable(f"owed{rank}", 0, LIMIT, "Integer")
        for number, (slot, laps, i, n) in enumerate(ops):
            _, next_laps, j, following = ops[(number + 1) % len(ops)]
            laps_between = next_laps - laps - (number == len(ops) - 1)
            taken = ticks[n] + costs.W.ticks * weights[number]
            program += start[j][following] >= start[i][n] + taken + laps_between * period
            backwards = sum(op[3] > LAST // 2 for op in ops[:number])
            before = owed + backwards - pulp.lpSum(weights[:number])
            if n > LAST // 2:
                program += before + 1 - weights[number] >= 0
            else:
                program += before - weights[number] >= 0
                program += before + in_flight(chosen, slots, rank, slot) <= LIMIT
    status = program.solve(pulp.HiGHS(msg=False, threads=1, timeLimit=10))
    return pulp.value(period) / count / work if pulp.LpStatus[status] == "Optimal" else None


def main() -> None:
    """One row for every case."""
    rows = []
    for microbatches, slots, waits in CASES:
        begun = time.process_time()
        tried, best = 0, None
        for chosen in patterns(microbatches, slots, waits):
            tried += 1
            if all(in_flight(chosen, slots, r, slot) <= LIMIT for r in range(P) for slot in range(slots)):
                best = least_period(chosen, slots, best or WORST) or best
        rows.append(
            {
                "microbatches": microbatches,
                "slots": slots,
                "may_wait": waits,
                "patterns": tried,
                "least_period": None if best is None else round(best, 4),
                "cpu_seconds": round(time.process_time() - begun, 1),
            }
        )
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(HERE / "tried_lines.csv", index=False)


if __name__ == "__main__":
    main()
