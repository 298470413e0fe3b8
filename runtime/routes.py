"""What passes from which stage to which: a plain chain, several directions, sequence slices, storage.

The stages of a document are numbered through; what the runtime needs to know of each is which stage of the
model it runs, which slice of the sequence, and for every microbatch the stages beside it. A stage that
another of the same stage of the model feeds computes nothing: it *stores* what that one keeps of its
microbatches, from its F, which takes it in, to its backward, which hands it back (:mod:`runtime.eviction`).
"""

from __future__ import annotations

from collections.abc import Mapping

from synth.errors import InputError
from synth.problem import Problem


def storing_stages(problem: Problem) -> frozenset[int]:
    """The stages that store what another of the same stage of the model keeps."""
    runs = [(feed.model_stage, feed.slice) for feed in problem.feeds]
    return frozenset(
        stage
        for stage, feed in enumerate(problem.feeds)
        if any(runs[source] == runs[stage] for source in feed.inputs)
    )


class Routes:
    """The way of every microbatch through the stages.

    Parameters
    ----------
    problem
        Its stages are the directions and slices of one chain, and such as store.

    Raises
    ------
    InputError
        When they are something else, or the slices of a stage sit on different ranks.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._inputs, self._outputs = problem.inputs_by_stage, problem.outputs_by_stage
        self.storing = storing_stages(problem)
        self._carried = [set(problem.microbatches_of(stage)) for stage in range(problem.num_stages)]
        stages = range(problem.num_stages)
        self.num_model_stages = 1 + max(map(self.model_stage, stages))
        self.num_slices = 1 + max(map(self.slice_of, stages))
        if problem.feeds:
            self._check()

    def model_stage(self, stage: int) -> int:
        """The stage of the model that a stage runs."""
        return self.problem.feeds[stage].model_stage if self.problem.feeds else stage

    def slice_of(self, stage: int) -> int:
        """Which sequence slice a stage computes."""
        return self.problem.feeds[stage].slice if self.problem.feeds else 0

    def source(self, stage: int, microbatch: int) -> int | None:
        """The stage whose output a forward takes, None where it takes the batch."""
        return self._beside(stage, microbatch, self._inputs)

    def target(self, stage: int, microbatch: int) -> int | None:
        """The stage that takes a forward's output, None where it is for the loss."""
        return self._beside(stage, microbatch, self._outputs)

    def stored_for(self, store: int) -> tuple[int, ...]:
        """The stages of other ranks some of whose microbatches a stage stores."""
        ranks, carried = self.problem.stage_to_rank, self._carried
        return tuple(
            stage
            for stage in self._inputs[store]
            if ranks[stage] != ranks[store] and carried[stage] & carried[store]
        )

    @property
    def evicting(self) -> frozenset[int]:
        """The stages that other ranks store microbatches for."""
        return frozenset(stage for store in self.storing for stage in self.stored_for(store))

    def computing_on(self, rank: int) -> tuple[int, ...]:
        """The stages of a rank that compute, ascending."""
        return tuple(stage for stage in self.problem.stages_by_rank[rank] if stage not in self.storing)

    def holders(self, model_stage: int) -> tuple[int, ...]:
        """The ranks that hold the weights of a stage of the model, ascending."""
        ranks = {
            rank
            for stage, rank in enumerate(self.problem.stage_to_rank)
            if self.model_stage(stage) == model_stage and stage not in self.storing
        }
        return tuple(sorted(ranks))

    def held_by(self, rank: int) -> tuple[int, ...]:
        """The stages of the model whose weights a rank holds, ascending; it has a module of each."""
        return tuple(sorted({self.model_stage(stage) for stage in self.computing_on(rank)}))

    def _beside(self, stage: int, microbatch: int, near: tuple[tuple[int, ...], ...]) -> int | None:
        own = self.model_stage(stage)
        for other in near[stage]:
            if self.model_stage(other) != own and self._carries(other, microbatch):
                return other
        return None

    def _carries(self, stage: int, microbatch: int) -> bool:
        return not self.problem.feeds or microbatch in self._carried[stage]

    def _check(self) -> None:
        seen: set[tuple[int, ...]] = set()
        for microbatch in range(self.problem.num_microbatches):
            passed = tuple(s for s, carried in enumerate(self._carried) if microbatch in carried)
            if passed not in seen:
                seen.add(passed)
                self._check_way(microbatch, passed)

    def _check_way(self, microbatch: int, passed: tuple[int, ...]) -> None:
        """Whether a microbatch passes every stage of the model in every slice, once and in order."""
        computing = [stage for stage in passed if stage not in self.storing]
        at = {(self.model_stage(stage), self.slice_of(stage)): stage for stage in computing}
        if len(at) < len(computing) or len(at) < self.num_model_stages * self.num_slices:
            raise InputError(
                f"microbatch {microbatch} does not pass each of {self.num_model_stages} stages of the model "
                f"in each of {self.num_slices} slices just once: the runtime executes chains of stages, in "
                "one or more directions, with or without sequence slices; give a schedule of those"
            )
        for (model_stage, number), stage in at.items():
            self._check_inputs(microbatch, stage, at)
            first = at[model_stage, 0]
            ranks = self.problem.stage_to_rank
            if ranks[stage] != ranks[first]:
                raise InputError(
                    f"slice {number} of a microbatch is on rank {ranks[stage]} as stage {stage} and slice 0 "
                    f"on rank {ranks[first]} as stage {first}, and one needs what the other keeps: place all "
                    "slices of a stage on one rank"
                )

        self._check_storage(microbatch, [stage for stage in passed if stage in self.storing], at)

    def _check_storage(self, microbatch: int, storing: list[int], at: Mapping[tuple[int, int], int]) -> None:
        """Whether each stage that stores does so for one that computes, and is the only one."""
        if storing and self.num_slices > 1:
            raise InputError(
                f"stage {storing[0]} stores what another keeps, and there are sequence slices, which need "
                "on their rank what earlier ones keep: give a schedule with the one or the other"
            )
        stored: dict[int, int] = {}  # by the stage that computes
        for stage in storing:
            wanted = at[self.model_stage(stage), self.slice_of(stage)]
            given = [other for other in self._inputs[stage] if microbatch in self._carried[other]]
            if given != [wanted]:
                raise InputError(
                    f"stage {stage} stores microbatch {microbatch} and is fed by {_listed(given)} and not by "
                    f"{_listed([wanted])}, which computes it: feed a stage that stores by that one alone"
                )
            if (first := stored.setdefault(wanted, stage)) != stage:
                raise InputError(
                    f"stages {first} and {stage} both store what stage {wanted} keeps of microbatch "
                    f"{microbatch}: give a schedule in which one does"
                )

    def _check_inputs(self, microbatch: int, stage: int, at: Mapping[tuple[int, int], int]) -> None:
        model_stage, number = self.model_stage(stage), self.slice_of(stage)
        near = ((model_stage - 1, number), (model_stage, number - 1))
        wanted = sorted(at[place] for place in near if place in at)
        given = [other for other in self._inputs[stage] if microbatch in self._carried[other]]
        if given != wanted:
            raise InputError(
                f"stage {stage} is fed by {_listed(given)} and not by {_listed(wanted)}: the runtime feeds a "
                "stage by the one before it in the model and by the slice before it; give a schedule of those"
            )


def _listed(stages: list[int]) -> str:
    if not stages:
        return "no stage"
    return f"stage{'s' if len(stages) > 1 else ''} {', '.join(map(str, stages))}"
