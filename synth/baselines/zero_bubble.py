"""ZB-H1 and ZB-H2, hand-made with a divided backward, and the closed forms of their searched relatives.

Symbols: p ranks, m microbatches, c ticks per transfer; F, B, W ticks of one stage; A bytes that F allocates,
A_W bytes still held between B and W. All from Qi et al., "Zero Bubble Pipeline Parallelism",
arXiv 2401.10241, ICLR 2024.
"""

from __future__ import annotations

from synth.baselines.shapes import (
    EqualTicks,
    chain_ranks,
    check_divides,
    equal_ticks,
    holds_from_forward_on,
)
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem, StageCosts


def zb_h1(problem: Problem) -> RankOrders:
    """ZB-H1: 1F1B with W put off by as many microbatches as the rank is deep, at 1F1B's memory.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 6, StageCosts(F=one, B=one, W=one))
    >>> print(render_grid(schedule_orders(problem, zb_h1(problem))))
     rank 0  F0 F1 F2 F3 .  .  .  B0 W0 F4 B1 W1 F5 B2 W2 B3 W3 B4 W4 B5 W5
     rank 1  .  F0 F1 F2 .  .  B0 F3 B1 W0 F4 B2 W1 F5 B3 W2 B4 W3 B5 W4 W5
     rank 2  .  .  F0 F1 .  B0 F2 B1 F3 B2 W0 F4 B3 W1 F5 B4 W2 B5 W3 W4 W5
     rank 3  .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 W0 F4 B4 W1 F5 B5 W2 W3 W4 W5

    Rank r runs p-1-r forwards, then F and B alternately, from B of microbatch r on each followed by the W of
    r microbatches before. Bubble (p-1)(F+B-W), peak (p-r)·A + r·A_W on rank r.

    References
    ----------
    Tables 2 and 5.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages, or a stage cannot divide its backward.
    """
    return _hand_made("zb-h1", problem, forwards_per_hop=1)


def zb_h1_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B-W) + 4(p-1)c from m = p + 1 on; exact for equal stages with W ≤ F and 2c ≤ W.

    With m ≤ p only m-1 of the weight passes fill the wait: the span is (m+p-1)(F+B) + W without transfers.
    """
    _check("zb-h1", problem)
    ticks = equal_ticks(problem, divided=True)
    if ticks is None or ticks.W > ticks.F or 2 * ticks.transfer > ticks.W:
        return None
    p, m = problem.num_ranks, problem.num_microbatches
    hops = p - 1 + min(max(m - 2, 0), p - 1)
    return (p - 1) * (ticks.F + ticks.B) - (min(m, p) - 1) * ticks.W + 2 * hops * ticks.transfer


def zb_h1_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(p-r)·A + r·A_W on rank r from m = p on, plus static bytes; any costs, if F allocates A."""
    return _hand_made_peak_bytes("zb-h1", problem, forwards_per_hop=1)


def zb_h2(problem: Problem) -> RankOrders:
    """ZB-H2: twice ZB-H1's forwards before the first backward, at about twice 1F1B's memory.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> problem = uniform_problem(4, 7, StageCosts(F=one, B=one, W=one))
    >>> print(render_grid(schedule_orders(problem, zb_h2(problem))))
     rank 0  F0 F1 F2 F3 F4 F5 F6 B0 W0 B1 W1 B2 W2 B3 W3 B4 W4 B5 W5 B6 W6 .  .  .
     rank 1  .  F0 F1 F2 F3 F4 B0 F5 B1 F6 B2 W0 B3 W1 B4 W2 B5 W3 B6 W4 W5 W6 .  .
     rank 2  .  .  F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 F6 B4 W0 B5 W1 B6 W2 W3 W4 W5 W6 .
     rank 3  .  .  .  F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 W0 W1 W2 W3 W4 W5 W6

    Rank r runs 2(p-1-r) forwards, then F and B alternately, from B of microbatch 2r on each followed by the W
    of 2r microbatches before. Bubble (p-1)(F+B-2W), peak (2(p-r)-1)·A + 2r·A_W on rank r.

    References
    ----------
    Tables 2 and 5.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages, or a stage cannot divide its backward.
    """
    return _hand_made("zb-h2", problem, forwards_per_hop=2)


def zb_h2_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B-2W) + 2(p-1)c from m = 2p - 1 on; exact for equal stages, W ≤ F, W ≤ B and 2c ≤ W.

    A bubble of ``rank_span``: the ranks end one after the other, so the makespan is larger. Below m = 2p - 1
    only m-1 of the weight passes fill the wait.
    """
    _check("zb-h2", problem)
    ticks = equal_ticks(problem, divided=True)
    if ticks is None or min(ticks.F, ticks.B) < ticks.W or 2 * ticks.transfer > ticks.W:
        return None
    p, m = problem.num_ranks, problem.num_microbatches
    filled = min(m, 2 * p - 1) - 1
    return (p - 1) * (ticks.F + ticks.B + 2 * ticks.transfer) - filled * ticks.W


def zb_h2_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(2(p-r)-1)·A + 2r·A_W on rank r from m = 2p - 1 on, plus static bytes; any costs, if F allocates A."""
    return _hand_made_peak_bytes("zb-h2", problem, forwards_per_hop=2)


