"""Building blocks by modulo scheduling with CP-SAT: the search that does not grow with the microbatches.

Op k of microbatch i starts at ``t_k + i * T``. With T fixed, write ``t_k = q_k * T + r_k``: a rank is a
circle of length T on which the ops' residues r_k must not overlap, and a piece of memory that lives for
``n * T + rho`` is held n times everywhere on the circle and once more on an arc of length rho.

Several microbatches may share a period, each with starts of its own (copies): where one pattern for all of
them cannot fill the ranks within the memory, patterns that take turns may.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

from ortools.sat.python import cp_model

from synth.building_block import BlockOp, BuildingBlock
from synth.cpsat import SolveParams, solve
from synth.ops import OpKind
from synth.problem import LARGEST_SUM, Objective, Problem, StageCosts

LARGEST_MEMORY = 2**40
"""Memory sums larger than this are searched in a coarser unit."""


_Key = tuple[OpKind, int, int]
"""An op of a block: its kind, its stage and its copy."""


@dataclass(slots=True)
class _Model:
    """The variables of a block model and what they are made of."""

    cp: cp_model.CpModel
    problem: Problem
    period: int
    grid_ticks: int
    horizon: int
    copies: int
    turn: dict[_Key, cp_model.IntVar] = field(default_factory=dict)
    residue: dict[_Key, cp_model.IntVar] = field(default_factory=dict)
    starts: dict[_Key, cp_model.IntVar] = field(default_factory=dict)

    def ticks(self, exact: int) -> int:
        """A duration or lag on the grid, to the nearest."""
        return (2 * exact + self.grid_ticks) // (2 * self.grid_ticks)

    def length(self, kind: OpKind, stage: int) -> int:
        """An op's duration on the grid, at least one slot."""
        return max(1, self.ticks(self.problem.stages[stage].cost(kind).ticks))

    def start(self, kind: OpKind, stage: int, copy: int) -> cp_model.LinearExpr:
        """When an op of one of the first microbatches starts, in slots."""
        return self.starts[kind, stage, copy]

    def end(self, kind: OpKind, stage: int, copy: int) -> cp_model.LinearExpr:
        """When an op of one of the first microbatches ends, in slots."""
        return self.start(kind, stage, copy) + self.length(kind, stage)


def find_blocks(
    problem: Problem, grid_ticks: int, slack: float, params: SolveParams, copies: int = 1
) -> tuple[BuildingBlock, ...]:
    """The shortest block found on a grid that fits the memory limits, or several that take turns.

    Divides every backward it can. What is minimised, of a single block, is the objective of the block laid
    down once: the span of its longest rank, or its whole length; laid down m times it takes ``(m - 1) * T``
    more. Of several that take turns the first that fit are taken. Durations and
    transfers are rounded to the grid, since only the order of a block's ops is used: a rank's memory is a
    function of its order, and no order of a block can deadlock as long as every op takes a slot.

    Parameters
    ----------
    problem
        Costs, placement, transfers, limits.
    grid_ticks
        Ticks per slot of the grid on which the block is searched.
    slack
        How much longer the period T is than the busiest rank's work for as many microbatches as there are
        copies, as a share of it; at least 0.
    params
        Limits of the solver.
    copies
        How many microbatches share a period; at least 1.

    Returns
    -------
    One block for every copy (:func:`synth.building_block.unroll`), with starts in ticks, or none when
    none was found.
    """
    if any(_left_behind(costs) > 0 for costs in problem.stages):
        return ()  # what every microbatch leaves behind has no period
    model = build_block_model(problem, grid_ticks, slack, copies)
    solved = solve(model.cp, params)
    if not solved.has_solution:
        return ()
    return tuple(
        BuildingBlock(
            period_ticks=model.period * grid_ticks,
            ops=tuple(
                BlockOp(kind, stage, solved.solver.value(start) * grid_ticks)
                for (kind, stage, of_copy), start in model.starts.items()
                if of_copy == copy
            ),
        )
        for copy in range(copies)
    )


