"""The one-rank relaxation: one rank's ops, with every other rank a pure delay."""

from __future__ import annotations

from dataclasses import dataclass

from synth.bounds.chains import backward_tails, forward_heads, gradient_ticks, round_trip_ticks
from synth.problem import Objective, Problem, StageCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class OneRank:
    """One rank with one stage, and what the others cost it.

    Parameters
    ----------
    num_microbatches
        Count.
    forward_ticks, backward_ticks, weight_ticks
        Durations; no weight op where ``weight_ticks`` is 0.
    head_ticks, delay_ticks, tail_ticks
        Before the first forward, from a forward's end to its backward's start, and after the last backward.
    room_bytes
        What the rank may hold, None for no limit.
    alloc_bytes, held_bytes
        What a forward takes while it runs, and what it leaves.
    backward_frees_bytes, weight_frees_bytes
        What the backward and the weight op free of that, at the most.
    """

    num_microbatches: int
    forward_ticks: int
    backward_ticks: int
    weight_ticks: int
    head_ticks: int
    delay_ticks: int
    tail_ticks: int
    room_bytes: int | None
    alloc_bytes: int
    held_bytes: int
    backward_frees_bytes: int
    weight_frees_bytes: int

    @property
    def work_ticks(self) -> int:
        """All ops of the rank."""
        return self.num_microbatches * (self.forward_ticks + self.backward_ticks + self.weight_ticks)

    @property
    def horizon_ticks(self) -> int:
        """Enough for one microbatch after another."""
        return self.head_ticks + self.work_ticks + self.num_microbatches * self.delay_ticks + self.tail_ticks

    def releases_before(self, microbatch: int) -> list[tuple[int, int]]:
        """The least (backwards, weight ops) that must have ended before a forward fits, each pair enough."""
        if self.room_bytes is None:
            return []
        need = microbatch * self.held_bytes + self.alloc_bytes - self.room_bytes
        pairs = []
        for backwards in range(microbatch + 1):
            missing = max(0, need - backwards * self.backward_frees_bytes)
            weights = -(-missing // self.weight_frees_bytes) if self.weight_frees_bytes else missing
            if not missing:
                pairs.append((backwards, 0))
                break
            if self.weight_frees_bytes and weights <= backwards:
                pairs.append((backwards, weights))
        return pairs

    @property
    def forwards_before_backward(self) -> int:
        """The most forwards that fit before anything is released."""
        if self.room_bytes is None or self.held_bytes <= 0:
            return self.num_microbatches
        return min(self.num_microbatches, (self.room_bytes - self.alloc_bytes) // self.held_bytes + 1)

    @property
    def work_from_last_forward(self) -> int:
        """The most work that can be left when the last forward starts, its own included.

        With x backwards and y ≥ x weight ops left, what is live then leaves out what the others released:
        ``x * backward_frees + y * weight_frees`` is within what the limit leaves.
        """
        m, both = self.num_microbatches, self.backward_frees_bytes + self.weight_frees_bytes
        everything = self.forward_ticks + m * (self.backward_ticks + self.weight_ticks)
        if self.room_bytes is None or both == 0:
            return everything
        left = self.room_bytes - self.alloc_bytes - (m - 1) * self.held_bytes + m * both
        if left >= m * both:
            return everything
        most = 0
        for x in range(1, left // both + 1):
            y = m
            if self.weight_frees_bytes:
                y = min(m, (left - x * self.backward_frees_bytes) // self.weight_frees_bytes)
            most = max(most, x * self.backward_ticks + y * self.weight_ticks)
        return self.forward_ticks + most


def relaxable_ranks(problem: Problem) -> list[int]:
    """The ranks that hold one stage whose backward is divided without loss, or cannot be."""
    return [
        rank
        for rank, held in enumerate(problem.stages_by_rank)
        if len(held) == 1 and divides_best(problem.stages[held[0]])
    ]


def relax(problem: Problem, rank: int) -> OneRank:
    """Keep one rank's ops; the rank holds one stage whose backward is divided wherever it can be.

    What a backward allocates beyond what it frees is left out, which only makes more fit.
    """
    (stage,) = problem.stages_by_rank[rank]
    costs = problem.stages[stage]
    backward, weight = (costs.B, costs.W) if costs.B and costs.W else (costs.BW, None)
    assert backward is not None
    makespan = problem.objective is Objective.MAKESPAN
    released = backward.free_bytes - backward.alloc_bytes
    released_by_both = released + (weight.free_bytes - weight.alloc_bytes if weight else 0)
    limits = problem.memory_limit_bytes
    tail = backward_tails(problem)[stage] - gradient_ticks(problem, stage)
    return OneRank(
        num_microbatches=problem.num_microbatches,
        forward_ticks=costs.F.ticks,
        backward_ticks=backward.ticks,
        weight_ticks=weight.ticks if weight else 0,
        head_ticks=forward_heads(problem)[stage] if makespan else 0,
        delay_ticks=round_trip_ticks(problem, stage, stage),
        tail_ticks=tail if makespan else 0,
        room_bytes=None if limits is None else limits[rank] - problem.static_bytes_by_rank[rank],
        alloc_bytes=costs.F.alloc_bytes,
        held_bytes=costs.F.alloc_bytes - costs.F.free_bytes,
        backward_frees_bytes=max(0, released),
        weight_frees_bytes=max(0, released_by_both - max(0, released)),
    )


def leaves_choice(costs: StageCosts) -> bool:
    """Whether a stage's backwards may be better whole, or better divided."""
    return costs.can_divide and not costs.must_divide and not divides_best(costs)


def divides_best(costs: StageCosts) -> bool:
    """Whether the backward is divided without loss: a divided one fits wherever an undivided one does."""
    if costs.B is None or costs.W is None or costs.BW is None:
        return True
    return (
        costs.B.ticks + costs.W.ticks <= costs.BW.ticks
        and costs.B.alloc_bytes <= costs.BW.alloc_bytes
        and costs.B.alloc_bytes - costs.B.free_bytes + costs.W.alloc_bytes <= costs.BW.alloc_bytes
        and costs.B.free_bytes + costs.W.free_bytes - costs.B.alloc_bytes - costs.W.alloc_bytes
        >= costs.BW.free_bytes - costs.BW.alloc_bytes
    )
