"""DeepSeek's bidirectional DualPipe, and DualPipeV: one half of it, two chunks per rank in a V.

Symbols: p ranks, m microbatches, c ticks per transfer; F, B, W, BW ticks of one stage (a chunk of the V); A
bytes that its F allocates.
"""

from __future__ import annotations

from collections import deque

from synth.baselines.directions import Stream, in_two_directions, streams_by_depth
from synth.baselines.shapes import (
    EqualTicks,
    check_divides,
    equal_activation_bytes,
    equal_ticks,
    undivided_backward,
    v_ranks,
)
from synth.errors import BaselineUndefinedError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_NAME, _BOTH_WAYS = "dualpipe-v", "dualpipe"


def dualpipe_v(problem: Problem) -> RankOrders:
    """DualPipeV: forwards of one chunk beside backwards of the other, W put off only where ranks would wait.

    >>> from synth.grid import render_grid
    >>> from synth.placement import PlacementKind
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> chunk = StageCosts(F=one, B=one, W=one, BW=OpCost(ticks=2))
    >>> problem = uniform_problem(4, 8, chunk, chunks=2, kind=PlacementKind.V)
    >>> print(render_grid(schedule_orders(problem, dualpipe_v(problem)), last_slot=15))
     rank 0  0F0  0F1  0F2  0F3  0F4  0F5  0F6  7F0  7B0  7W0  7F1  7B1  7W1  7F2  7B2 …
     rank 1  .    1F0  1F1  1F2  1F3  1F4  6F0  1F5  6F1  6B0  6W0  6F2  6B1  6W1  6F3 …
     rank 2  .    .    2F0  2F1  2F2  5F0  2F3  5F1  2F4  5F2  5B0  5W0  5F3  2F5  5BW1- …
     rank 3  .    .    .    3F0  4F0  3F1  4F1  3F2  4F2  3F3  4F3  3F4  4BW0----- 4F4 …

    The authors run the F and BW of a pair in the steady state at once, so that the transfers of one hide
    behind the compute of the other; here a rank runs one op at a time, and a pair is its F, then its BW.
    Bubble (p-1)(F+B-W) while W ≤ B ≤ F ≤ B+W, and peak (2p+1)·A on every rank, one chunk more than 1F1B.

    References
    ----------
    DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv 2412.19437, section 3.2.1, and the released DualPipe,
    whose DualPipeV this is step by step.

    Raises
    ------
    BaselineUndefinedError
        When the placement is no V, a stage cannot divide its backward, or m is below 2p.
    """
    down = _check(problem)
    p, microbatches = problem.num_ranks, tuple(range(problem.num_microbatches))
    orders: list[tuple[Op, ...]] = [()] * p
    for depth, rank in enumerate(down):
        near, far = Stream(depth, microbatches), Stream(2 * p - 1 - depth, microbatches)
        orders[rank] = _Rank(problem, near, far).order(p - 1 - depth, depth + 1)
    return tuple(orders)


def dualpipe_v_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B-W) + 4(p-1)c; exact for equal stages with W ≤ B, B + 2c ≤ F and F ≤ B + W, BW being B + W.

    The authors' (p-1)(F&B + B - 3W), B their whole backward, counts F&B as one overlapped step.
    """
    _check(problem)
    ticks = _ticks_in_domain(problem)
    if ticks is None:
        return None
    return (problem.num_ranks - 1) * (ticks.F + ticks.B - ticks.W + 4 * ticks.transfer)


def dualpipe_v_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(2p+1)·A on every rank, plus static bytes; equal stages, F allocates A."""
    _check(problem)
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    return tuple(static + (problem.num_stages + 1) * activation for static in problem.static_bytes_by_rank)


def dualpipe_problem(problem: Problem) -> Problem:
    """A plain chain in two directions: see :func:`~synth.baselines.directions.in_two_directions`.

    Raises
    ------
    BaselineUndefinedError
        Also when a stage cannot divide its backward, or m is below 2p.
    """
    reshaped = in_two_directions(_BOTH_WAYS, problem)
    check_divides(_BOTH_WAYS, problem)
    if problem.num_microbatches < 2 * problem.num_ranks:
        raise BaselineUndefinedError(
            _BOTH_WAYS,
            f"{problem.num_microbatches} microbatches on {problem.num_ranks} ranks; it needs twice as many "
            f"as ranks: use {2 * problem.num_ranks} or more",
        )
    return reshaped


