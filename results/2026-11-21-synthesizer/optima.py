"""Optima at k = 8 of a V in times of few slots, proved by clauses, and what they prove for the 1.5B times.

Searches each problem as a user would, then asks a solver for Boolean satisfiability (CaDiCaL) for a schedule
that is one slot shorter, until there is none. No op and no transfer of the 1.5B times is shorter than that of
a problem below with as many microbatches, in slots of the right ticks. So a schedule of theirs stays one when
its ops end earlier, at the same starts, and takes no less than the problem's optimum. Rewrites ``optima.csv``
after every row; about 35 minutes, 25 of them the last row's.

    python results/2026-11-21-synthesizer/optima.py
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pandas as pd
from clauses import Grid, WholeSchedule
from config import SEED, SPAN, V_TIMES, WORKERS, v_shaped

from synth import Problem, synthesize
from synth.schedule import Schedule
from synth.timing import schedule_orders
from synth.verify import verify_schedule

HERE = Path(__file__).parent
P, LIMIT, SECONDS = 8, 8, 60.0

ASKED = (
    ((1, 1, 1), 0, 16),
    ((2, 2, 1), 0, 24),
    ((2, 2, 1), 1, 24),
    ((4, 4, 2), 1, 24),
    ((8, 8, 4), 1, 24),
    ((16, 16, 8), 1, 24),
)
"""Slots of F, B, W, of a transfer, and microbatches."""


def least_span(schedule: Schedule) -> tuple[int, int]:
    """The least span of any schedule, slots, and the clauses in which nothing fits one less.

    Parameters
    ----------
    schedule
        What is known, of a V of equal stages in slots.
    """
    grid = Grid(schedule.problem)
    while True:
        assert WholeSchedule(grid, schedule.value).admits(schedule), "the clauses have a rule too many"
        clauses = WholeSchedule(grid, schedule.value - 1)
        if not clauses.fits():
            return schedule.value, clauses.num_clauses
        schedule = schedule_orders(schedule.problem, clauses.orders())
        assert not verify_schedule(schedule), "the clauses forget a rule"


def least_real_bubble(problem: Problem, least: int) -> float | None:
    """The bubble of the 1.5B times that a problem's optimum proves, or none with other microbatches."""
    ticks, transfer = V_TIMES["1.5b"]
    (real,) = v_shaped(ticks, transfer, P, 24, LIMIT, SPAN)
    if problem.num_microbatches != real.num_microbatches:
        return None
    slots = [problem.stages[0].cost(kind).ticks for kind, _ in problem.stages[0].offered]
    ratios = [Fraction(real_ticks, taken) for real_ticks, taken in zip(ticks, slots, strict=True)]
    if lag := problem.lag_ticks(0, 1):
        ratios.append(Fraction(transfer, lag))
    return round(max(0.0, float(1 - real.work_ticks / (least * min(ratios)))), 4)


def main() -> None:
    """One row for every problem, the short questions first."""
    rows = []
    for slots, transfer, m in ASKED:
        (problem,) = v_shaped(slots, transfer, P, m, LIMIT, SPAN)
        result = synthesize(problem, SECONDS, WORKERS, SEED)
        begun = time.process_time()
        least, num_clauses = least_span(result.schedule)
        rows.append(
            {
                "slots": ":".join(map(str, slots)),
                "transfer": transfer,
                "microbatches": m,
                "found": result.value,
                "method": result.provenance.method,
                "least": least,
                "bubble": round(1 - problem.work_ticks / least, 4),
                "bubble_1.5b_at_least": least_real_bubble(problem, least),
                "cpu_seconds": round(time.process_time() - begun, 1),
                "clauses": num_clauses,
            }
        )
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(HERE / "optima.csv", index=False)


if __name__ == "__main__":
    main()
