"""DualPipeV: DeepSeek's bidirectional DualPipe cut in half, two chunks per rank in a V.

Symbols: p ranks, m microbatches; F, B, W, BW ticks of one stage (one chunk); A bytes that its F allocates.
"""

from __future__ import annotations

from collections import deque
from itertools import count

from synth.baselines.shapes import (
    check_divides,
    equal_activation_bytes,
    equal_ticks,
    undivided_backward,
    v_ranks,
)
from synth.errors import BaselineUndefinedError
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem

_NAME = "dualpipe-v"


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
    by_depth = [_Rank(problem, depth).order() for depth in range(problem.num_ranks)]
    return tuple(by_depth[down.index(rank)] for rank in range(problem.num_ranks))


def dualpipe_v_bubble_ticks(problem: Problem) -> int | None:
    """(p-1)(F+B-W) + 4(p-1)c; exact for equal stages with W ≤ B, B + 2c ≤ F and F ≤ B + W, BW being B + W.

    The authors' (p-1)(F&B + B - 3W), B their whole backward, counts F&B as one overlapped step.
    """
    _check(problem)
    ticks, whole = equal_ticks(problem, divided=True), equal_ticks(problem, divided=False)
    if ticks is None or whole is None or ticks.total != whole.total:
        return None
    if not ticks.W <= ticks.B <= ticks.F - 2 * ticks.transfer <= ticks.F <= ticks.B + ticks.W:
        return None
    return (problem.num_ranks - 1) * (ticks.F + ticks.B - ticks.W + 4 * ticks.transfer)


def dualpipe_v_peak_bytes(problem: Problem) -> tuple[int, ...] | None:
    """(2p+1)·A on every rank, plus static bytes; equal stages, F allocates A."""
    _check(problem)
    activation = equal_activation_bytes(problem)
    if activation is None:
        return None
    return tuple(static + (problem.num_stages + 1) * activation for static in problem.static_bytes_by_rank)


class _Rank:
    """A rank's order while it is written: the next microbatch of every stream, and the W put off."""

    def __init__(self, problem: Problem, depth: int) -> None:
        self.problem = problem
        self.depth = depth
        self.down, self.up = depth, problem.num_stages - 1 - depth
        self.next_forward = {stage: count() for stage in (self.down, self.up)}
        self.next_backward = {stage: count() for stage in (self.down, self.up)}
        self.put_off: deque[Op] = deque()
        self.ops: list[Op] = []

    def order(self) -> tuple[Op, ...]:
        """The eight steps of the released schedule, in its order."""
        ahead, behind = self.problem.num_ranks - 1 - self.depth, self.depth + 1
        for _ in range(2 * ahead):
            self.forward(self.down)
        for _ in range(behind):
            self.forward(self.down)
            self.forward(self.up)
        for _ in range(ahead):
            self.backward(self.up, divided=True)
            self.weight()
            self.forward(self.up)
        for _ in range(self.problem.num_microbatches - self.problem.num_stages + behind):
            self.forward(self.down)
            self.backward(self.up)
            self.forward(self.up)
            self.backward(self.down)
        for _ in range(ahead):
            self.backward(self.up)
            self.forward(self.up)
            self.backward(self.down)
        for n in range(2 * behind):
            # The second half of these alternating backwards is divided.
            self.backward((self.up, self.down)[n % 2], divided=n >= behind)
        for _ in range(ahead):
            self.weight()
            self.backward(self.down, divided=True)
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
