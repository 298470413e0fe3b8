"""Memory limits: how they are written, what 1F1B holds, and the smallest that any schedule can do with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from synth.baselines import baseline_orders
from synth.chunks import merge_into_ranks
from synth.errors import InfeasibleError, InputError
from synth.flow_memory import flow_needed_bytes, flow_serial_orders
from synth.ops import Op, OpKind, RankOrders
from synth.placement import PlacementKind
from synth.problem import Problem, StageCosts
from synth.schedule import peak_memory_bytes

_UNITS = {
    "": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("", "k", "M", "G", "T"))},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), start=1)},
}


MOST_DELAYED = 8
"""With more W ops on a rank that allocate, each runs right behind its B: their subsets are too many."""


def one_f_one_b_bytes(problem: Problem) -> int:
    """The activation bytes that 1F1B holds on its fullest rank: the unit of limits such as ``0.5x``.

    With several stages per rank it is 1F1B of the same total model, one chunk per rank (FORMATS.md).
    """
    merged = merge_into_ranks(problem)
    peaks = peak_memory_bytes(merged, baseline_orders("1f1b", merged))
    return max(peak - static for peak, static in zip(peaks, merged.static_bytes_by_rank, strict=True))


def is_multiple(text: str) -> bool:
    """Whether a limit as typed is a multiple such as ``0.5x``, which leaves out static bytes."""
    return text.strip().lower().endswith("x")


def parse_limit(text: str, problem: Problem) -> tuple[int, ...]:
    """Read a memory limit as typed: bytes, a size with a unit, or a multiple of 1F1B's activations.

    Parameters
    ----------
    text
        ``17179869184``, ``16GiB``, ``16GB`` or ``0.5x``. A multiple is of :func:`one_f_one_b_bytes`, rounded
        down, with each rank's static bytes added; an absolute limit includes the static bytes.
    problem
        What the limit is for.

    Returns
    -------
    Bytes per rank.

    Raises
    ------
    InputError
        When the text is neither.
    """
    number, unit = _number_and_unit(text)
    if unit not in _UNITS and unit not in ("x", "X"):
        raise InputError(
            f"memory limit {text!r} is no size: write bytes, a size such as 12GiB, or a multiple such as 0.5x"
        )
    if unit in ("x", "X"):
        if _static_bytes_are_open(problem):
            raise InputError(
                f"memory limit {text!r} adds each rank's static bytes, which the placement is still to "
                "decide: give bytes, or a placement"
            )
        activations = int(number * one_f_one_b_bytes(problem))
        return tuple(activations + static for static in problem.static_bytes_by_rank)
    return (int(number * _UNITS[unit]),) * problem.num_ranks


def parse_size(text: str) -> int:
    """Read a size in bytes, as in :func:`parse_limit` but for multiples.

    Raises
    ------
    InputError
        When the text is no size.
    """
    number, unit = _number_and_unit(text)
    if unit not in _UNITS:
        raise InputError(f"memory size {text!r} is no size: write bytes, or a size such as 12GiB")
    return int(number * _UNITS[unit])


def _number_and_unit(text: str) -> tuple[Fraction, str]:
    """A number and the letters behind it; where the text is neither, no unit that exists."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)", text.strip())
    return (Fraction(match[1]), match[2]) if match else (Fraction(), "?")


def _static_bytes_are_open(problem: Problem) -> bool:
    """Whether the placement is still to decide how many static bytes each rank has.

    Free maps have no say in it where named placements agree: their ranks are as large as those.
    """
    uneven = problem.placement.kind is PlacementKind.AUTO and problem.num_stages % problem.num_ranks
    if uneven and any(costs.static_bytes for costs in problem.stages):
        return True
    return len({placed.static_bytes_by_rank for placed in problem.placements}) > 1


