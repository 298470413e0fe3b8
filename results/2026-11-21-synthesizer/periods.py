"""Least periods of steady states at k = 8 of a V: may a few microbatches take turns in so many slots?

Asks a solver for Boolean satisfiability (CaDiCaL) on both sides of the least period, in 2:2:1 times without
transfers and in slots that are nearly the 1.5B times. Rewrites ``periods.csv``; about three minutes.

    python results/2026-11-21-synthesizer/periods.py
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
from clauses import Grid, SteadyState
from config import SPAN, v_shaped

HERE = Path(__file__).parent
P, LIMIT = 8, 8

ASKED = (
    (
        ((2, 2, 1), 0),
        24,
        ((1, 11), (1, 12), (2, 21), (2, 22), (3, 31), (3, 32), (4, 43), (4, 44), (5, 53), (5, 54), (6, 63)),
    ),
    (((16, 16, 8), 1), 200, ((1, 99), (1, 100), (2, 181), (2, 182), (3, 261), (3, 262), (4, 349))),
)
"""Slots of F, B, W and of a transfer, slots that may be waited, and pairs of microbatches and period."""


def main() -> None:
    """One row for every period asked for."""
    rows = []
    for (slots, transfer), most_wait, asked in ASKED:
        (problem,) = v_shaped(slots, transfer, P, 24, LIMIT, SPAN)
        grid = Grid(problem)
        for count, period in asked:
            begun = time.process_time()
            clauses = SteadyState(grid, count, period, most_wait)
            rows.append(
                {
                    "slots": ":".join(map(str, slots)),
                    "transfer": transfer,
                    "microbatches": count,
                    "period": period,
                    "times_the_work": round(period / grid.work() / count, 4),
                    "fits": clauses.fits(),
                    "cpu_seconds": round(time.process_time() - begun, 1),
                    "clauses": clauses.num_clauses,
                }
            )
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(HERE / "periods.csv", index=False)


if __name__ == "__main__":
    main()