def zb_1p_bubble_ticks(problem: Problem) -> int | None:
    """The bubble of ZB-1p, the heuristic under a limit of p·A: ZB-H1's on all twelve rows of table 5."""
    return zb_h1_bubble_ticks(problem)


def zb_limit_bytes(problem: Problem, factor: int) -> tuple[int, ...]:
    """The memory limit that names ZB-1p (factor 1) and ZB-2p (factor 2): ``factor``·p·A plus static bytes.

    ZB-2p's bubble has no closed form: it is what the paper's heuristic finds.
    """
    depth_ranks = chain_ranks(f"zb-{factor}p", problem)
    limits = list(problem.static_bytes_by_rank)
    for stage, rank in enumerate(depth_ranks):
        limits[rank] += factor * problem.num_ranks * problem.stages[stage].F.alloc_bytes
    return tuple(limits)


def first_backward_bound_ticks(ticks: EqualTicks, num_ranks: int, limit_microbatches: int) -> int:
    """The least idle time of the first rank before its first B: (p-1)(B+2c) + max(0, p-k)F.

    Holds for every schedule of one equal stage per rank in which no rank holds more than k ≤ p microbatches
    before B; ``rank_span`` is then at least m(F+B+W) plus this.

    References
    ----------
    Appendix B.

    >>> first_backward_bound_ticks(EqualTicks(F=18522, B=18086, W=9337, transfer=601), 8, 8)
    135016
    """
    missing = max(0, num_ranks - limit_microbatches)
    return (num_ranks - 1) * (ticks.B + 2 * ticks.transfer) + missing * ticks.F


def flat_from_microbatches(ticks: EqualTicks, num_ranks: int, *, zero: bool = False) -> int:
    """From how many microbatches of memory on the bubble stops falling: ⌊((p-1)(B+2c) + pF) / F⌋.

    With ``zero``, from where it is truly zero: 2p-1 in place of p.

    References
    ----------
    Appendix B.

    >>> flat_from_microbatches(EqualTicks(F=1, B=1, W=1, transfer=0), 8)
    15
    """
    forwards = 2 * num_ranks - 1 if zero else num_ranks
    return ((num_ranks - 1) * (ticks.B + 2 * ticks.transfer) + forwards * ticks.F) // ticks.F


def few_microbatches_ticks(ticks: EqualTicks, num_ranks: int, num_microbatches: int) -> int:
    """The time of one step with m ≤ p: about (m+p-1)(F+B) + W, against (m+p-1)(F+B+W) for 1F1B.

    Without transfers and with W < B; the paper puts the gain at 20 to 30 %. ZB-H1 meets it while W ≤ F.

    >>> few_microbatches_ticks(EqualTicks(F=1, B=1, W=1, transfer=0), 4, 4)
    15
    """
    return (num_microbatches + num_ranks - 1) * (ticks.F + ticks.B) + ticks.W


def _check(name: str, problem: Problem) -> tuple[int, ...]:
    check_divides(name, problem)
    return chain_ranks(name, problem)


def _hand_made(name: str, problem: Problem, *, forwards_per_hop: int) -> RankOrders:
    """The common rule of ZB-H1 and ZB-H2: every hop to the last rank is worth one or two forwards."""
    depth_ranks = _check(name, problem)
    m = problem.num_microbatches
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for stage, rank in enumerate(depth_ranks):
        warmup = min(forwards_per_hop * (problem.num_ranks - 1 - stage), m)
        put_off = forwards_per_hop * stage
        order = [Op(OpKind.F, stage, i) for i in range(warmup)]
        for i in range(m):
            if i + warmup < m:
                order.append(Op(OpKind.F, stage, i + warmup))
            order.append(Op(OpKind.B, stage, i))
            if i >= put_off:
                order.append(Op(OpKind.W, stage, i - put_off))
        order += (Op(OpKind.W, stage, i) for i in range(max(0, m - put_off), m))
        orders[rank] = tuple(order)
    return tuple(orders)


def _hand_made_peak_bytes(name: str, problem: Problem, *, forwards_per_hop: int) -> tuple[int, ...] | None:
    depth_ranks = _check(name, problem)
    if not all(map(holds_from_forward_on, problem.stages)):
        return None
    peaks = list(problem.static_bytes_by_rank)
    for stage, rank in enumerate(depth_ranks):
        ahead = forwards_per_hop * (problem.num_ranks - 1 - stage) + 1
        in_flight = min(ahead, problem.num_microbatches)
        put_off = min(forwards_per_hop * stage, problem.num_microbatches - in_flight)
        peaks[rank] += _held_bytes(problem.stages[stage], in_flight, put_off)
    return tuple(peaks)


def _held_bytes(costs: StageCosts, in_flight: int, put_off: int) -> int:
    """Bytes of microbatches before B, and of microbatches between B and W."""
    between = costs.F.alloc_bytes - costs.cost(OpKind.B).free_bytes
    return in_flight * costs.F.alloc_bytes + put_off * between
