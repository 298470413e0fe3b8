"""Improving starts: building blocks laid down for every microbatch, and annealing in rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import cycle, islice

from synth.building_block import unroll
from synth.ops import RankOrders
from synth.search.annealer import Annealer
from synth.search.blocks import find_blocks
from synth.search.standing import HEARTBEAT_S, SearchOver, Standing, Start

BLOCKS = (
    *((1, 1, slack) for slack in (0.0, 0.05, 0.15)),
    (2, 1, 0.1),
    *((1, resolution, slack) for resolution in (2, 4) for slack in (0.0, 0.05, 0.15)),
)
"""Building blocks to search: how many take turns, grid slots in the shortest op, and how much longer a period
is than the busiest rank's work. Coarse ones are found sooner; two in turn fit where one does not."""

BLOCK_SHARE = 0.1
"""Share of the time limit that searching building blocks may take."""

BLOCK_WORK_LIMIT = 4.0
"""Deterministic work per building block; a unit takes one to three seconds."""

LARGEST_BLOCK = 200
"""Problems with more ops than this per microbatch have no block searched: CP-SAT finds none in time."""

MOST_ANNEALED = 8
"""The best so many starts are annealed in the first round."""

FIRST_ROUND_MOVES, GROWTH = 150, 1.5
"""Annealing moves per op in the first round, and by how much every further short round has more."""

SHORT_ROUNDS, SLOW_GROWTH = 7, 1.2
"""Rounds that narrow the starts down, and by how much every later, deep one has more moves than the last."""

FIRST_DEEP_ROUNDS = 6
"""Deep rounds before solvers take their time: often they find what a solver would look for much longer."""

ROUNDS = 24
"""Annealing rounds before the search is over however much time is left."""

OP_MOVES_PER_SLICE = 50_000_000
"""Annealing moves between two looks at the clock, times ops: a move costs up to as much as there are ops."""

ANNEALED = ", annealed"
"""What annealing adds to the method's name."""

HOTS = (0.1, 0.3, 0.03, 1.0)
"""First temperatures of short rounds in turn, as shares of the mean op's ticks: few moves need low ones."""

DEEP_HOTS = (0.5, 0.35, 0.5, 0.15)
"""Those of deep rounds, the same for all workers of a round, which then take about as long."""

FRESH = 0.3
"""From this first temperature on, deep rounds begin from what was built, and come out elsewhere every time;
from where annealing once came to rest it hardly ever gets away."""

COLD = 0.1
"""Last temperature, as a share of the first."""


def offer_blocks(standing: Standing) -> None:
    """Search building blocks, from coarse to fine, and offer them laid down for every microbatch."""
    for orders, method in _blocks(standing):
        standing.offer(orders, method)


