"""Is a bubble of .23 possible at k = 8 in 1.5B times? Whole schedules and steady states decided in slots.

Asks a solver for Boolean satisfiability (CaDiCaL) for a schedule that takes no more than so many slots: first
where the answer is known, in unit times, then in the 1.5B times in slots so coarse that every duration is
within 1.6 % of what it is, and a microbatch's work within 0.03 %. What is found is timed again in true ticks,
verified, and annealed a little. Then for the steady states of a few microbatches in turn: in 2:2:1 times
without transfers, and in the 1.5B times in finer slots, durations within 1 %. Rewrites ``tried_clauses.csv``;
its seconds are CPU seconds.

    python results/2026-11-21-synthesizer/tried_clauses.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from clauses import Grid, SteadyState, WholeSchedule
from config import SPAN, V_TIMES, v_shaped

from synth import Problem
from synth.ops import RankOrders
from synth.search.annealer import Annealer
from synth.timing import schedule_orders
from synth.verify import verify_schedule

HERE = Path(__file__).parent
P, LIMIT = 8, 8
UNIT, PLAIN, TIMES = ((1, 1, 1), 0), ((2, 2, 1), 0), V_TIMES["1.5b"]

WHOLE = (("unit times", UNIT, 16, 1, (118, 119)), ("1.5B times", TIMES, 24, 3062, (938, 939)))
"""Name, times and transfer, microbatches, ticks of a slot, and the spans asked for, in slots."""

STEADY = (
    (
        "2:2:1, no transfer",
        PLAIN,
        1,
        24,
        ((1, 11), (1, 12), (2, 21), (2, 22), (3, 31), (3, 32), (4, 43), (4, 44), (5, 53), (5, 54), (6, 63)),
    ),
    (
        "1.5B times",
        TIMES,
        583,
        384,
        ((1, 198), (1, 199), (2, 357), (2, 358), (3, 518), (3, 519), (4, 691)),
    ),
)
"""Name, times and transfer, ticks of a slot, slots that may be waited, and microbatches and periods."""

SEEDS, HOTS, MOVES = range(3), (0.03, 0.1, 0.3), 3_000_000
"""Annealing of what is found."""


def annealed_value(problem: Problem, orders: RankOrders) -> int:
    """The best value of a few runs of annealing, ticks."""
    best = []
    for seed in SEEDS:
        for hot in HOTS:
            annealer = Annealer(problem, orders, seed)
            hottest = hot * float(annealer.graph.ticks.mean())
            for cooled in range(5):
                annealer.run(MOVES // 5, hottest * 0.1 ** (cooled / 5), hottest * 0.1 ** ((cooled + 1) / 5))
            best.append(annealer.best_value)
    return min(best)


def work_slots(grid: Grid) -> int:
    """What a microbatch takes of every rank."""
    return sum(2 * grid.length(kind) for kind, _ in grid.problem.stages[0].offered)


def whole_schedules() -> Iterator[dict[str, object]]:
    """A row for every span asked for."""
    for name, (ticks, transfer), m, slot, spans in WHOLE:
        (problem,) = v_shaped(ticks, transfer, P, m, LIMIT, SPAN)
        grid = Grid(problem, slot)
        for span in spans:
            begun = time.process_time()
            clauses = WholeSchedule(grid, span)
            row = {
                "what": f"whole schedule, {name}",
                "microbatches": m,
                "slot_ticks": slot,
                "slots": span,
                "times_the_work": round(span / work_slots(grid) / m, 4),
                "fits": clauses.fits(),
                "cpu_seconds": round(time.process_time() - begun, 1),
                "clauses": clauses.num_clauses,
                "bubble_in_slots": round(1 - m * work_slots(grid) / span, 4),
            }
            if row["fits"]:
                schedule = schedule_orders(problem, clauses.orders())
                assert not verify_schedule(schedule), "the clauses forget a rule"
                row["bubble"] = round(1 - problem.work_ticks / schedule.value, 5)
                annealed = annealed_value(problem, clauses.orders())
                row["bubble_annealed"] = round(1 - problem.work_ticks / annealed, 5)
            yield row


def steady_states() -> Iterator[dict[str, object]]:
    """A row for every period asked for."""
    for name, (ticks, transfer), slot, most_wait, asked in STEADY:
        (problem,) = v_shaped(ticks, transfer, P, 24, LIMIT, SPAN)
        grid = Grid(problem, slot)
        for count, period in asked:
            begun = time.process_time()
            clauses = SteadyState(grid, count, period, most_wait)
            yield {
                "what": f"steady state, {name}",
                "microbatches": count,
                "slot_ticks": slot,
                "slots": period,
                "times_the_work": round(period / work_slots(grid) / count, 4),
                "fits": clauses.fits(),
                "cpu_seconds": round(time.process_time() - begun, 1),
                "clauses": clauses.num_clauses,
            }


def main() -> None:
    """Ask everything, the short questions first."""
    rows = []
    for answers in (steady_states(), whole_schedules()):
        for row in answers:
            rows.append(row)
            print(row, flush=True)
    pd.DataFrame(rows).to_csv(HERE / "tried_clauses.csv", index=False)


if __name__ == "__main__":
    main()
