"""Seq1F1B: 1F1B over the sequence slices of microbatches.

Symbols: p ranks, m microbatches, k slices; F, BW ticks of one stage; A bytes that its F allocates.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from synth.baselines.pieces import piece_of
from synth.baselines.shapes import (
    chain_ranks,
    equal_activation_bytes,
    equal_ticks,
    undivided_backward,
)
from synth.errors import BaselineUndefinedError, InputError
from synth.flows import Direction, lay_out, with_slices
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem, StageCosts

_NAME = "seq1f1b"

USUAL_SLICES = 4
"""Into so many a plain chain is cut where nothing else is said: as many as in the paper's measurements."""

_FINENESS = 10**9
"""Balanced cuts lie on multiples of one part in so many of the sequence."""


def cut_sequences(
    problem: Problem,
    slices: int = USUAL_SLICES,
    attention_share: Fraction = Fraction(0),
    *,
    balanced: bool = True,
) -> Problem:
    """A plain chain whose microbatches are cut into sequence slices, for causal attention.

    A later slice attends to all before it, so attention takes the square of a share of the sequence. With
    ``balanced``, all slices take equal time and the later ones are shorter and hold less
    ("computation-wise"); otherwise they are equally long and hold the same, and the later ones take longer.
    The gradients of the weights take the same for every token, so of a divided backward attention is in B.

    The keys and values of a slice are some of its activations and stay until its own backward, which comes
    after those of the later slices: they are counted with F's bytes, like all else that F keeps.

    Parameters
    ----------
    problem
        One stage per rank.
    slices
        k, at least 1.
    attention_share
        Which share of the ticks of F, and of the whole backward, attention takes, from 0 to 1.
    balanced
        Whether slices are equal in time, rather than in length.

    Raises
    ------
    BaselineUndefinedError
        When a rank holds several stages, or an op has fewer ticks than there are slices.
    InputError
        When the count or the share means nothing.

    References
    ----------
    Sun et al., "Seq1F1B: Efficient Sequence-Level Pipeline Parallelism for Large Language Model Training",
    arXiv 2406.03488, its computation-wise partition.
    """
    if slices < 1:
        raise InputError(f"the number of slices is {slices}: give an integer ≥ 1")
    if not 0 <= attention_share <= 1:
        raise InputError(f"the share of attention is {attention_share}: give a number from 0 to 1")
    if problem.feeds:
        raise BaselineUndefinedError(
            _NAME, "the stages are no plain chain, which alone can be cut into slices"
        )
    chain_ranks(_NAME, problem)
    _check_ticks(problem, slices)
    shares = [Fraction(number, slices) for number in range(slices + 1)]
    ends = [_share_of_tokens(share, attention_share) for share in shares] if balanced else shares
    spans = list(pairwise(ends))
    return with_slices(
        problem,
        [[_slice(costs, begin, end, attention_share) for begin, end in spans] for costs in problem.stages],
    )


def seq1f1b_problem(problem: Problem) -> Problem:
    """A plain chain cut into :data:`USUAL_SLICES` equal slices; a problem of slices stays as it is.

    Raises
    ------
    BaselineUndefinedError
        When the stages are neither one chain nor the slices of one.
    """
    if not problem.feeds:
        return cut_sequences(problem)
    p, k = problem.num_ranks, problem.num_stages // problem.num_ranks
    ranks, everything = problem.stage_to_rank[::k], tuple(range(problem.num_microbatches))
    if len(set(ranks)) == len(ranks) == p and problem.num_stages == p * k:
        sliced = [problem.stages[stage * k : (stage + 1) * k] for stage in range(p)]
        flow = lay_out(sliced, [Direction(ranks, everything)])
        if (flow.feeds, flow.stage_to_rank) == (problem.feeds, problem.stage_to_rank):
            return problem
    raise BaselineUndefinedError(
        _NAME,
        f"the {problem.num_stages} stages are no slices of one chain with one stage per rank: give those, or "
        "the chain itself",
    )


