"""From a profile to a problem: times in ticks, bytes as ops allocate and free them, and their provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from costmodels.measured.link_costs import LinkCosts, check_ranks, pair_bytes
from costmodels.measured.profiles import Profile, Split, StageProfile
from costmodels.planning import Pipeline
from costmodels.quantise import Quantiser
from synth.errors import InputError
from synth.memory import parse_limit
from synth.ops import OpKind
from synth.placement import place
from synth.problem import OpCost, Problem, StageCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledProblem:
    """A problem and what rounding did to it.

    Parameters
    ----------
    problem
        The problem document's content.
    rounding_error, transfer_rounding_error
        The largest relative error of rounding an op's time, a transfer's time.
    workspace_bytes
        For every rank, the most that one of its ops takes only while it runs; a limit in bytes is lowered
        by it.
    """

    problem: Problem
    rounding_error: float
    transfer_rounding_error: float
    workspace_bytes: tuple[int, ...]


def profiled_problem(
    profile: Profile, pipeline: Pipeline, links: LinkCosts | None, memory_limit: str | None
) -> ProfiledProblem:
    """Turn a profile into a problem.

    F allocates what it leaves behind, and B and W free what they leave less, or allocate what they leave
    more: a natively divided B frees nothing. What an op takes only while it runs is left out of its costs;
    instead a limit in bytes is lowered by the most that any op of a rank takes so.

    Parameters
    ----------
    profile
        What was measured.
    pipeline
        Ranks, microbatches, placement, objective and the length of a tick.
    links
        Between the ranks, or None for transfers that take no time.
    memory_limit
        As ``--memory-limit`` takes it, or None.

    Raises
    ------
    InputError
        When the links are for other ranks, or the limit is none or too low for what ops take while they run.
    """
    quantiser = Quantiser(tick_seconds=pipeline.tick_seconds)
    placement = place(pipeline.kind, pipeline.num_ranks, pipeline.num_stages)
    transfers = _transfers(profile, pipeline, placement.stage_to_rank, links)
    problem = Problem(
        num_ranks=pipeline.num_ranks,
        num_microbatches=pipeline.num_microbatches,
        placement=placement,
        stages=tuple(_stage_costs(stage, quantiser) for stage in profile.stages),
        transfer_ticks=tuple(tuple(quantiser.ticks(s, least=0) for s in row) for row in transfers),
        objective=pipeline.objective,
        tick_seconds=pipeline.tick_seconds,
        name=profile.name,
    )
    workspace = tuple(
        max(profile.stages[stage].memory.highest_workspace for stage in held)
        for held in problem.stages_by_rank
    )
    if memory_limit is not None:
        problem = problem.with_memory_limit(_limits(memory_limit, problem, workspace))
    made = ProfiledProblem(
        problem=problem,
        rounding_error=quantiser.largest_error(
            spread.median_s for stage in profile.stages for spread in stage.times.values()
        ),
        transfer_rounding_error=quantiser.largest_error(seconds for row in transfers for seconds in row),
        workspace_bytes=workspace,
    )
    return replace(made, problem=replace(problem, source=provenance(profile, made, links, memory_limit)))


def _stage_costs(stage: StageProfile, quantiser: Quantiser) -> StageCosts:
    costs = {
        kind: OpCost(
            ticks=quantiser.ticks(spread.median_s),
            alloc_bytes=max(0, stage.memory.net[kind]),
            free_bytes=max(0, -stage.memory.net[kind]),
        )
        for kind, spread in stage.times.items()
    }
    return StageCosts(
        F=costs[OpKind.F],
        B=costs.get(OpKind.B),
        W=costs.get(OpKind.W),
        BW=costs.get(OpKind.BW),
        static_bytes=stage.memory.static.total,
        layers=stage.layers,
    )


def _transfers(
    profile: Profile, pipeline: Pipeline, stage_to_rank: Sequence[int], links: LinkCosts | None
) -> list[list[float]]:
    """Seconds for every ordered pair of ranks, by the largest it carries; 0 where it carries nothing."""
    ranks = range(pipeline.num_ranks)
    seconds = [[0.0] * pipeline.num_ranks for _ in ranks]
    if links is None:
        return seconds
    check_ranks(links, pipeline.num_ranks)
    for (a, b), size in pair_bytes([stage.sent_bytes for stage in profile.stages], stage_to_rank).items():
        if a != b:
            seconds[a][b] = links.seconds(a, b, size)
    return seconds


def _limits(text: str, problem: Problem, workspace: Sequence[int]) -> tuple[int, ...]:
    limits = parse_limit(text, problem)
    if text.strip().lower().endswith("x"):
        return limits
    for rank, (limit, taken) in enumerate(zip(limits, workspace, strict=True)):
        if limit < taken:
            raise InputError(
                f"--memory-limit {text} is given, and an op of rank {rank} takes {taken} bytes while it "
                "runs: give more"
            )
    return tuple(limit - taken for limit, taken in zip(limits, workspace, strict=True))


def provenance(
    profile: Profile, made: ProfiledProblem, links: LinkCosts | None, memory_limit: str | None
) -> str:
    """Where the numbers of the problem come from, in words."""
    return "; ".join(
        [
            *profile.how,
            f"model: {profile.name}, layers per stage {' '.join(str(len(s.layers)) for s in profile.stages)}",
            f"backward divided: {_divisions(profile)}",
            *_spread(profile),
            "static bytes: weights with buffers, their gradients, and what the optimizer keeps",
            f"workspace of one op, not in its costs: at most {max(made.workspace_bytes)} bytes"
            + (
                ""
                if memory_limit is None or memory_limit.strip()[-1:] in "xX"
                else "; the limit is lowered by it"
            ),
            "transfers: none given, they take no time" if links is None else f"transfers: {links.source}",
            f"rounding to ticks of {made.problem.tick_seconds:g} s: at most {made.rounding_error:.2%} of an "
            f"op, {made.transfer_rounding_error:.2%} of a transfer",
        ]
    )


def _divisions(profile: Profile) -> str:
    """The way that was asked for, and which stages are divided otherwise."""
    others = [str(n) for n, stage in enumerate(profile.stages) if stage.division != profile.split]
    if not others:
        return "no" if profile.split is Split.NONE else profile.split
    plural = "s" if len(others) > 1 else ""
    return f"{profile.split}, stage{plural} {', '.join(others)} {Split.NATIVE} (no layer there can defer)"


def _spread(profile: Profile) -> list[str]:
    """How far repeated times spread; nothing where they were not repeated."""
    spreads = [spread for stage in profile.stages for spread in stage.times.values() if spread.count > 1]
    if not spreads:
        return []
    largest = max(spread.relative for spread in spreads)
    return [f"spread of a time: at most {largest:.1%} of its median (half of the quartiles' distance)"]
