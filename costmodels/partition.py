"""Cut a chain of layers into stages so that the slowest is as fast as can be and every rank holds its own.

Exact: a dynamic programme over cuts where every rank has one stage, which is the linear partition problem
(Skiena, The Algorithm Design Manual, section 10.7) with limits; where a rank's stages share its memory and
the cut without limits does not fit, CP-SAT.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from costmodels.chain import Chain
from costmodels.shared_memory import cut_with_shared_memory
from synth.errors import InputError

MOST_BALANCED = 64
"""Cuts into more stages are left as they are: moves grow with the square of the stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRules:
    """What a cut must keep to.

    Parameters
    ----------
    stage_to_rank
        The rank of every stage.
    limit_bytes
        What the layers of one rank may need together, or None for no limit.
    first_blocks, last_blocks
        Blocks of the first and of the last stage, or None to leave them open.
    """

    stage_to_rank: tuple[int, ...]
    limit_bytes: int | None = None
    first_blocks: int | None = None
    last_blocks: int | None = None


def cut_layers(chain: Chain, rules: CutRules) -> tuple[int, ...] | None:
    """Cut the chain: minimise the slowest stage, then the sum of the squares of the stages' times.

    With several stages per rank, cuts are then moved as long as that makes the slowest rank faster and no
    stage slower than the slowest (:func:`balance_ranks`).

    Parameters
    ----------
    chain, rules
        What is cut, and how.

    Returns
    -------
    The first layer of every stage and the number of layers; or None when no cut fits the limit.

    Raises
    ------
    InputError
        When there are more stages than parts to cut, or no cut has the blocks asked for.
    """
    _check_enough_parts(chain, rules)
    fastest = _best_cut(chain, rules, limit_bytes=None)
    if fastest is None:
        raise InputError(
            "no cut has the blocks asked for in the first and the last stage: ask for fewer, or leave one out"
        )
    limit = rules.limit_bytes
    if limit is None or _fits(chain, rules, fastest):
        return balance_ranks(chain, rules, fastest)
    num_stages = len(rules.stage_to_rank)
    if len(set(rules.stage_to_rank)) == num_stages:
        return _best_cut(chain, rules, limit)
    if sum(chain.static_bytes + chain.kept_bytes) > (1 + max(rules.stage_to_rank)) * limit:
        return None
    starts = [_allowed_starts(chain, rules, stage) for stage in range(num_stages)]
    found = cut_with_shared_memory(chain, rules.stage_to_rank, limit, starts)
    return None if found is None else balance_ranks(chain, rules, found)


def stage_costs(chain: Chain, cuts: Sequence[int]) -> tuple[int, ...]:
    """The time of every stage of a cut."""
    return _stage_sums(chain.costs, cuts)


def rank_bytes(chain: Chain, rules: CutRules, cuts: Sequence[int]) -> tuple[int, ...]:
    """What every rank needs: static bytes, and one microbatch through all its stages and back."""
    statics = _by_rank(rules, _stage_sums(chain.static_bytes, cuts))
    kept, peaks = [0] * len(statics), [0] * len(statics)
    for rank, (first, last) in zip(rules.stage_to_rank, pairwise(cuts), strict=True):
        # The backward of a stage runs while the rank's earlier stages still hold what their forward kept.
        peaks[rank] = max(peaks[rank], kept[rank] + chain.backward_peak_bytes(first, last))
        kept[rank] += sum(chain.kept_bytes[first:last])
    return tuple(static + peak for static, peak in zip(statics, peaks, strict=True))


