"""The whole horizon with CP-SAT: the start of every op is a variable, and the answer is exact.

Microbatches that pass the same stages are identical, so each stream (a kind of op on a stage) runs them in
order; a stage's B and BW are one stream, whose n-th op may take either form. Memory is a function of a rank's
order: for each op that allocates, the ops before it on its rank are counted by literals of their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil
from typing import TypeAlias

from ortools.sat.python import cp_model
from ortools.sat.python.cp_model_helper import Literal

from synth.cpsat import SolveParams, solve
from synth.exact.answer import ExactAnswer, FoundOrders, Stream, orders_by_start, orders_from_starts
from synth.exact.flow import Flow
from synth.exact.slots import common_ticks
from synth.ops import Op, OpKind
from synth.problem import Links, Objective, OpCost, Problem
from synth.schedule import Schedule

Expr: TypeAlias = cp_model.LinearExpr | int

LARGEST_EXACT = 2**52
"""Longer horizons, in units of the common divisor of all ticks, are not modelled: CP-SAT states its bound as
a float, exact only up to here."""

LARGEST_MEMORY = 2**60
"""Larger sums of bytes overflow the solver's linear constraints."""


def is_supported(problem: Problem) -> bool:
    """Whether the whole-horizon model can state a problem: its times and bytes within CP-SAT's integers."""
    held = sum(cost.alloc_bytes + cost.free_bytes for costs in problem.stages for _, cost in costs.offered)
    horizon = 2 * _serial_ticks(problem) // common_ticks(problem)
    return horizon < LARGEST_EXACT and 2 * held * problem.num_microbatches < LARGEST_MEMORY


def solve_whole_horizon(
    problem: Problem,
    params: SolveParams,
    *,
    hint: Schedule | None = None,
    least_ticks: int = 0,
    on_found: Callable[[FoundOrders], None] = lambda found: None,
) -> ExactAnswer:
    """Search the best orders and prove a bound.

    Parameters
    ----------
    problem
        A problem that :func:`is_supported` accepts.
    params
        Limits of the solver.
    hint
        A valid schedule to start from: nothing worse is searched, and it is the first that is found.
    least_ticks
        A bound that is known already.
    on_found
        Called with every better orders, in the solver's thread.

    Returns
    -------
    The best orders found, complete where they are proved optimal; none where the hint meets the known bound,
    and, complete without a hint, where no orders keep within the limits.
    """
    if hint is not None and hint.value <= least_ticks:
        return ExactAnswer(found=None, lower_bound=least_ticks, is_complete=True)
    model = build_whole_horizon_model(problem, hint, least_ticks)
    solved = solve(model.cp, params, _Watch(model, on_found))
    found = _read(model, solved.solver.value) if solved.has_solution else None
    proved = (
        ceil(solved.lower_bound - 1e-6) * model.unit if solved.has_solution or not solved.is_proved else 0
    )
    return ExactAnswer(
        found=found,
        lower_bound=max(least_ticks, proved),
        is_complete=solved.is_proved,
    )


@dataclass(slots=True)
class _Model:
    """The variables; times are in units of the common divisor of all ticks.

    ``B`` stands for a backward of either form, and a ``W`` that does not run takes no time.
    """

    cp: cp_model.CpModel
    problem: Problem
    unit: int
    horizon: int
    value: cp_model.IntVar
    flow: Flow
    start: dict[Op, cp_model.IntVar] = field(default_factory=dict)
    end: dict[Op, cp_model.LinearExpr] = field(default_factory=dict)
    divided: dict[Op, cp_model.IntVar] = field(default_factory=dict)
    order: dict[tuple[Op, Op], cp_model.IntVar] = field(default_factory=dict)

    def units(self, ticks: int) -> int:
        """Ticks in units."""
        return ticks // self.unit

    def choice(self, op: Op) -> cp_model.IntVar | None:
        """Whether the op's backward is divided, where its stage leaves the choice and the op hangs on it."""
        if op.kind in (OpKind.F, OpKind.R):
            return None
        return self.divided.get(op._replace(kind=OpKind.B))

    def ops_of(self, rank: int) -> list[Op]:
        """The ops that a rank may run."""
        return [op for op in self.start if self.problem.stage_to_rank[op.stage] == rank]