def dualpipe(problem: Problem) -> RankOrders:
    """DualPipe: DualPipeV's order for either half of the ranks, the other half running it the other way.

    >>> from synth.grid import render_grid
    >>> from synth.problem import OpCost, StageCosts, uniform_problem
    >>> from synth.timing import schedule_orders
    >>> one = OpCost(ticks=1)
    >>> stage = StageCosts(F=one, B=one, W=one, BW=OpCost(ticks=2))
    >>> problem = dualpipe_problem(uniform_problem(4, 8, stage))
    >>> print(render_grid(schedule_orders(problem, dualpipe(problem)), last_slot=15))
     rank 0  0F0  0F1  0F2  7F4  7B4  7W4  7F5  0F3  7BW5----- 7F6  0BW0----- 7BW6----- …
     rank 1  .    1F0  6F4  1F1  6F5  1F2  6BW4----- 6F6  1BW0----- 1F3  6BW5----- 6F7 …
     rank 2  .    5F4  2F0  5F5  2F1  5F6  2BW0----- 2F2  5BW4----- 5F7  2BW1----- 2F3 …
     rank 3  4F4  4F5  4F6  3F0  3B0  3W0  3F1  4F7  3BW1----- 3F2  4BW4----- 3BW2----- …

    The authors run the F and BW of a pair in the steady state at once; here a rank runs one op at a time, and
    a pair is its F, then its BW. Bubble (p/2-1)(F+B-W) while W ≤ B ≤ F ≤ B+W, and peak (p+1)·A on every rank,
    one microbatch more than 1F1B, with the weights held twice.

    References
    ----------
    DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv 2412.19437, section 3.2.1 and figure 5, and the
    released DualPipe, whose steps these are.
    """
    half = problem.num_ranks // 2
    orders: list[tuple[Op, ...]] = [()] * problem.num_ranks
    for depth, (first, second) in enumerate(streams_by_depth(problem)):
        near, far = (first, second) if depth < half else (second, first)
        from_the_end = min(depth, problem.num_ranks - 1 - depth)
        order = _Rank(problem, near, far).order(half - 1 - from_the_end, from_the_end + 1)
        orders[problem.stage_to_rank[first.stage]] = order
    return tuple(orders)


def dualpipe_bubble_ticks(problem: Problem) -> int | None:
    """(p/2-1)(F+B-W) + (5p/2-3)c; exact for equal stages in the domain of DualPipeV's.

    The authors' (p/2-1)(F&B + B - 3W), B their whole backward, counts F&B as one overlapped step.
    """
    ticks = _ticks_in_domain(problem)
    if ticks is None:
        return None
    half = problem.num_ranks // 2
    return (half - 1) * (ticks.F + ticks.B - ticks.W) + (5 * half - 3) * ticks.transfer


def dualpipe_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(p+1)·A on every rank, plus static bytes; equal stages, F allocates A."""
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    return tuple(static + (problem.num_ranks + 1) * activation for static in problem.static_bytes_by_rank)


class _Rank:
    """A rank's order while it is written: the next microbatch of every stream, and the W put off.

    Parameters
    ----------
    problem
        What is scheduled.
    near, far
        The stage here that microbatches reach first, and the one that they turn back to or, in two
        directions, that those of the other direction reach last.
    """

    def __init__(self, problem: Problem, near: Stream, far: Stream) -> None:
        self.problem = problem
        self.near, self.far = near.stage, far.stage
        self.num_microbatches = len(near.microbatches)
        self.next_forward = {stream.stage: iter(stream.microbatches) for stream in (near, far)}
        self.next_backward = {stream.stage: iter(stream.microbatches) for stream in (near, far)}
        self.put_off: deque[Op] = deque()
        self.ops: list[Op] = []

    def order(self, ahead: int, behind: int) -> tuple[Op, ...]:
        """The eight steps of the released schedule, in its order.

        Parameters
        ----------
        ahead, behind
            How many ranks are further along until the stream turns, and how many up to this one are not.
        """
        for _ in range(2 * ahead):
            self.forward(self.near)
        for _ in range(behind):
            self.forward(self.near)
            self.forward(self.far)
        for _ in range(ahead):
            self.backward(self.far, divided=True)
            self.weight()
            self.forward(self.far)
        for _ in range(self.num_microbatches - 2 * ahead - behind):
            self.forward(self.near)
            self.backward(self.far)
            self.forward(self.far)
            self.backward(self.near)
        for _ in range(ahead):
            self.backward(self.far)
            self.forward(self.far)
            self.backward(self.near)
        for n in range(2 * behind):
            # The second half of these alternating backwards is divided.
            self.backward((self.far, self.near)[n % 2], divided=n >= behind)
        for _ in range(ahead):
            self.weight()
            self.backward(self.near, divided=True)
        for _ in range(behind):
            self.weight()
        return tuple(self.ops)

    def forward(self, stage: int) -> None:
        """The next F of a stage."""
        self.ops.append(Op(OpKind.F, stage, next(self.next_forward[stage])))

    def backward(self, stage: int, *, divided: bool = False) -> None:
        """The next backward of a stage; divided, its W is put off."""
        microbatch = next(self.next_backward[stage])
        if divided:
            self.ops.append(Op(OpKind.B, stage, microbatch))
            self.put_off.append(Op(OpKind.W, stage, microbatch))
        else:
            self.ops += undivided_backward(self.problem, stage, microbatch)

    def weight(self) -> None:
        """The W put off longest."""
        self.ops.append(self.put_off.popleft())


def _ticks_in_domain(problem: Problem) -> EqualTicks | None:
    """Equal ticks with W ≤ B, B + 2c ≤ F and F ≤ B + W, BW being B + W."""
    ticks, whole = equal_ticks(problem, divided=True), equal_ticks(problem, divided=False)
    if ticks is None or whole is None or ticks.total != whole.total:
        return None
    in_domain = ticks.W <= ticks.B <= ticks.F - 2 * ticks.transfer <= ticks.F <= ticks.B + ticks.W
    return ticks if in_domain else None


def _check(problem: Problem) -> tuple[int, ...]:
    check_divides(_NAME, problem)
    down = v_ranks(_NAME, problem)
    if problem.num_microbatches < problem.num_stages:
        raise BaselineUndefinedError(
            _NAME,
            f"{problem.num_microbatches} microbatches with {problem.num_stages} stages; it needs as many "
            f"microbatches as stages: use {problem.num_stages} or more",
        )
    return down
