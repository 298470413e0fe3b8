"""Cut a chain of layers into stages so that the slowest is as fast as can be and every rank holds its own.

Exact: a dynamic programme over cuts where every rank has one stage, which is the linear partition problem
(Skiena, The Algorithm Design Manual, section 10.7) with limits; where a rank's stages share its memory and
the cut without limits does not fit, CP-SAT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from costmodels.shared_memory import cut_with_shared_memory
from synth.errors import InputError

NONE_FITS = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The layers to cut.

    Parameters
    ----------
    costs
        Time of each layer, any unit.
    held_bytes
        What each needs on its rank: static bytes and one microbatch's activations.
    may_cut_before
        Whether a cut may fall before each layer; the first does not matter.
    blocks
        Which layers count for :attr:`CutRules.first_blocks` and ``last_blocks``.
    """

    costs: tuple[int, ...]
    held_bytes: tuple[int, ...]
    may_cut_before: tuple[bool, ...]
    blocks: tuple[bool, ...]


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
    if rules.limit_bytes is None or max(rank_bytes(chain, rules, fastest)) <= rules.limit_bytes:
        return fastest
    num_stages = len(rules.stage_to_rank)
    if len(set(rules.stage_to_rank)) == num_stages:
        return _best_cut(chain, rules, rules.limit_bytes)
    if sum(chain.held_bytes) > (1 + max(rules.stage_to_rank)) * rules.limit_bytes:
        return None
    return cut_with_shared_memory(
        chain.costs,
        chain.held_bytes,
        rules.stage_to_rank,
        rules.limit_bytes,
        [_allowed_starts(chain, rules, stage) for stage in range(num_stages)],
    )


def stage_costs(chain: Chain, cuts: Sequence[int]) -> tuple[int, ...]:
    """The time of every stage of a cut."""
    return tuple(sum(chain.costs[first:last]) for first, last in pairwise(cuts))


def rank_bytes(chain: Chain, rules: CutRules, cuts: Sequence[int]) -> tuple[int, ...]:
    """What the layers of every rank need together."""
    held = [0] * (max(rules.stage_to_rank) + 1)
    for rank, (first, last) in zip(rules.stage_to_rank, pairwise(cuts), strict=True):
        held[rank] += sum(chain.held_bytes[first:last])
    return tuple(held)


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
    """The best cut with every stage alone under the limit: twice over the same table, for the two aims."""
    slowest = _walk(chain, rules, limit_bytes, bound=None)
    if slowest is None:
        return None
    return _walk(chain, rules, limit_bytes, bound=max(stage_costs(chain, slowest)))


def _walk(
    chain: Chain, rules: CutRules, limit_bytes: int | None, bound: int | None
) -> tuple[int, ...] | None:
    """Dynamic programme over stages and their ends: least maximum, or under a bound least sum of squares."""
    num_layers, num_stages = len(chain.costs), len(rules.stage_to_rank)
    time = list(accumulate(chain.costs, initial=0))
    held = list(accumulate(chain.held_bytes, initial=0))
    best: dict[int, float] = {0: 0}
    came_from: list[dict[int, int]] = []
    for stage in range(num_stages):
        last = stage == num_stages - 1
        ends = [num_layers] if last else _allowed_starts(chain, rules, stage + 1)
        reached: dict[int, float] = {}
        origin: dict[int, int] = {}
        for end in ends:
            for start, value in best.items():
                cost = time[end] - time[start]
                too_much = limit_bytes is not None and held[end] - held[start] > limit_bytes
                if start >= end or too_much or (bound is not None and cost > bound):
                    continue
                total = max(value, cost) if bound is None else value + cost * cost
                if total < reached.get(end, NONE_FITS):
                    reached[end], origin[end] = total, start
        best = reached
        came_from.append(origin)
    return _trace(came_from, num_layers) if num_layers in best else None


def _trace(came_from: list[dict[int, int]], end: int) -> tuple[int, ...]:
    cuts = [end]
    for origin in reversed(came_from):
        cuts.append(origin[cuts[-1]])
    return tuple(reversed(cuts))
