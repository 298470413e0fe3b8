"""What baselines ask of a problem: its shape, the backwards it offers, and equal costs for closed forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from synth.errors import BaselineUndefinedError
from synth.flows import laid_out_of
from synth.ops import Op, OpKind
from synth.problem import Links, OpCost, Problem, StageCosts


class EqualTicks(NamedTuple):
    """The ticks of every stage and of every transfer between neighbouring stages, where all are equal.

    ``B`` is the time until the gradient leaves the stage: the whole backward, with ``W`` 0, where it is
    undivided.
    """

    F: int
    B: int
    W: int
    transfer: int

    @property
    def total(self) -> int:
        """All work of one microbatch on one stage."""
        return self.F + self.B + self.W


def check_chain(name: str, problem: Problem) -> None:
    """Refuse stages that are no plain chain."""
    if problem.feeds:
        what = ", but directions or slices" if laid_out_of(problem) else ""
        raise BaselineUndefinedError(name, f"the stages are no plain chain{what}")


def chain_ranks(name: str, problem: Problem) -> tuple[int, ...]:
    """The ranks along the model, for schedules of one stage per rank.

    Raises
    ------
    BaselineUndefinedError
        When some rank holds several stages.
    """
    if problem.num_stages != problem.num_ranks:
        raise BaselineUndefinedError(
            name,
            f"{problem.num_stages} stages on {problem.num_ranks} ranks; it needs one stage on every rank: "
            f"merge the stages to {problem.num_ranks}, or use interleaved-1f1b or a v- schedule",
        )
    return problem.stage_to_rank


def loop_ranks(name: str, problem: Problem) -> tuple[int, ...]:
    """The ranks along one turn of a loop placement, in any order of ranks.

    Raises
    ------
    BaselineUndefinedError
        When stage s and stage s + p are on different ranks for some s.
    """
    ranks, p = problem.stage_to_rank, problem.num_ranks
    turn = ranks[:p]
    if problem.num_stages % p or len(set(turn)) < p or ranks != turn * (problem.num_stages // p):
        raise BaselineUndefinedError(
            name,
            f"stage_to_rank is {_shown(ranks)}; it needs loop placement, every rank once in turn, the same "
            'turn again for every chunk: give {"kind": "loop"} with a multiple of '
            f"{p} stages",
        )
    return turn


def v_ranks(name: str, problem: Problem) -> tuple[int, ...]:
    """The ranks down the first leg of a v placement, in any order of ranks.

    Raises
    ------
    BaselineUndefinedError
        When stage s and stage 2p - 1 - s are on different ranks for some s.
    """
    ranks, p = problem.stage_to_rank, problem.num_ranks
    down = ranks[:p]
    if len(ranks) != 2 * p or len(set(down)) < p or ranks != down + down[::-1]:
        raise BaselineUndefinedError(
            name,
            f"stage_to_rank is {_shown(ranks)}; it needs v placement, two stages per rank, down the ranks "
            f'and back up: give {{"kind": "v"}} with {2 * p} stages',
        )
    return down


def wave_ranks(name: str, problem: Problem) -> tuple[int, ...]:
    """The ranks down the first leg of a wave of an even number of chunks, in any order of ranks.

    Raises
    ------
    BaselineUndefinedError
        When the stages do not go down the ranks and back up, once or several times.
    """
    ranks, p = problem.stage_to_rank, problem.num_ranks
    down = ranks[:p]
    if len(ranks) % (2 * p) or len(set(down)) < p or ranks != (down + down[::-1]) * (len(ranks) // (2 * p)):
        raise BaselineUndefinedError(
            name,
            f"stage_to_rank is {_shown(ranks)}; it needs wave placement, an even number of stages per rank, "
            f'down the ranks and back up: give {{"kind": "wave"}} with a multiple of {2 * p} stages',
        )
    return down


def check_divides(name: str, problem: Problem) -> None:
    """Refuse a problem with a stage that offers no B and W."""
    for stage, costs in enumerate(problem.stages):
        if not costs.can_divide:
            raise BaselineUndefinedError(
                name,
                f"stages[{stage}] offers BW only; it divides every backward: give B and W for every stage",
            )


def undivided_backward(problem: Problem, stage: int, microbatch: int) -> tuple[Op, ...]:
    """BW, or B directly followed by W where the stage offers no BW."""
    kinds = (OpKind.B, OpKind.W) if problem.stages[stage].must_divide else (OpKind.BW,)
    return tuple(Op(kind, stage, microbatch) for kind in kinds)


def with_offered_backwards(problem: Problem, order: Iterable[Op]) -> tuple[Op, ...]:
    """An order with every BW as its stage offers it: undivided, or B directly followed by W."""
    divided = {stage for stage, costs in enumerate(problem.stages) if costs.must_divide}
    if not divided:
        return tuple(order)
    return tuple(
        part
        for op in order
        for part in (
            undivided_backward(problem, op.stage, op.microbatch)
            if op.kind is OpKind.BW and op.stage in divided
            else (op,)
        )
    )


def equal_ticks(problem: Problem, *, divided: bool) -> EqualTicks | None:
    """The ticks that all stages and all neighbouring transfers share, or None where they differ.

    None too under exclusive links with transfer times, or where gradients are summed over replicas, which no
    published closed form knows.

    Parameters
    ----------
    problem
        The problem.
    divided
        Whether the schedule divides the backward; if not, BW counts where it is offered.
    """
    found = {_stage_ticks(costs, divided=divided) for costs in problem.stages}
    pairs = [(before, s) for s, inputs in enumerate(problem.inputs_by_stage) for before in inputs]
    lags = {
        problem.lag_ticks(a, b)
        for s, t in pairs
        for a, b in ((s, t), (t, s))
        if problem.stage_to_rank[a] != problem.stage_to_rank[b]
    } or {0}
    if len(found) > 1 or len(lags) > 1 or any(costs.R is not None for costs in problem.stages):
        return None
    (ticks,), (transfer,) = found, lags
    if transfer and problem.links is Links.EXCLUSIVE:
        return None
    return EqualTicks(*ticks, transfer)


def holds_from_forward_on(costs: StageCosts) -> bool:
    """Whether F allocates all that a microbatch holds, the backward frees exactly that, and a sum nothing.

    The published peaks count activations so; where B allocates (gradients kept for W), they do not apply.
    """
    ways: list[tuple[OpCost, ...]] = []
    if costs.B is not None and costs.W is not None:
        ways.append((costs.B, costs.W))
    if costs.BW is not None:
        ways.append((costs.BW,))
    sums_in_place = costs.R is None or costs.R.alloc_bytes == costs.R.free_bytes == 0
    return (
        sums_in_place
        and costs.F.free_bytes == 0
        and all(
            sum(cost.free_bytes for cost in way) == costs.F.alloc_bytes
            and not any(c.alloc_bytes for c in way)
            for way in ways
        )
    )


def equal_activation_bytes(problem: Problem) -> int | None:
    """What the F of every stage allocates, where it is the same and held as the published peaks count it."""
    allocated = {costs.F.alloc_bytes for costs in problem.stages}
    if len(allocated) > 1 or not all(map(holds_from_forward_on, problem.stages)):
        return None
    return problem.stages[0].F.alloc_bytes


def equal_bytes_for_w(problem: Problem) -> int | None:
    """What every stage still holds between B and W, where F allocates the same and frees go the same way."""
    activation = equal_activation_bytes(problem)
    freed = {costs.cost(OpKind.B).free_bytes for costs in problem.stages}
    return None if activation is None or len(freed) > 1 else activation - freed.pop()


def _stage_ticks(costs: StageCosts, *, divided: bool) -> tuple[int, int, int]:
    if divided or costs.must_divide:
        return costs.F.ticks, costs.cost(OpKind.B).ticks, costs.cost(OpKind.W).ticks
    return costs.F.ticks, costs.cost(OpKind.BW).ticks, 0


def _shown(ranks: tuple[int, ...]) -> str:
    return str(list(ranks)) if len(ranks) <= 16 else f"{len(ranks)} long"
