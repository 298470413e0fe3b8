"""Figures behind "what did not work as well": bounds, blocks in turn, the MILP alone, temperatures.

Rewrites ``tried.csv``; about four minutes.

    python results/2026-11-21-synthesizer/tried.py
"""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
from config import SEED, SPAN, V_TIMES, v_shaped

from synth import Problem, synthesize
from synth.bounds.counters import counter_bound
from synth.cpsat import SolveParams
from synth.graph import build_graph
from synth.ops import RankOrders
from synth.search.annealer import Annealer
from synth.search.blocks import find_blocks
from synth.search.tuning import RuleSearch

HERE = Path(__file__).parent
PARAMS = SolveParams(time_limit_s=60.0, work_limit=60.0, workers=1, seed=SEED)


TUNED, MOVES = 3000, 3_000_000
"""List schedules tuned for a start, and annealing moves from there."""


def annealed(problem: Problem, orders: RankOrders, hot: float, seed: int) -> tuple[int, RankOrders]:
    """The value and the orders after annealing down to a tenth of a first temperature, in shares of an op."""
    annealer = Annealer(problem, orders, seed)
    hottest = hot * float(annealer.graph.ticks.mean())
    annealer.run(MOVES, hottest, hottest / 10)
    return annealer.best_value, annealer.best_orders


def bubbles(problem: Problem, found: list[tuple[int, RankOrders]]) -> str:
    """The bubbles of what was found."""
    return " ".join(f"{1 - problem.work_ticks / value:.4f}" for value, _ in found)


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
    graph = build_graph(problem)
    rules = RuleSearch(graph, SEED)
    rules.run(TUNED)
    built = graph.ids_to_orders(rules.best[0][1])
    found = []
    for hot in (0.1, 0.2, 0.35, 0.5, 0.7, 1.0):
        begun = time.perf_counter()
        found += [annealed(problem, built, hot, seed) for seed in range(2)]
        note(f"{MOVES} moves from {hot} of an op, twice, V 1.5b, k=8", bubbles(problem, found[-2:]), begun)
    best, orders = min(found)
    for hot in (0.1, 0.2, 0.35, 0.5):
        begun = time.perf_counter()
        again = [annealed(problem, orders, hot, seed) for seed in range(2)]
        note(
            f"from the best of these, {1 - problem.work_ticks / best:.4f}, and {hot} of an op",
            bubbles(problem, again),
            begun,
        )
    pd.DataFrame(rows, columns=["what", "answer", "seconds"]).to_csv(HERE / "tried.csv", index=False)


if __name__ == "__main__":
    main()