def smallest_limits_bytes(problem: Problem) -> tuple[int, ...]:
    """The least memory each rank can do with: one microbatch at a time, backward in its thriftiest order.

    No schedule needs less where every stage frees in the end what it allocated and never more: leave out
    all ops but those of one microbatch, and what remains of a rank's order is one of the orders tried here;
    the others only add to what is live. And microbatches run one after another need no more. Where a stage
    leaves something behind for good, this is what one after another takes, and less may do.
    """
    if not problem.is_chain:
        return peak_memory_bytes(problem, flow_serial_orders(problem))
    return tuple(
        static + _thriftiest(problem, held).serial_bytes
        for static, held in zip(problem.static_bytes_by_rank, problem.stages_by_rank, strict=True)
    )


def serial_orders(problem: Problem) -> RankOrders:
    """One microbatch at a time, in the order that needs the least memory: fits wherever anything fits."""
    if not problem.is_chain:
        return flow_serial_orders(problem)
    thrifty = [_thriftiest(problem, held).order for held in problem.stages_by_rank]
    return tuple(
        tuple(
            Op(kind, stage, microbatch)
            for microbatch in range(problem.num_microbatches)
            for kind, stage in order
        )
        for order in thrifty
    )


def feasible_placements(placements: Iterable[Problem]) -> list[Problem]:
    """Those of one problem's placements that some schedule fits.

    Raises
    ------
    InfeasibleError
        When there is none, for the placement that comes nearest.
    """
    fitting, errors = [], []
    for placed in placements:
        try:
            check_feasible(placed)
        except InfeasibleError as error:
            errors.append(error)
        else:
            fitting.append(placed)
    if not fitting:
        raise min(errors, key=lambda error: sum(error.smallest_limit_bytes))
    return fitting


def check_feasible(problem: Problem) -> None:
    """Make sure that some schedule fits the limits.

    Raises
    ------
    InfeasibleError
        Naming each rank that cannot do with its limit, what it must hold, and the smallest limit that would.
    """
    limits = problem.memory_limit_bytes
    if limits is None:
        return
    smallest = smallest_limits_bytes(problem)
    short = [rank for rank, needed in enumerate(_needed_by_rank(problem)) if needed > limits[rank]]
    alike: dict[tuple[int, int, int], list[int]] = {}
    for rank in short:
        key = (limits[rank], problem.static_bytes_by_rank[rank], smallest[rank])
        alike.setdefault(key, []).append(rank)
    if alike:
        raise InfeasibleError(
            [_shortage(problem, ranks, *key) for key, ranks in alike.items()],
            [max(pair) for pair in zip(limits, smallest, strict=True)],
        )


def _shortage(problem: Problem, ranks: list[int], limit: int, static: int, least: int) -> str:
    held = problem.stages_by_rank[ranks[0]]
    others = f" (and so for rank {', '.join(map(str, ranks[1:]))})" if ranks[1:] else ""
    return (
        f"rank {ranks[0]} has a limit of {limit} bytes and cannot hold one microbatch of "
        f"stage{'s' if len(held) > 1 else ''} {', '.join(map(str, held))}, which takes {static} static and "
        f"{least - static} activation bytes; the smallest limit that would do is {least}{others}"
    )


@dataclass(frozen=True, slots=True)
class _Thrifty:
    """One microbatch's order on one rank, its peak, and that of repeating it for every microbatch."""

    peak_bytes: int
    serial_bytes: int
    order: tuple[tuple[OpKind, int], ...]


def _needed_by_rank(problem: Problem) -> tuple[int, ...]:
    """What no schedule does without on each rank, static bytes included."""
    if not problem.is_chain:
        return flow_needed_bytes(problem)
    return tuple(
        static + _needed_bytes(problem, held)
        for static, held in zip(problem.static_bytes_by_rank, problem.stages_by_rank, strict=True)
    )


def _needed_bytes(problem: Problem, held: tuple[int, ...]) -> int:
    """What no order can do without: one microbatch's least peak, as long as the others cannot lower it."""
    if any(_lowest_live(problem.stages[stage]) < 0 for stage in held):
        return 0
    if _too_many_to_delay(problem, held):
        return sum(problem.stages[stage].F.alloc_bytes - problem.stages[stage].F.free_bytes for stage in held)
    return _thriftiest(problem, held).peak_bytes


