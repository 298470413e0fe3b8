"""Figures behind "what did not work as well" of windows, crossings and lengths of annealing at k = 8.

Rewrites ``tried_windows.csv``; its seconds are CPU seconds, about four minutes together.

    python results/2026-11-21-synthesizer/tried_windows.py
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
from config import SPAN, V_TIMES, v_shaped
from windows import Windows

from synth import Problem
from synth.cpsat import SolveParams
from synth.graph import build_graph
from synth.ops import Op, OpKind, RankOrders
from synth.search.annealer import Annealer
from synth.search.tuning import RuleSearch
from synth.timing import schedule_orders

HERE = Path(__file__).parent
TUNED, STARTS, CHILDREN = 1000, 6, 24


def annealed(problem: Problem, orders: RankOrders, moves: int, hot: float, seed: int) -> RankOrders:
    """The best orders of annealing from a first temperature, in shares of an op, down to a tenth of it."""
    annealer = Annealer(problem, orders, seed)
    hottest = hot * float(annealer.graph.ticks.mean())
    annealer.run(moves, hottest, hottest / 10)
    return annealer.best_orders


def crossed(problem: Problem, first: RankOrders, second: RankOrders, share: float) -> RankOrders | None:
    """All that starts in a share of the first's time as there, then the rest as in the second.

    Where memory is full, the next W that can run is brought forward; None where there is none.
    """
    starts, later = (
        {timed.op: timed.start for rank in schedule_orders(problem, orders).ranks for timed in rank}
        for orders in (first, second)
    )
    cut = share * max(starts.values())
    orders = []
    for rank, order in enumerate(first):
        left = sorted(
            order, key=lambda op: (starts[op] >= cut, starts[op] if starts[op] < cut else later[op])
        )
        done: list[Op] = []
        live = 0
        while left:
            at = 0
            if left[0].kind is OpKind.F and live == problem.memory_limit_bytes[rank]:
                ready = (n for n, op in enumerate(left) if op.kind is OpKind.W)
                at = next(ready)
                if Op(OpKind.B, left[at].stage, left[at].microbatch) not in done:
                    return None
            op = left.pop(at)
            live += (op.kind is OpKind.F) - (op.kind is OpKind.W)
            done.append(op)
        orders.append(tuple(done))
    return tuple(orders)


def period(problem: Problem, orders: RankOrders) -> float:
    """The mean distance of forwards on the last rank from microbatch 7 to 16, over a microbatch's work."""
    starts = {timed.op: timed.start for timed in schedule_orders(problem, orders).ranks[-1]}
    stage = problem.num_ranks - 1
    distance = starts[Op(OpKind.F, stage, 16)] - starts[Op(OpKind.F, stage, 7)]
    return distance / 9 / (problem.work_ticks / problem.num_microbatches)


def main() -> None:
    rows = []
    (problem,) = v_shaped(*V_TIMES["1.5b"], 8, 24, 8, SPAN)
    begun = time.process_time()

    def note(what: str, answer: object) -> None:
        nonlocal begun
        rows.append((what, answer, round(time.process_time() - begun, 1)))
        print(*rows[-1], flush=True)
        begun = time.process_time()

    def bubble(value: int) -> str:
        return f"{1 - problem.work_ticks / value:.4f}"

    graph = build_graph(problem)
    rules = RuleSearch(graph, 0)
    rules.run(TUNED)
    built = [graph.ids_to_orders(ids) for _, ids in rules.best]
    annealed(problem, built[0], 10, 0.1, 0)  # compiles
    note("a thousand list schedules tuned", " ".join(bubble(value) for value, _ in rules.best[:2]))
    best = annealed(problem, built[0], 3_000_000, 0.5, 0)
    deep = Windows(problem, best)
    note("annealed once from the best of them, 3000000 moves from 0.5 of an op", bubble(deep.value))
    note("its period in the middle, in a microbatch's work", round(period(problem, best), 4))
    for seed in range(1, 4):
        rules = RuleSearch(graph, seed)
        rules.run(TUNED)
        other = graph.ids_to_orders(rules.best[0][1])
        for moves in (2_000_000, 8_000_000):
            value = Windows(problem, annealed(problem, other, moves, 0.5, seed)).value
            note(f"rules tuned with seed {seed}, annealed by {moves} moves", bubble(value))
    shallow = Windows(problem, annealed(problem, built[0], 200_000, 0.2, 0))
    for name, windows, ops, work in (("deep", deep, 200, 2.0), ("shallow", shallow, 80, 0.3)):
        params = SolveParams(time_limit_s=60.0, work_limit=work, workers=1, seed=0)
        was, proved = windows.value, 0
        firsts = np.linspace(0, graph.num_ops - ops, 15).astype(int).tolist()
        for first in firsts:
            by_start = sorted(windows.starts)
            high = by_start[first + ops - 1] + 1
            proved += windows.solve(by_start[first], high, range(8), params)
        note(
            f"{len(firsts)} windows of {ops} ops, all ranks, {name}: from {bubble(was)}, {proved} proved",
            bubble(windows.value),
        )
    deep = Windows(problem, best)
    params = SolveParams(time_limit_s=60.0, work_limit=2.0, workers=1, seed=0)
    proved = sum(deep.solve(0, max(deep.starts) + 1, {rank}, params) for rank in range(8))
    note(f"each rank in turn from beginning to end, {proved} of 8 proved", bubble(deep.value))
    kept = [annealed(problem, built[n], 3_000_000, 0.5, n) for n in range(STARTS)]
    pool = sorted((schedule_orders(problem, orders).value, orders) for orders in kept)
    note(f"{STARTS} starts annealed", " ".join(bubble(value) for value, _ in pool))
    chance = random.Random(0)
    for child in range(CHILDREN):
        (_, first), (_, second) = chance.sample(pool, 2)
        orders = crossed(problem, first, second, chance.uniform(0.1, 0.9))
        if orders is None:
            continue
        orders = annealed(problem, orders, 1_500_000, 0.2, child)
        found = (schedule_orders(problem, orders).value, orders)
        if found[0] not in {value for value, _ in pool}:
            pool = sorted([*pool, found])[:STARTS]
    note(f"{CHILDREN} crossings of them annealed", " ".join(bubble(value) for value, _ in pool))
    pd.DataFrame(rows, columns=["what", "answer", "cpu_seconds"]).to_csv(
        HERE / "tried_windows.csv", index=False
    )


if __name__ == "__main__":
    main()
