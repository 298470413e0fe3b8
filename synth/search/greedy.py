"""A plain list schedule for any problem and limit: the start that exists even where no published one fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synth.graph import build_graph
from synth.memory import serial_orders, smallest_limits_bytes
from synth.ops import RankOrders
from synth.problem import Problem
from synth.search.list_schedule import ListScheduler, plain_rules


def greedy_orders(
    problem: Problem, divided: NDArray[np.bool_] | None = None, delay: float = 1.0
) -> RankOrders:
    """Order ops as they become available, with as many microbatches in flight as every limit allows.

    A microbatch enters the first stage only once the one that many before it has left it again. Among
    available ops that fit, a rank prefers backwards, then the forward of its highest stage, then W. Falls
    back on one microbatch at a time.

    Parameters
    ----------
    problem
        A problem whose limits some schedule fits (:func:`synth.memory.check_feasible`).
    divided
        Which [stage, microbatch] backwards are B and W rather than BW; by default all that can be.
    delay
        By how much another op may make a backward late that is known to come, as a share of the op's own
        ticks: with 1 a rank never waits for a backward, with 0 it never lets one wait.
    """
    depth = most_in_flight(problem)
    if depth < 2:
        return serial_orders(problem)
    scheduler = ListScheduler(build_graph(problem, divided))
    if scheduler.run(plain_rules(problem.num_stages, delay, depth)) is None:
        return serial_orders(problem)
    return scheduler.graph.ids_to_orders(scheduler.ids)


def most_in_flight(problem: Problem) -> int:
    """How many microbatches fit on every rank, each holding the most it ever does when run alone.

    Without a limit it is twice the number of ranks, enough to keep all of them busy.
    """
    if problem.memory_limit_bytes is None:
        return 2 * problem.num_ranks
    ways = zip(
        problem.memory_limit_bytes, problem.static_bytes_by_rank, smallest_limits_bytes(problem), strict=True
    )
    return min((limit - static) // max(1, least - static) for limit, static, least in ways)
