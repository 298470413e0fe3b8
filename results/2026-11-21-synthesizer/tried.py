"""Figures behind "what did not work as well": ranks of the counter bound, blocks in turn, the MILP alone.

Rewrites ``tried.csv``; about three minutes.

    python results/2026-11-21-synthesizer/tried.py
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
from config import SEED, SPAN, V_TIMES, v_shaped

from synth import synthesize
from synth.bounds.counters import counter_bound
from synth.cpsat import SolveParams
from synth.search.blocks import find_blocks

HERE = Path(__file__).parent
PARAMS = SolveParams(time_limit_s=60.0, work_limit=60.0, workers=1, seed=SEED)


def main() -> None:
    rows = []

    def note(what: str, answer: object, begun: float) -> None:
        rows.append((what, answer, round(time.perf_counter() - begun, 1)))
        print(*rows[-1], flush=True)

    (problem,) = v_shaped(*V_TIMES["1.5b"], 8, 24, 8, SPAN)
    for ranks in ((0, 7), (0, 3, 7), (0, 4, 7)):
        begun = time.perf_counter()
        ticks = counter_bound(problem, ranks, 160, PARAMS).ticks
        note(
            f"counter bound of ranks {ranks}, V 1.5b, k=8",
            round(1 - problem.work_ticks / ticks, 4),
            begun,
        )
    (large,) = v_shaped((10402, 10248, 7698), 920, 64, 512, 128, SPAN)
    begun = time.perf_counter()
    ticks = counter_bound(large, (0, 63), 160, PARAMS).ticks
    note(
        "counter bound of ranks (0, 63), V 28.3b, p=64, m=512", round(1 - large.work_ticks / ticks, 4), begun
    )
    (rounded,) = v_shaped((2, 2, 1), 0, 8, 24, 8, SPAN)
    for copies, slack in ((1, 0.0), (1, 0.1), (1, 0.2), (2, 0.0), (2, 0.1)):
        begun = time.perf_counter()
        blocks = find_blocks(rounded, 1, slack, PARAMS, copies)
        note(f"{copies} in turn, {slack:.0%} slack, 2:2:1, k=8", "found" if blocks else "not found", begun)
    (unit,) = v_shaped((1, 1, 1), 0, 8, 16, 15, SPAN)
    begun = time.perf_counter()
    result = synthesize(unit, time_limit=60.0, workers=1, seed=SEED, solver="milp")
    note("MILP alone, V unit, p=8, k=15: idle slots proved", result.lower_bound - unit.work_ticks, begun)
    pd.DataFrame(rows, columns=["what", "answer", "seconds"]).to_csv(HERE / "tried.csv", index=False)


if __name__ == "__main__":
    main()
