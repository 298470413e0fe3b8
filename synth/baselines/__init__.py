"""Published schedules on any problem's costs: orders by rule, no solver.

A baseline is a rule for every rank's order; times follow by longest path (:mod:`synth.timing`). Most schedule
a plain chain of stages as it is; some make another problem of it first: two directions, sequence slices,
stages that evict. Its closed forms are the published ones, with transfer times where these are known; where
the paper has none that is exact, those that measured schedules obey, in the domain in which they do.

=======================  =================================  =================================================
name                     module                             bubble of ``rank_span`` (equal stages, c = 0)
=======================  =================================  =================================================
gpipe                    :mod:`~synth.baselines.flushed`    (p-1)(F+BW)
looped-bfs               ``breadth_first``                  (p-1)(F+BW), of one of v stages per rank
2bp-gpipe                ``two_stage``                      (p-1)(F+B)
1f1b                     :mod:`~synth.baselines.flushed`    (p-1)(F+BW)
pipedream                ``unflushed``                      (p-1)(F+BW), once for all batches
pipedream-2bw            ``unflushed``                      (p-1)(F+BW), once for all batches
seq1f1b                  ``sequence``                       (p-1)(F+BW), of one of k slices
bpipe                    ``balanced_memory``                (p-1)(F+BW), and ticks to evict
2bp-1f1b                 ``two_stage``                      (p-1)(F+B-W)
chimera-asymmetric       ``chimera``                        as chimera for BW = 2F
chimera                  ``chimera``                        (p-2)(BW + (m/p-1)(BW-F)), F ≤ BW
hanayo                   ``wave``                           4(p-1)F of one of v stages, m = p and BW = 2F
1f1b-v                   ``undivided_v``                    about 5p passes of half a stage
interleaved-1f1b         ``interleaved``                    (p-1)(F+BW), of one of v stages per rank
2bp-interleaved-1f1b     ``two_stage``                      (p-1)(F+B-2W) of one of v stages per rank, 2W ≤ F
group-interleaved-1f1b   ``grouped``                        (p-1)(F+B), of one of v stages per rank
interleaved-zero-bubble  ``interleaved_zero_bubble``        (p-1)(F+B-W), of one of v stages per rank
zb-h1                    ``zero_bubble``                    (p-1)(F+B-W)
zb-h2                    ``zero_bubble``                    (p-1)(F+B-2W)
dualpipe                 ``dual_pipe``                      (p/2-1)(F+B-W)
dualpipe-v               ``dual_pipe``                      (p-1)(F+B-W), of half a stage
v-min                    ``v_shaped``                       about 4p passes of half a stage
v-half                   ``v_shaped``                       about 3p passes of half a stage
v-zb                     ``v_shaped``                       0 for F = B = W
=======================  =================================  =================================================
"""

from __future__ import annotations

import difflib

from synth.baselines.catalogue import BASELINES, Baseline
from synth.baselines.sequence import cut_sequences
from synth.baselines.shapes import check_chain
from synth.errors import BaselineUndefinedError, InputError
from synth.graph import check_size
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem
from synth.schedule import Schedule
from synth.timing import schedule_orders

__all__ = [
    "BASELINES",
    "Baseline",
    "baseline_orders",
    "baseline_problem",
    "baseline_schedule",
    "cut_sequences",
]


def baseline_problem(name: str, problem: Problem) -> Problem:
    """The problem that a published schedule schedules in place of a given one: mostly that itself.

    A problem of directions or slices is taken as it is by the baselines that need such a one, by no other.

    Raises
    ------
    InputError
        When no baseline has that name.
    BaselineUndefinedError
        When the baseline does not exist for this problem.
    """
    if name not in BASELINES:
        near = difflib.get_close_matches(name, BASELINES) or list(BASELINES)
        raise InputError(f"{name!r} is no baseline: use {' or '.join(near)}")
    check_size(problem)
    reshape = BASELINES[name].reshape
    if reshape is not None:
        return reshape(problem)
    check_chain(name, problem)
    return problem


def baseline_orders(name: str, problem: Problem) -> RankOrders:
    """The order of every rank under a published schedule, on just the problem given.

    Raises
    ------
    InputError
        When no baseline has that name.
    BaselineUndefinedError
        When the baseline does not exist for this problem, or makes another of it.
    """
    if baseline_problem(name, problem) != problem:
        raise BaselineUndefinedError(name, f"it schedules another problem: {BASELINES[name].makes}")
    return _orders(name, problem)


def baseline_schedule(name: str, problem: Problem) -> Schedule:
    """A published schedule, on what it makes of a problem.

    Raises
    ------
    InputError
        When no baseline has that name.
    BaselineUndefinedError
        When the baseline does not exist for this problem.
    """
    reshaped = baseline_problem(name, problem)
    return schedule_orders(reshaped, _orders(name, reshaped))


def _orders(name: str, problem: Problem) -> RankOrders:
    """A baseline's orders, in the end of which every rank sums the gradients that the problem sums."""
    orders = BASELINES[name].orders(problem)
    summed = [
        [stage for stage in held if problem.stages[stage].R is not None] for held in problem.stages_by_rank
    ]
    return tuple(
        (*order, *(Op(OpKind.R, stage, 0) for stage in stages))
        for order, stages in zip(orders, summed, strict=True)
    )