def build_block_model(problem: Problem, grid_ticks: int, slack: float, copies: int = 1) -> _Model:
    """The model of one block, or of several that take turns; see the module's docstring for its variables."""
    kinds = [(kind, s) for s, costs in enumerate(problem.stages) for kind in _kinds(costs)]
    model = _Model(cp_model.CpModel(), problem, period=0, grid_ticks=grid_ticks, horizon=0, copies=copies)
    work = max(
        sum(model.length(kind, s) for kind, s in kinds if s in held) for held in problem.stages_by_rank
    )
    model.period = period = ceil(copies * work * (1 + slack))
    chain = sum(model.length(kind, s) for kind, s in kinds)
    lags = 2 * sum(model.ticks(problem.lag_ticks(s, s + 1)) for s in range(problem.num_stages - 1))
    model.horizon = 2 * (chain + lags) + 4 * period
    for kind, s, copy in ((kind, s, copy) for copy in range(copies) for kind, s in kinds):
        key, name = (kind, s, copy), f"{s}{kind}{copy}"
        model.turn[key] = model.cp.new_int_var(0, model.horizon // period + 1, f"turn {name}")
        model.residue[key] = model.cp.new_int_var(0, period - 1, f"residue {name}")
        model.starts[key] = model.cp.new_int_var(0, model.horizon + 2 * period, f"start {name}")
        model.cp.add(model.starts[key] == model.turn[key] * period + model.residue[key])
    _microbatch_order(model)
    no_overlap_on_rank(model)
    precedences(model)
    memory_limit(model)
    if copies == 1:  # with more of them, the first that fits takes long enough to find
        _minimise_length(model)
    return model


def no_overlap_on_rank(model: _Model) -> None:
    """A rank runs one op at a time: on its circle, every op stands twice, once a period later."""
    for held in model.problem.stages_by_rank:
        intervals = []
        for key in model.turn:
            kind, s, copy = key
            if s in held:
                length = model.length(kind, s)
                for lap in (0, model.period):
                    start = model.residue[key] + lap
                    intervals.append(
                        model.cp.new_fixed_size_interval_var(start, length, f"{s}{kind}{copy} + {lap}")
                    )
        model.cp.add_no_overlap(intervals)


def _microbatch_order(model: _Model) -> None:
    """Copies follow each other in every kind of op on every stage, and come round within a period."""
    for kind, s, copy in model.starts:
        if copy:
            model.cp.add(model.start(kind, s, copy) > model.start(kind, s, copy - 1))
        if copy and copy == model.copies - 1:
            model.cp.add(model.start(kind, s, copy) < model.start(kind, s, 0) + model.period)


def precedences(model: _Model) -> None:
    """Forward chain, backward chain, backward after forward, weight after backward, with transfer times.

    No wait need reach a whole period: starting everything behind it a period earlier keeps all residues and
    shortens lifespans. With several copies this leaves out what none should need.
    """
    problem = model.problem
    for copy in range(model.copies):
        for s, costs in enumerate(problem.stages):
            backward = _backward(costs)
            _follows(model, (OpKind.F, s, copy), (backward, s, copy), 0, bounded=s == problem.num_stages - 1)
            if backward is OpKind.B:
                _follows(model, (OpKind.B, s, copy), (OpKind.W, s, copy), 0)
            if s + 1 < problem.num_stages:
                lag = model.ticks(problem.lag_ticks(s, s + 1))
                _follows(model, (OpKind.F, s, copy), (OpKind.F, s + 1, copy), lag)
                lag = model.ticks(problem.lag_ticks(s + 1, s))
                _follows(model, (_backward(problem.stages[s + 1]), s + 1, copy), (backward, s, copy), lag)
    model.cp.add(model.start(OpKind.F, 0, 0) == 0)  # the circle may be turned


def _follows(model: _Model, first: _Key, then: _Key, lag: int, *, bounded: bool = True) -> None:
    wait = model.start(*then) - model.end(*first) - lag
    if bounded:
        model.cp.add_linear_constraint(wait, 0, model.period - 1)
    else:
        model.cp.add(wait >= 0)


def memory_limit(model: _Model) -> None:
    """On every rank's circle, what is held everywhere and the arcs on top stay within the limit."""
    problem = model.problem
    if problem.memory_limit_bytes is None:
        return
    for rank, held in enumerate(problem.stages_by_rank):
        room = problem.memory_limit_bytes[rank] - problem.static_bytes_by_rank[rank]
        pieces = [(s, piece) for s in held for piece in _pieces(problem.stages[s])]
        most = problem.num_microbatches * sum(piece.num_bytes for _, piece in pieces)
        if room >= most:
            continue
        unit = -(-most // LARGEST_MEMORY)  # in a coarser unit pieces are rounded up and the room down
        arcs, demands, everywhere, held_in_all = [], [], [], []
        for s, piece, copy in ((s, piece, copy) for s, piece in pieces for copy in range(model.copies)):
            size = -(-piece.num_bytes // unit)
            laps, arc = _lifespan(model, piece, s, copy, most_laps=room // unit // size)
            everywhere.append(size * laps)
            held_in_all.append(size * (model.end(piece.last, s, copy) - model.start(piece.first, s, copy)))
            for lap in (0, model.period):
                start = model.residue[piece.first, s, copy] + lap
                end = model.cp.new_int_var(0, 3 * model.period, "")
                arcs.append(model.cp.new_interval_var(start, arc, end, ""))
                demands.append(size)
        base = model.cp.new_int_var(0, room // unit, f"held everywhere on rank {rank}")
        model.cp.add(base == sum(everywhere))
        arcs.append(model.cp.new_fixed_size_interval_var(0, 3 * model.period, ""))
        model.cp.add_cumulative(arcs, [*demands, base], room // unit)
        longest = model.horizon + 2 * model.period
        if max(sum(demands), room // unit) * longest < LARGEST_SUM:
            # Follows from the rest, and prunes much sooner.
            model.cp.add(sum(held_in_all) <= room // unit * model.period)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes that live from the start of one op to the end of another of the same stage."""

    first: OpKind
    last: OpKind
    num_bytes: int


def _pieces(costs: StageCosts) -> Iterator[_Piece]:
    """Match what a microbatch allocates on a stage with what it frees, first in, first out."""
    owed: list[tuple[OpKind, int]] = []
    for kind in _kinds(costs):
        cost = costs.cost(kind)
        if cost.alloc_bytes:
            owed.append((kind, cost.alloc_bytes))
        free = cost.free_bytes
        while free and owed:
            first, held = owed.pop(0)
            matched = min(free, held)
            yield _Piece(first, kind, matched)
            free -= matched
            if held > matched:
                owed.insert(0, (first, held - matched))


def _lifespan(
    model: _Model, piece: _Piece, stage: int, copy: int, most_laps: int
) -> tuple[cp_model.IntVar, cp_model.IntVar]:
    """A piece's lifespan in whole laps, as many as there is room for at most, and an arc shorter than one."""
    laps = model.cp.new_int_var(0, min(model.horizon // model.period + 2, most_laps), "")
    arc = model.cp.new_int_var(0, model.period - 1, "")
    lifespan = model.end(piece.last, stage, copy) - model.start(piece.first, stage, copy)
    model.cp.add(laps * model.period + arc == lifespan)
    return laps, arc


def _minimise_length(model: _Model) -> None:
    """Least objective of the block laid down once; among equals, the shortest lifespans."""
    problem = model.problem
    length = model.cp.new_int_var(0, model.horizon + model.period, "length")
    for held in problem.stages_by_rank:
        first = model.start(OpKind.F, held[0], 0)
        for s in held:
            last = model.end(_kinds(problem.stages[s])[-1], s, 0)
            begin = 0 if problem.objective is Objective.MAKESPAN else first
            model.cp.add(last - begin <= length)
    lifespans = sum(
        model.end(_kinds(costs)[-1], s, 0) - model.start(OpKind.F, s, 0)
        for s, costs in enumerate(problem.stages)
    )
    model.cp.minimize(length * problem.num_stages + lifespans)


def _kinds(costs: StageCosts) -> tuple[OpKind, ...]:
    return (OpKind.F, OpKind.B, OpKind.W) if costs.can_divide else (OpKind.F, OpKind.BW)


def _backward(costs: StageCosts) -> OpKind:
    return _kinds(costs)[1]


def _left_behind(costs: StageCosts) -> int:
    spent = [costs.cost(kind) for kind in _kinds(costs)]
    return sum(cost.alloc_bytes - cost.free_bytes for cost in spent)
