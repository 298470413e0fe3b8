"""What the flow of a problem puts in order by itself, whatever a schedule decides."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from synth.ops import Op, OpKind
from synth.problem import Problem


@dataclass(frozen=True, slots=True)
class Flow:
    """Which stages feed which, and which microbatches are identical: those that pass the same stages.

    Parameters
    ----------
    inputs, outputs, replicas
        As of the problem.
    identical
        For every microbatch the identical ones, itself among them, ascending.
    before
        For every microbatch the identical one ahead of it, where there is one.
    reached
        By the first of identical microbatches and by stage: the stages that its forward leads to, and itself.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    replicas: tuple[tuple[int, ...], ...]
    identical: dict[int, tuple[int, ...]]
    before: dict[int, int]
    reached: dict[int, dict[int, frozenset[int]]]

    @classmethod
    def of(cls, problem: Problem) -> Flow:
        """Read it off a problem."""
        passed: dict[int, list[int]] = {i: [] for i in range(problem.num_microbatches)}
        for stage in range(problem.num_stages):
            for i in problem.microbatches_of(stage):
                passed[i].append(stage)
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, stages in passed.items():
            alike.setdefault(tuple(stages), []).append(i)
        outputs = problem.outputs_by_stage
        reached: dict[int, dict[int, frozenset[int]]] = {}
        for held, microbatches in alike.items():
            ways = reached[microbatches[0]] = {}
            for stage in reversed(held):
                further = (ways[after] for after in outputs[stage] if after in ways)
                ways[stage] = frozenset({stage}).union(*further)
        return cls(
            inputs=problem.inputs_by_stage,
            outputs=outputs,
            replicas=problem.replicas_by_stage,
            identical={i: tuple(same) for same in alike.values() for i in same},
            before={after: first for same in alike.values() for first, after in pairwise(same)},
            reached=reached,
        )

    def precedes(self, first: Op, then: Op) -> bool:
        """Whether the flow and the order of identical microbatches put an op before another."""
        if first == then or OpKind.R in (first.kind, then.kind):
            return False
        same = self.identical[first.microbatch]
        if first.microbatch > then.microbatch or then.microbatch not in same:
            return False
        if first.kind is OpKind.W:
            return then.kind is OpKind.W and first.stage == then.stage
        ways = self.reached[same[0]]
        if then.kind is OpKind.F:
            return first.kind is OpKind.F and then.stage in ways[first.stage]
        if first.kind is OpKind.B:
            return first.stage in ways[then.stage]
        return not ways[first.stage].isdisjoint(ways[then.stage])