def _blocks(standing: Standing) -> Iterator[tuple[RankOrders, str]]:
    ops = sum(3 if costs.can_divide else 2 for costs in standing.problem.stages)
    if ops > LARGEST_BLOCK or standing.problem.num_microbatches < 2:
        return
    ends = standing.share_ends(BLOCK_SHARE)
    shortest = min(cost.ticks for costs in standing.problem.stages for _, cost in costs.offered)
    for copies, resolution, slack in BLOCKS:
        step = f"building block with {slack:.0%} slack, {resolution} slots in the shortest op"
        step = f"{copies} in turn: {step}" if copies > 1 else step
        standing.go_on(step)
        params = standing.solve_params(step, ends, BLOCK_WORK_LIMIT * copies)
        if params.time_limit_s <= 0:
            return
        standing.used_solver = True
        blocks = find_blocks(standing.problem, max(1, shortest // resolution), slack, params, copies)
        if blocks:
            name = "building block" if copies == 1 else f"{copies} building blocks in turn"
            yield unroll(blocks, standing.problem), name


@dataclass(frozen=True, slots=True)
class Round:
    """What is annealed together: the starts, how long and how hot.

    Parameters
    ----------
    starts
        One for every run.
    moves_per_op
        Of every run.
    hots
        The first temperatures that runs take in turn, as shares of the mean op's ticks.
    """

    starts: list[Start]
    moves_per_op: float
    hots: tuple[float, ...]


def anneal(standing: Standing) -> None:
    """Short rounds of annealing: each has more moves and half the starts, down to one for each worker."""
    _rounds(standing, range(SHORT_ROUNDS), _short_round)


def deepen(standing: Standing) -> None:
    """A few deep rounds of annealing."""
    _rounds(standing, range(SHORT_ROUNDS, SHORT_ROUNDS + FIRST_DEEP_ROUNDS), _deep_round)


def deepen_further(standing: Standing) -> None:
    """Deeper rounds of annealing, while there is time."""
    _rounds(standing, range(SHORT_ROUNDS + FIRST_DEEP_ROUNDS, ROUNDS), _deep_round)


def _rounds(standing: Standing, numbers: range, plan_round: Callable[[Standing, int], Round]) -> None:
    if not standing.starts:
        return
    standing.stop.clear()
    with ThreadPoolExecutor(standing.workers) as executor:
        try:
            for number in numbers:
                step = f"annealing, round {number + 1} of {ROUNDS}"
                standing.go_on(step)
                plan = plan_round(standing, number)
                futures = [
                    executor.submit(_anneal_once, standing, plan, run, standing.seed + 1000 * number + run)
                    for run in range(len(plan.starts))
                ]
                _collect(standing, futures, step)
        finally:
            standing.stop.set()  # whatever ends the rounds ends the runs under way


def _short_round(standing: Standing, number: int) -> Round:
    """The best starts so far, each at a temperature of its own."""
    best, _ = _keep_best(standing)
    kept = max(standing.workers, min(len(best), MOST_ANNEALED) >> number)
    turned = number % len(HOTS)
    return Round(
        starts=list(islice(cycle(best[:kept]), kept)),
        moves_per_op=FIRST_ROUND_MOVES * GROWTH**number,
        hots=HOTS[turned:] + HOTS[:turned],
    )


def _deep_round(standing: Standing, number: int) -> Round:
    """For every worker one of the best starts so far, or in hot rounds the next of what was built."""
    best, built = _keep_best(standing)
    deep = number - SHORT_ROUNDS
    hot = DEEP_HOTS[deep % len(DEEP_HOTS)]
    starts, first = (built or best, deep * standing.workers) if hot >= FRESH else (best, 0)
    return Round(
        starts=[starts[(first + run) % len(starts)] for run in range(standing.workers)],
        moves_per_op=FIRST_ROUND_MOVES * GROWTH**SHORT_ROUNDS * SLOW_GROWTH**deep,
        hots=(hot,),
    )


def _keep_best(standing: Standing) -> tuple[list[Start], list[Start]]:
    """Drop all but the best starts, and the best of those that were not annealed; returns both."""
    starts = sorted(standing.starts, key=lambda start: start.value)
    best = starts[:MOST_ANNEALED]
    built = [start for start in starts if not start.method.endswith(ANNEALED)][:MOST_ANNEALED]
    standing.starts = best + [start for start in built if start not in best]
    return best, built


def _collect(standing: Standing, futures: list[Future[Start]], step: str) -> None:
    """Wait for annealing runs in turn and offer what they found; on an interrupt, what they have."""
    try:
        for future in futures:
            while not wait([future], timeout=HEARTBEAT_S).done:
                standing.report(step, standing.incumbent.value, standing.bound.ticks)
            standing.offer(future.result().orders, future.result().method)
            if standing.seconds_left() <= 0 or standing.incumbent.value <= standing.bound.ticks:
                standing.stop.set()
    except KeyboardInterrupt:
        standing.interrupted = True
        standing.stop.set()
        for future in futures:
            standing.offer(future.result().orders, future.result().method)
    if standing.stop.is_set():
        raise SearchOver


def _anneal_once(standing: Standing, plan: Round, run: int, seed: int) -> Start:
    """One run of annealing, in slices, until its moves are spent or the search is over."""
    start, hot = plan.starts[run], plan.hots[run % len(plan.hots)]
    annealer = Annealer(standing.problem, start.orders, seed)
    num_ops = annealer.graph.num_ops
    hottest = float(annealer.graph.ticks.mean()) * hot
    moves = int(num_ops * plan.moves_per_op)
    slices = max(1, moves * num_ops // OP_MOVES_PER_SLICE)
    for n in range(slices):
        if (
            standing.stop.is_set()
            or standing.seconds_left() <= 0
            or annealer.best_value <= standing.bound.ticks
        ):
            break
        first, last = (hottest * COLD ** (k / slices) for k in (n, n + 1))
        annealer.run(max(1, moves // slices), first, last)
    if annealer.best_value >= start.value:
        return start
    method = start.method if start.method.endswith(ANNEALED) else start.method + ANNEALED
    return Start(annealer.best_orders, annealer.best_value, method)