def seq1f1b(problem: Problem) -> RankOrders:
    """Seq1F1B: 1F1B of slices, the slices of a microbatch forward from the first and backward from the last.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> stage = StageCosts(F=OpCost(ticks=2), BW=OpCost(ticks=4))
    >>> problem = cut_sequences(uniform_problem(4, 2, stage), 2)
    >>> print(render_grid(schedule_orders(problem, seq1f1b(problem)), last_slot=17))
     rank 0  0F0  1F0  0F1  1F1  .    .    .    .    .    .    .    1BW0----- .    0BW0----- . …
     rank 1  .    2F0  3F0  2F1  3F1  .    .    .    .    3BW0----- .    2BW0----- .    3BW1----- …
     rank 2  .    .    4F0  5F0  4F1  .    .    5BW0----- 5F1  4BW0----- .    5BW1----- 4BW1----- …
     rank 3  .    .    .    6F0  7F0  7BW0----- 6F1  6BW0----- 7F1  7BW1----- 6BW1----- .    . …

    Rank r runs p - 2 - r + k slices ahead, so that a microbatch is whole before its first backward. Bubble
    (p-1)(F+BW)/k and peak (k + p-1-r)/k·A on rank r, with equal slices.

    References
    ----------
    Sun et al., "Seq1F1B", arXiv 2406.03488, figure 1 and its partially ordered queue: microbatches leave it
    in the order in which they came, the slices of one in the opposite.
    """
    p, k = problem.num_ranks, problem.num_stages // problem.num_ranks
    orders: list[tuple[Op, ...]] = [()] * p
    for depth, rank in enumerate(problem.stage_to_rank[::k]):
        held = range(depth * k, (depth + 1) * k)
        forwards = [Op(OpKind.F, stage, i) for i in range(problem.num_microbatches) for stage in held]
        backwards = [
            undivided_backward(problem, stage, i)
            for i in range(problem.num_microbatches)
            for stage in reversed(held)
        ]
        warmup = min(p - 2 - depth + k, len(forwards))
        order = forwards[:warmup]
        for number, backward in enumerate(backwards):
            order += [*forwards[warmup + number : warmup + number + 1], *backward]
        orders[rank] = tuple(order)
    return tuple(orders)


def seq1f1b_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+BW), of one slice; exact for equal stages and slices without transfers.

    Where BW must be B then W, the gradient leaves after B, and B replaces BW.
    """
    ticks = equal_ticks(problem, divided=False)
    if ticks is None or ticks.transfer:
        return None
    return (problem.num_ranks - 1) * (ticks.F + ticks.B)


def seq1f1b_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """min(k + p-1-r, mk) slices on rank r, plus static bytes; equal stages and slices, F allocates A/k."""
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    p, k = problem.num_ranks, problem.num_stages // problem.num_ranks
    peaks = list(problem.static_bytes_by_rank)
    for depth, rank in enumerate(problem.stage_to_rank[::k]):
        peaks[rank] += min(k + p - 1 - depth, k * problem.num_microbatches) * activation
    return tuple(peaks)


def _check_ticks(problem: Problem, slices: int) -> None:
    for stage, costs in enumerate(problem.stages):
        for kind, cost in costs.offered:
            if kind is not OpKind.R and cost.ticks < slices:
                raise BaselineUndefinedError(
                    _NAME,
                    f"stages[{stage}].{kind} takes {cost.ticks} ticks, too few for {slices} slices: use at "
                    f"most {cost.ticks} slices, or shorter ticks",
                )


def _share_of_tokens(share: Fraction, attention: Fraction) -> Fraction:
    """How much of a sequence takes such a share x of its time: (1-a)·tokens + a·tokens² = x."""
    if share in (0, 1):
        return share
    linear = 1 - attention
    root = linear**2 + 4 * attention * share
    return (
        2 * share / (linear + Fraction(isqrt(root.numerator * _FINENESS**2 // root.denominator), _FINENESS))
    )


def _slice(costs: StageCosts, begin: Fraction, end: Fraction, attention: Fraction) -> StageCosts:
    """A slice of a stage, which runs all layers: the weights and what sums their gradients stay whole."""
    squared = {kind: attention for kind, _ in costs.offered}
    if costs.B is not None and costs.W is not None:
        whole = costs.B.ticks + costs.W.ticks
        squared |= {OpKind.B: min(Fraction(1), attention * whole / costs.B.ticks), OpKind.W: Fraction(0)}

    def elapsed(kind: OpKind, share: Fraction) -> Fraction:
        return (1 - squared[kind]) * share + squared[kind] * share**2

    piece = piece_of(costs, begin, end, elapsed)
    return replace(
        piece,
        R=costs.R,
        static_bytes=costs.static_bytes,
        weight_bytes=costs.weight_bytes,
        layers=costs.layers,
    )
