"""Whether orders hold what a problem asks for: nothing is planned or run otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from synth.errors import InvalidOrdersError
from synth.ops import PASSES, Op, OpKind, RankOrders
from synth.problem import Problem


def check_orders(problem: Problem, orders: RankOrders) -> None:
    """Make sure that orders hold every op of a problem once, on its rank.

    Raises
    ------
    InvalidOrdersError
        Naming the first op that is missing, misplaced or there twice.
    """
    carried = [set(problem.microbatches_of(stage)) for stage in range(problem.num_stages)]
    seen: set[Op] = set()
    for rank, order in enumerate(orders):
        for op in order:
            if op.stage >= problem.num_stages or not _is_run_for(op, carried):
                raise InvalidOrdersError(f"rank {rank} runs {op}, which the problem lacks")
            own = problem.stage_to_rank[op.stage]
            if own != rank:
                raise InvalidOrdersError(f"rank {rank} runs {op}, which belongs on rank {own}")
            if op.kind not in dict(problem.stages[op.stage].offered):
                raise InvalidOrdersError(f"rank {rank} runs {op}, which its stage's costs do not offer")
            if op in seen:
                raise InvalidOrdersError(f"rank {rank} runs {op} twice")
            seen.add(op)
    for stage, costs in enumerate(problem.stages):
        for microbatch in problem.microbatches_of(stage):
            _check_complete(seen, stage, microbatch)
        if costs.R is not None and Op(OpKind.R, stage, 0) not in seen:
            raise InvalidOrdersError(f"no rank runs {Op(OpKind.R, stage, 0)}")


def _is_run_for(op: Op, carried: Sequence[set[int]]) -> bool:
    """Whether the op's stage runs that kind of op for its microbatch."""
    return op.microbatch == 0 if op.kind is OpKind.R else op.microbatch in carried[op.stage]


def _check_complete(seen: set[Op], stage: int, microbatch: int) -> None:
    forward, inputs, weights, whole = (Op(kind, stage, microbatch) for kind in PASSES)
    if forward not in seen:
        raise InvalidOrdersError(f"no rank runs {forward}")
    if [inputs in seen, weights in seen] != [whole not in seen] * 2:
        given = ", ".join(str(op) for op in (inputs, weights, whole) if op in seen) or "none"
        raise InvalidOrdersError(
            f"of {inputs}, {weights} and {whole} {given} is run: run the first two or the last"
        )
