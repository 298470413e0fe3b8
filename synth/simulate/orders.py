"""Whether orders hold exactly a problem's ops."""

from __future__ import annotations

from collections.abc import Iterator

from synth.errors import InvalidOrdersError
from synth.ops import PASSES, Op, OpKind, RankOrders
from synth.problem import Problem


def check_orders(problem: Problem, orders: RankOrders) -> None:
    """Refuse orders that do not hold each op once, on its rank.

    Raises
    ------
    InvalidOrdersError
        Naming the rank and the op.
    """
    if len(orders) != problem.num_ranks:
        raise InvalidOrdersError(f"orders are given for {len(orders)} ranks; give {problem.num_ranks}")
    known = {op for stage in range(problem.num_stages) for op in _offered(problem, stage)}
    seen: set[Op] = set()
    for rank, order in enumerate(orders):
        for op in order:
            if op not in known:
                raise InvalidOrdersError(f"rank {rank} runs {op}, which the problem lacks")
            own = problem.stage_to_rank[op.stage]
            if own != rank:
                raise InvalidOrdersError(f"rank {rank} runs {op}, which belongs on rank {own}")
            if op in seen:
                raise InvalidOrdersError(f"rank {rank} runs {op} twice")
            seen.add(op)
    for stage in range(problem.num_stages):
        for microbatch in problem.microbatches_of(stage):
            _check_complete(seen, stage, microbatch)
        if problem.stages[stage].R is not None and Op(OpKind.R, stage, 0) not in seen:
            raise InvalidOrdersError(f"no rank runs {Op(OpKind.R, stage, 0)}")


def _offered(problem: Problem, stage: int) -> Iterator[Op]:
    """Every op that a stage may run."""
    for kind, _ in problem.stages[stage].offered:
        runs = (0,) if kind is OpKind.R else problem.microbatches_of(stage)
        yield from (Op(kind, stage, microbatch) for microbatch in runs)


def _check_complete(seen: set[Op], stage: int, microbatch: int) -> None:
    forward, inputs, weights, whole = (Op(kind, stage, microbatch) for kind in PASSES)
    if forward not in seen:
        raise InvalidOrdersError(f"no rank runs {forward}")
    divided = inputs in seen, weights in seen
    if whole in seen and any(divided):
        raise InvalidOrdersError(f"{whole} runs beside {inputs} or {weights}; run BW, or B and W")
    if whole not in seen and not all(divided):
        raise InvalidOrdersError(f"neither {whole} runs, nor both {inputs} and {weights}")