def balance_ranks(chain: Chain, rules: CutRules, cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Make the slowest rank faster by moving a part from one stage to another, all cuts between them along.

    A descent: where it ends, no single move helps; with more moves at once there may be better cuts.

    Parameters
    ----------
    chain, rules
        What is cut, and how.
    cuts
        A cut that keeps the rules, as :func:`cut_layers` returns it.
    """
    num_stages = len(rules.stage_to_rank)
    if len(set(rules.stage_to_rank)) == num_stages or num_stages > MOST_BALANCED:
        return cuts
    allowed = [set(_allowed_starts(chain, rules, stage)) for stage in range(num_stages)]
    slowest = max(stage_costs(chain, cuts))
    while True:
        ways = _faster_ways(chain, rules, cuts, slowest)
        kept = (
            way
            for way in ways
            if all(start in allowed[stage] for stage, start in enumerate(way[:-1]))
            and _fits(chain, rules, way)
        )
        better = next(kept, None)
        if better is None:
            return cuts
        cuts = better


def _faster_ways(chain: Chain, rules: CutRules, cuts: tuple[int, ...], slowest: int) -> list[tuple[int, ...]]:
    """The moves that make the load lighter and no stage slower than the slowest, the lightest first.

    There are thousands of moves and few of them do, so all are measured at once.
    """
    ways = _moves(cuts)
    before = np.array(list(accumulate(chain.costs, initial=0)), dtype=np.int64)
    times = np.diff(before[ways], axis=1)
    ranks = np.array(rules.stage_to_rank)
    taken = times @ (ranks[:, None] == np.arange(ranks.max() + 1)).astype(np.int64)
    now = _rank_load(chain, rules, cuts)
    may = (times.max(axis=1) <= slowest) & (taken.max(axis=1) <= now[0])
    loads = {number: _load(taken[number].tolist()) for number in np.flatnonzero(may).tolist()}
    return [
        tuple(ways[number].tolist())
        for number in sorted(loads, key=lambda n: loads[n])
        if loads[number] < now
    ]


def _moves(cuts: tuple[int, ...]) -> NDArray[np.int64]:
    """Every run of neighbouring inner cuts, moved by one layer either way; stages keep a layer."""
    runs = np.array(list(combinations(range(1, len(cuts)), 2)), dtype=np.int64).reshape(-1, 2)
    numbers = np.arange(len(cuts))
    moved = ((runs[:, :1] <= numbers) & (numbers < runs[:, 1:])).astype(np.int64)
    ways = np.array(cuts) + np.stack([-moved, moved], axis=1).reshape(-1, len(cuts))
    kept: NDArray[np.int64] = ways[(np.diff(ways, axis=1) > 0).all(axis=1)]
    return kept


def _rank_load(chain: Chain, rules: CutRules, cuts: Sequence[int]) -> tuple[int, int]:
    """The slowest rank, then the sum of squares over ranks."""
    return _load(_by_rank(rules, stage_costs(chain, cuts)))


def _load(taken: Sequence[int]) -> tuple[int, int]:
    return max(taken), sum(time * time for time in taken)


def _stage_sums(amounts: Sequence[int], cuts: Sequence[int]) -> tuple[int, ...]:
    return tuple(sum(amounts[first:last]) for first, last in pairwise(cuts))


def _by_rank(rules: CutRules, amounts: Sequence[int]) -> list[int]:
    """The sums over the stages of every rank."""
    sums = [0] * (max(rules.stage_to_rank) + 1)
    for rank, amount in zip(rules.stage_to_rank, amounts, strict=True):
        sums[rank] += amount
    return sums


def _fits(chain: Chain, rules: CutRules, cuts: Sequence[int]) -> bool:
    return rules.limit_bytes is None or max(rank_bytes(chain, rules, cuts)) <= rules.limit_bytes


def _check_enough_parts(chain: Chain, rules: CutRules) -> None:
    parts, num_stages = 1 + sum(chain.may_cut_before[1:]), len(rules.stage_to_rank)
    if parts < num_stages:
        raise InputError(
            f"{num_stages} stages are asked of a model that can be cut into {parts} parts (embedding, "
            f"blocks, norm, head with loss): ask for at most {parts}"
        )


def _allowed_starts(chain: Chain, rules: CutRules, stage: int) -> list[int]:
    """Where a stage may begin: cuts fall where they may, and the first and last stage have their blocks."""
    num_layers, num_stages = len(chain.costs), len(rules.stage_to_rank)
    if stage == 0:
        return [0]
    before = list(accumulate(chain.blocks, initial=0))
    starts = [layer for layer in range(1, num_layers) if chain.may_cut_before[layer]]
    if stage == 1 and rules.first_blocks is not None:
        starts = [layer for layer in starts if before[layer] == rules.first_blocks]
    if stage == num_stages - 1 and rules.last_blocks is not None:
        starts = [layer for layer in starts if before[-1] - before[layer] == rules.last_blocks]
    return starts


def _best_cut(chain: Chain, rules: CutRules, limit_bytes: int | None) -> tuple[int, ...] | None:
    """The best cut with every stage alone under the limit.

    The least maximum is found first, as if blocks were free: if it can be had with the blocks asked for, all
    that is left is to even out the others under it. Else the table is walked twice, for the two aims.
    """
    earliest = _earliest_starts(chain, limit_bytes)
    least = _least_maximum(chain, earliest, len(rules.stage_to_rank))
    if least is None:
        return None
    return _walk(chain, rules, earliest, bound=least) or _best_cut_with_blocks(chain, rules, earliest)


def _best_cut_with_blocks(chain: Chain, rules: CutRules, earliest: list[int]) -> tuple[int, ...] | None:
    slowest = _walk(chain, rules, earliest, bound=None)
    if slowest is None:
        return None
    return _walk(chain, rules, earliest, bound=max(stage_costs(chain, slowest)))


def _least_maximum(chain: Chain, earliest: list[int], num_stages: int) -> int | None:
    """The least time of the slowest of up to so many stages, each within the limit; None where none are.

    From the mean on: where a maximum makes too many stages, the next one that makes any of them longer is
    tried. Fewer stages can be split into as many as are asked for.
    """
    time = list(accumulate(chain.costs, initial=0))
    ends = [0, *(n for n, may in enumerate(chain.may_cut_before) if n and may), len(chain.costs)]
    longest = _LongestStages([time[end] for end in ends], _furthest_ends(ends, earliest), num_stages)
    if not longest.are_enough(time[-1]):
        return None
    maximum = -(-time[-1] // num_stages)
    while not longest.are_enough(maximum):
        maximum = longest.next_maximum
    return maximum


@dataclass(slots=True)
class _LongestStages:
    """Stages as long as a maximum and memory let them be, one after the other.

    ``time`` is that of all before each possible end, ``furthest`` how far a stage gets from there.
    """

    time: list[int]
    furthest: list[int]
    num_stages: int
    next_maximum: int = 0

    def are_enough(self, maximum: int) -> bool:
        """Whether they take all layers; if not, the next maximum to try is set."""
        start, longer = 0, []
        for _ in range(self.num_stages):
            end = bisect_right(self.time, self.time[start] + maximum) - 1
            if end < self.furthest[start]:
                longer.append(self.time[end + 1] - self.time[start])
            start = min(end, self.furthest[start])
        self.next_maximum = min(longer, default=0)
        return start == len(self.time) - 1


def _furthest_ends(ends: list[int], earliest: list[int]) -> list[int]:
    """For every possible start of a stage the last end with which it is within the limit, itself if none."""
    furthest = list(range(len(ends)))
    for index, end in enumerate(ends):
        first = bisect_left(ends, earliest[end])
        if first < index:
            furthest[first] = index
    return list(accumulate(furthest, max))


def _walk(chain: Chain, rules: CutRules, earliest: list[int], bound: int | None) -> tuple[int, ...] | None:
    """Dynamic programme over stages and their ends: least maximum, or under a bound least sum of squares."""
    num_layers, num_stages = len(chain.costs), len(rules.stage_to_rank)
    reached: dict[int, float] = {0: 0}
    came_from: list[dict[int, int]] = []
    sums = _Sums(time=list(accumulate(chain.costs, initial=0)), earliest=earliest, bound=bound)
    for stage in range(num_stages):
        ends = [num_layers] if stage == num_stages - 1 else _allowed_starts(chain, rules, stage + 1)
        starts, values = list(reached), list(reached.values())
        ends = sums.within_bound(starts, ends, num_stages - 1 - stage)
        steps = {end: sums.best_step(starts, values, end) for end in ends}
        reached = {end: step[0] for end, step in steps.items() if step is not None}
        came_from.append({end: step[1] for end, step in steps.items() if step is not None})
    return _trace(came_from, num_layers) if num_layers in reached else None


@dataclass(frozen=True, slots=True)
class _Sums:
    """What a stage takes, as differences of sums, where it may begin for each end, and what it may take."""

    time: list[int]
    earliest: list[int]
    bound: int | None

    def within_bound(self, starts: list[int], ends: list[int], num_behind: int) -> list[int]:
        """The ends, in ascending order, that a stage reaches and that leave enough to so many behind it."""
        if self.bound is None or not starts:
            return ends
        least, most = self.time[-1] - num_behind * self.bound, self.time[starts[-1]] + self.bound
        first = bisect_left(ends, least, key=self.time.__getitem__)
        return ends[first : bisect_right(ends, most, key=self.time.__getitem__)]

    def best_step(self, starts: list[int], values: list[float], end: int) -> tuple[float, int] | None:
        """The best value of a stage with this end, and its start; starts ascend.

        The latest starts come first: once a stage takes or holds too much, all earlier starts do.
        """
        best: tuple[float, int] | None = None
        for index in range(bisect_left(starts, end) - 1, -1, -1):
            start = starts[index]
            cost = self.time[end] - self.time[start]
            if start < self.earliest[end]:
                break
            if self.bound is None:
                if best is not None and cost >= best[0]:
                    break
                total = max(values[index], cost)
            else:
                if cost > self.bound:
                    break
                total = values[index] + cost * cost
            if best is None or total < best[0]:
                best = total, start
        return best


def _earliest_starts(chain: Chain, limit_bytes: int | None) -> list[int]:
    """For every end of a stage the first layer with which it is within the limit; the end where none is."""
    num_layers = len(chain.costs)
    if limit_bytes is None:
        return [0] * (num_layers + 1)
    earliest = [0]
    for end in range(1, num_layers + 1):
        start, static, peak = end, 0, 0
        while start > 0:
            layer = start - 1
            static += chain.static_bytes[layer]
            peak = chain.kept_bytes[layer] + max(peak, chain.extra_bytes[layer])
            if static + peak > limit_bytes:
                break
            start = layer
        earliest.append(start)
    return earliest


def _trace(came_from: list[dict[int, int]], end: int) -> tuple[int, ...]:
    cuts = [end]
    for origin in reversed(came_from):
        cuts.append(origin[cuts[-1]])
    return tuple(reversed(cuts))