def _too_many_to_delay(problem: Problem, held: tuple[int, ...]) -> bool:
    """Whether there are too many W ops that allocate to try every subset of them at once."""
    weights = [problem.stages[stage].W for stage in held]
    return sum(weight is not None and weight.alloc_bytes > 0 for weight in weights) > MOST_DELAYED


def _lowest_live(costs: StageCosts) -> int:
    """The least that one microbatch ever leaves live on a stage between its ops; below 0: it frees more."""
    net = {kind: cost.alloc_bytes - cost.free_bytes for kind, cost in costs.offered}
    after = [net[OpKind.F]]
    if OpKind.B in net:
        after += [net[OpKind.F] + net[OpKind.B], net[OpKind.F] + net[OpKind.B] + net[OpKind.W]]
    if OpKind.BW in net:
        after.append(net[OpKind.F] + net[OpKind.BW])
    return min(after)


@dataclass(frozen=True, slots=True)
class _State:
    """What a rank holds part-way through one microbatch, and the order that led there."""

    live: int
    owed: frozenset[int]  # stages whose B has run and whose W has not
    peak: int
    order: tuple[tuple[OpKind, int], ...]

    def run(self, problem: Problem, kind: OpKind, stage: int) -> _State:
        """The state after one more op."""
        cost = problem.stages[stage].cost(kind)
        owed = self.owed | {stage} if kind is OpKind.B else self.owed - {stage}
        return _State(
            live=self.live + cost.alloc_bytes - cost.free_bytes,
            owed=owed,
            peak=max(self.peak, self.live + cost.alloc_bytes),
            order=(*self.order, (kind, stage)),
        )


def _thriftiest(problem: Problem, held: tuple[int, ...]) -> _Thrifty:
    """The order of one microbatch on one rank with the least peak, over all orders of its backward ops.

    All forwards come first, because a rank's last stage turns around after every forward. Then the
    backwards run from the last stage to the first, and each W anywhere after its B. What is live depends
    only on what has run, so a walk that keeps the least peak of each state finds the best order.
    """
    state = _State(0, frozenset(), 0, ())
    for stage in held:
        state = state.run(problem, OpKind.F, stage)
    states = [state]
    for stage in reversed(held):
        kinds = [kind for kind, _ in problem.stages[stage].offered if kind in (OpKind.B, OpKind.BW)]
        reached = [state.run(problem, kind, stage) for state in states for kind in kinds]
        states = _settle_weights(problem, reached, at_once=_too_many_to_delay(problem, held))
    repeats = problem.num_microbatches - 1
    done = [state for state in states if not state.owed]
    best = min(done, key=lambda state: state.peak + max(0, state.live) * repeats)
    return _Thrifty(
        peak_bytes=min(state.peak for state in done),
        serial_bytes=best.peak + max(0, best.live) * repeats,
        order=best.order,
    )


def _settle_weights(problem: Problem, states: list[_State], *, at_once: bool) -> list[_State]:
    """All states reachable by running any owed W ops, the least peak of each.

    A W that allocates nothing runs at once: later would only keep more live. So does every W ``at_once``.
    """
    for stage, costs in enumerate(problem.stages):
        if costs.W is not None and (at_once or costs.W.alloc_bytes == 0):
            states = [
                state.run(problem, OpKind.W, stage) if stage in state.owed else state for state in states
            ]
    best: dict[tuple[int, frozenset[int]], _State] = {}
    frontier = list(states)
    while frontier:
        state = frontier.pop()
        known = best.get((state.live, state.owed))
        if known is None or state.peak < known.peak:
            best[state.live, state.owed] = state
            frontier += [state.run(problem, OpKind.W, stage) for stage in state.owed]
    return list(best.values())