def _serial_ticks(problem: Problem) -> int:
    """One op after another, and every transfer after the one before: no earliest schedule takes longer."""
    ticks = sum(max(cost.ticks for _, cost in costs.offered) * 3 for costs in problem.stages)
    hops = [(s, source) for s, inputs in enumerate(problem.inputs_by_stage) for source in inputs]
    lags = sum(problem.lag_ticks(a, b) + problem.lag_ticks(b, a) for a, b in hops)
    return problem.num_microbatches * (ticks + lags)


def build_whole_horizon_model(problem: Problem, hint: Schedule | None = None, least_ticks: int = 0) -> _Model:
    """The model of a problem; see the module's docstring for its variables."""
    unit = common_ticks(problem)
    most = (_serial_ticks(problem) if hint is None else hint.value) // unit
    cp = cp_model.CpModel()
    value = cp.new_int_var(min(most, -(-least_ticks // unit)), most, "value")
    horizon = most
    if problem.objective is Objective.RANK_SPAN:
        # The span of a chain's first rank holds every backward: each rank has begun by then, and has a span
        # of its own. Otherwise a rank may begin as late as everything else takes.
        horizon = 2 * most if problem.is_chain else _serial_ticks(problem) // unit
    model = _Model(cp, problem, unit, horizon, value, Flow.of(problem))
    _ops(model)
    microbatch_order(model)
    no_overlap_on_rank(model)
    forward_chain(model)
    backward_chain(model)
    backward_after_forward(model)
    weight_after_backward(model)
    reduce_after_weights(model)
    transfer_time(model)
    exclusive_link(model)
    memory_limit(model)
    _minimise(model)
    if hint is not None:
        _hint(model, hint)
    return model


def _ops(model: _Model) -> None:
    """Every op that may run, with its start, its end and the form its backward takes."""
    for s, costs in enumerate(model.problem.stages):
        if costs.R is not None:
            _op(model, Op(OpKind.R, s, 0), model.units(costs.R.ticks))
        for i in model.problem.microbatches_of(s):
            forward, backward, weight = (Op(kind, s, i) for kind in (OpKind.F, OpKind.B, OpKind.W))
            _op(model, forward, model.units(costs.F.ticks))
            if costs.B is None or costs.W is None:
                _op(model, backward, model.units(costs.cost(OpKind.BW).ticks))
                continue
            divided, whole = model.units(costs.B.ticks), costs.BW
            if whole is None:
                _op(model, backward, divided)
                _op(model, weight, model.units(costs.W.ticks))
                continue
            choice = model.divided[backward] = model.cp.new_bool_var(f"{backward} is divided")
            undivided = model.units(whole.ticks)
            _op(model, backward, undivided + (divided - undivided) * choice)
            _op(model, weight, model.units(costs.W.ticks) * choice)


def _op(model: _Model, op: Op, length: Expr) -> None:
    start = model.start[op] = model.cp.new_int_var(0, model.horizon, f"start {op}")
    if isinstance(length, int):
        model.end[op] = start + length
    else:
        model.end[op] = model.cp.new_int_var(0, model.horizon, f"end {op}")
        model.cp.add(model.end[op] == start + length)


def microbatch_order(model: _Model) -> None:
    """Every stream runs identical microbatches in order, which loses nothing."""
    for op, start in model.start.items():
        before = model.flow.before.get(op.microbatch)
        if before is not None:
            model.cp.add(start >= model.end[op._replace(microbatch=before)])
    if model.problem.is_chain:
        model.cp.add(model.start[Op(OpKind.F, 0, 0)] == 0)


def no_overlap_on_rank(model: _Model) -> None:
    """A rank runs one op at a time."""
    for rank in range(model.problem.num_ranks):
        intervals = []
        for op in model.ops_of(rank):
            start, end, choice = model.start[op], model.end[op], model.choice(op)
            if choice is None:
                length = model.units(_cost(model.problem, op).ticks)
                intervals.append(model.cp.new_fixed_size_interval_var(start, length, str(op)))
            elif op.kind is OpKind.W:
                length = model.units(_cost(model.problem, op).ticks)
                intervals.append(
                    model.cp.new_optional_fixed_size_interval_var(start, length, choice, str(op))
                )
            else:
                costs = model.problem.stages[op.stage]
                undivided, halves = (model.units(costs.cost(k).ticks) for k in (OpKind.BW, OpKind.B))
                chosen = undivided + (halves - undivided) * choice
                intervals.append(model.cp.new_interval_var(start, chosen, end, str(op)))
        model.cp.add_no_overlap(intervals)


def forward_chain(model: _Model) -> None:
    """F of a stage waits for F of the stages that feed it."""
    for source, op in _chained(model, OpKind.F):
        model.cp.add(model.start[op] >= model.end[source])


def backward_chain(model: _Model) -> None:
    """B or BW of a stage waits for B or BW of the stages that it feeds."""
    for source, op in _chained(model, OpKind.B):
        model.cp.add(model.start[op] >= model.end[source])


def _chained(model: _Model, kind: OpKind) -> Iterator[tuple[Op, Op]]:
    """The pairs of ops of one kind, F or B, of which the first feeds the second."""
    feeding = model.flow.inputs if kind is OpKind.F else model.flow.outputs
    for op in model.start:
        if op.kind is kind:
            for stage in feeding[op.stage]:
                source = op._replace(stage=stage)
                if source in model.start:
                    yield source, op


def backward_after_forward(model: _Model) -> None:
    """B or BW of a stage waits for F of the same stage."""
    for op, start in model.start.items():
        if op.kind is OpKind.B:
            model.cp.add(start >= model.end[op._replace(kind=OpKind.F)])


def weight_after_backward(model: _Model) -> None:
    """W of a stage waits for B of the same stage."""
    for op, start in model.start.items():
        if op.kind is OpKind.W:
            model.cp.add(start >= model.end[op._replace(kind=OpKind.B)])


def reduce_after_weights(model: _Model) -> None:
    """R of a stage waits for the backwards and the weight gradients of its replicas."""
    for op, start in model.start.items():
        if op.kind is OpKind.R:
            for other, end in model.end.items():
                if other.kind in (OpKind.B, OpKind.W) and other.stage in model.flow.replicas[op.stage]:
                    model.cp.add(start >= end)


def transfer_time(model: _Model) -> None:
    """Between different ranks, the transfer time of the rank pair passes before the consumer starts."""
    for source, op in _transfers(model):
        lag = model.units(model.problem.lag_ticks(source.stage, op.stage))
        model.cp.add(model.start[op] >= model.end[source] + lag)


def exclusive_link(model: _Model) -> None:
    """Under exclusive links, a rank pair carries one transfer at a time, in the order of their producers."""
    if model.problem.links is not Links.EXCLUSIVE:
        return
    queues: dict[tuple[int, int], list[tuple[Op, Op]]] = {}
    arrival: dict[tuple[Op, Op], cp_model.IntVar] = {}
    ranks = model.problem.stage_to_rank
    for source, op in _transfers(model):
        queues.setdefault((ranks[source.stage], ranks[op.stage]), []).append((source, op))
        lag = model.units(model.problem.lag_ticks(source.stage, op.stage))
        arrival[source, op] = model.cp.new_int_var(0, model.horizon, f"arrival of {source} at {op}")
        model.cp.add(arrival[source, op] >= model.end[source] + lag)
        model.cp.add(model.start[op] >= arrival[source, op])
    for (sender, receiver), hops in queues.items():
        lag = model.units(model.problem.transfer_ticks[sender][receiver])
        for pair in combinations(hops, 2) if lag else ():
            for first, then in (pair, pair[::-1]):
                before: Literal | bool = first[1].stage < then[1].stage
                if first[0] != then[0]:
                    before = before_literal(model, first[0], then[0])
                if before is not False:
                    behind = model.cp.add(arrival[then] >= arrival[first] + lag)
                    if before is not True:
                        behind.only_enforce_if(before)


def _transfers(model: _Model) -> Iterator[tuple[Op, Op]]:
    """The pairs of ops on different ranks of which the first feeds the second."""
    ranks = model.problem.stage_to_rank
    for kind in (OpKind.F, OpKind.B):
        for source, op in _chained(model, kind):
            if ranks[source.stage] != ranks[op.stage]:
                yield source, op


def memory_limit(model: _Model) -> None:
    """Before any op that allocates, what the ops before it on its rank left leaves room for it."""
    problem = model.problem
    if problem.memory_limit_bytes is None:
        return
    for rank, limit in enumerate(problem.memory_limit_bytes):
        room = limit - problem.static_bytes_by_rank[rank]
        ops = model.ops_of(rank)
        for op in ops:
            allocated = [(_alloc(problem, kind, op), chosen) for kind, chosen in _forms(model, op)]
            if all(size == 0 for size, _ in allocated):
                continue
            live = sum(size if chosen is None else size * chosen for size, chosen in allocated)
            model.cp.add(live + sum(_left_before(model, ops, op)) <= room)


def _left_before(model: _Model, ops: list[Op], op: Op) -> Iterator[Expr]:
    """What every other op of the rank adds to or takes from the memory that an op finds."""
    for other in ops:
        if other == op:
            continue
        for kind, chosen in _forms(model, other):
            cost = model.problem.stages[other.stage].cost(kind)
            net = cost.alloc_bytes - cost.free_bytes
            before = before_literal(model, other, op) if net else False
            if before is True:
                yield net if chosen is None else net * chosen
            elif before is not False:
                yield net * (before if chosen is None else _both(model, before, chosen))


def _forms(model: _Model, op: Op) -> list[tuple[OpKind, Literal | None]]:
    """The kinds that an op may be of, each with its condition where there is one."""
    choice = model.choice(op)
    if op.kind is OpKind.B and choice is not None:
        return [(OpKind.B, choice), (OpKind.BW, ~choice)]
    if op.kind is OpKind.B and not model.problem.stages[op.stage].can_divide:
        return [(OpKind.BW, None)]
    return [(op.kind, choice)]


def _both(model: _Model, a: Literal, b: Literal) -> cp_model.IntVar:
    both = model.cp.new_bool_var("")
    model.cp.add_bool_and([a, b]).only_enforce_if(both)
    model.cp.add_bool_or([~a, ~b, both])
    return both


def before_literal(model: _Model, first: Op, then: Op) -> Literal | bool:
    """Whether an op comes before another of its rank: known from the chains, or a literal of the model."""
    if model.flow.precedes(first, then):
        return True
    if model.flow.precedes(then, first):
        return False
    if (then, first) in model.order:
        return ~model.order[then, first]
    if (first, then) not in model.order:
        literal = model.order[first, then] = model.cp.new_bool_var(f"{first} before {then}")
        _orders(model, first, then, [literal])
        _orders(model, then, first, [~literal])
    return model.order[first, then]


def _orders(model: _Model, first: Op, then: Op, conditions: list[Literal]) -> None:
    """One op after another, where the conditions hold; a W that does not run stands between ops."""
    model.cp.add(model.start[then] >= model.end[first]).only_enforce_if(*conditions)


def _minimise(model: _Model) -> None:
    """The makespan counts from the first forward of all, a rank's span from its own first forward."""
    problem = model.problem
    begins: list[Expr] = [0] * problem.num_ranks
    if problem.objective is Objective.RANK_SPAN:
        begins = [_begin(model, rank) for rank in range(problem.num_ranks)]
    last = {max(alike) for alike in model.flow.identical.values()}
    for op, end in model.end.items():
        if op.kind is OpKind.R or (op.microbatch in last and op.kind is not OpKind.F):
            model.cp.add(end - begins[problem.stage_to_rank[op.stage]] <= model.value)
    model.cp.minimize(model.value)


def _begin(model: _Model, rank: int) -> cp_model.IntVar:
    """When a rank begins: with one of its forwards, in a chain the first of its first stage."""
    if model.problem.is_chain:
        return model.start[Op(OpKind.F, model.problem.stages_by_rank[rank][0], 0)]
    begin = model.cp.new_int_var(0, model.horizon, f"rank {rank} begins")
    for op in model.ops_of(rank):
        if op.kind is OpKind.F:
            model.cp.add(begin <= model.start[op])
    return begin


def _hint(model: _Model, schedule: Schedule) -> None:
    """Start the solver from a schedule, its streams put in microbatch order, and the orders it implies."""
    streams: dict[tuple[OpKind, int, tuple[int, ...]], list[tuple[int, OpKind]]] = {}
    for rank in schedule.ranks:
        for timed in rank:
            kind = OpKind.B if timed.op.kind is OpKind.BW else timed.op.kind
            alike = (0,) if kind is OpKind.R else model.flow.identical[timed.op.microbatch]
            streams.setdefault((kind, timed.op.stage, alike), []).append((timed.start, timed.op.kind))
    model.cp.add_hint(model.value, model.units(schedule.value))
    begin = min(rank[0].start for rank in schedule.ranks)
    starts: dict[Op, int] = {}
    for (stream_kind, stage, alike), begun in streams.items():
        if stream_kind is OpKind.W and Op(OpKind.B, stage, alike[0]) in model.divided:
            continue
        for i, (start, form) in zip(alike, sorted(begun), strict=True):
            op = Op(stream_kind, stage, i)
            starts[op] = model.units(start - begin)
            model.cp.add_hint(model.start[op], starts[op])
            if op in model.divided:
                model.cp.add_hint(model.divided[op], form is OpKind.B)
    for (first, then), literal in model.order.items():
        if first in starts and then in starts:
            model.cp.add_hint(literal, starts[first] < starts[then])


def _read(model: _Model, value: Callable[[cp_model.LinearExprT], int]) -> FoundOrders:
    """The orders of a solution."""
    ran = [
        (value(start), op._replace(kind=kind))
        for op, start in model.start.items()
        for kind, chosen in _forms(model, op)
        if chosen is None or value(chosen)
    ]
    if not model.problem.is_chain:
        return orders_by_start(model.problem, ran, model.unit)
    starts: dict[Stream, list[int]] = {}
    for start, op in ran:
        starts.setdefault((op.kind, op.stage), []).append(start)
    return orders_from_starts(model.problem, starts, model.unit)


class _Watch(cp_model.CpSolverSolutionCallback):
    """Hands on every solution that the solver finds on its way."""

    def __init__(self, model: _Model, on_found: Callable[[FoundOrders], None]) -> None:
        super().__init__()
        self._model, self._on_found = model, on_found

    def on_solution_callback(self) -> None:
        """Read the solution and hand it on."""
        self._on_found(_read(self._model, self.value))


def _cost(problem: Problem, op: Op) -> OpCost:
    """The cost of an op whose form is not chosen."""
    costs = problem.stages[op.stage]
    return costs.cost(OpKind.BW if op.kind is OpKind.B and not costs.can_divide else op.kind)


def _alloc(problem: Problem, kind: OpKind, op: Op) -> int:
    return problem.stages[op.stage].cost(kind).alloc_bytes
