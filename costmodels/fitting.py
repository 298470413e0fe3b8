"""What fits: every rank's static bytes and activations against its limit, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from costmodels.optimizer_state import StaticBytes
from costmodels.planning import Pipeline, Plan, make_plan
from costmodels.training import AttentionKernel, Recompute, Training
from synth.baselines import baseline_orders
from synth.chunks import merge_into_ranks
from synth.errors import BaselineUndefinedError, InputError
from synth.memory import smallest_limits_bytes
from synth.placement import PlacementKind
from synth.problem import Problem
from synth.schedule import fits, peak_memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """What one rank holds, and how much of it fits.

    Parameters
    ----------
    static
        Weights, gradients, optimizer state.
    activation_bytes
        Of one microbatch, over all stages of the rank.
    least_bytes
        What any schedule needs: static bytes and one microbatch.
    one_f_one_b_bytes
        What 1F1B needs: it has one stage per rank, neighbouring stages merged, as ``synthesize`` compares it.
    limit_bytes
        What the rank may hold.
    """

    static: StaticBytes
    activation_bytes: int
    least_bytes: int
    one_f_one_b_bytes: int
    limit_bytes: int

    @property
    def microbatches(self) -> int:
        """How many microbatches it can hold at once: one with what its backward adds, others beside it."""
        if self.least_bytes > self.limit_bytes:
            return 0
        return 1 + (self.limit_bytes - self.least_bytes) // max(1, self.activation_bytes)


def memory_by_rank(plan: Plan) -> list[RankMemory]:
    """What every rank holds, and how much of it fits."""
    problem = plan.problem
    assert problem.memory_limit_bytes is not None, "plans have a limit"
    rows = zip(
        plan.static_by_rank,
        problem.stages_by_rank,
        smallest_limits_bytes(problem),
        _one_f_one_b(problem),
        problem.memory_limit_bytes,
        strict=True,
    )
    return [
        RankMemory(
            static=static,
            activation_bytes=sum(problem.stages[stage].F.alloc_bytes for stage in held),
            least_bytes=least,
            one_f_one_b_bytes=needed,
            limit_bytes=limit,
        )
        for static, held, least, needed, limit in rows
    ]


def fits_at_all(plan: Plan) -> bool:
    """Whether some schedule fits every rank."""
    return fits(plan.problem, smallest_limits_bytes(plan.problem))


def fits_1f1b(plan: Plan) -> bool:
    """Whether 1F1B fits every rank."""
    return all(row.one_f_one_b_bytes <= row.limit_bytes for row in memory_by_rank(plan))


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that helps, as flags, and what fits with it: a baseline, or only one microbatch at a time."""

    change: str
    fits: str


ONE_AT_A_TIME = "one microbatch at a time"


def remedies(plan: Plan) -> list[Remedy]:
    """Single changes under which a plan fits that does not, or a baseline fits where 1F1B does not yet."""
    fitted = fits_at_all(plan)
    found = []
    for words, changed in _changes(plan):
        if fits_1f1b(changed):
            found.append(Remedy(words, "1f1b"))
        elif changed.pipeline.chunks > plan.pipeline.chunks:
            if _fits_v_half(changed.problem):
                found.append(Remedy(words, "v-half"))
        elif not fitted and fits_at_all(changed):
            found.append(Remedy(words, ONE_AT_A_TIME))
    return found


def _one_f_one_b(problem: Problem) -> tuple[int, ...]:
    """The peak of 1F1B on every rank: it has one stage per rank, whatever the placement."""
    merged = merge_into_ranks(_as_many_as_are_held(problem, 1))
    return peak_memory_bytes(merged, baseline_orders("1f1b", merged))


def _as_many_as_are_held(problem: Problem, times: int) -> Problem:
    """No more microbatches than a baseline holds at once on some rank: beyond them its peak stays."""
    enough = times * problem.num_ranks
    return replace(problem, num_microbatches=min(problem.num_microbatches, enough))


def _fits_v_half(problem: Problem) -> bool:
    problem = _as_many_as_are_held(problem, 4)
    with suppress(BaselineUndefinedError):
        return fits(problem, peak_memory_bytes(problem, baseline_orders("v-half", problem)))
    return False


def _changes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """The plan with one thing changed, each way that the model allows."""
    trainings = _training_changes(plan.training, plan.cluster.gpus_per_node)
    pipelines = _pipeline_changes(plan.pipeline)
    changed = [(words, training, plan.pipeline) for words, training in trainings]
    changed += [(words, plan.training, pipeline) for words, pipeline in pipelines]
    for words, training, pipeline in changed:
        with suppress(InputError):
            yield words, make_plan(plan.model, training, pipeline, plan.cluster)


def _pipeline_changes(pipeline: Pipeline) -> Iterator[tuple[str, Pipeline]]:
    if pipeline.chunks == 1 and pipeline.num_ranks > 1 and pipeline.divided:
        two = replace(pipeline, chunks=2, kind=PlacementKind.V)
        yield (
            (f"--stages {two.num_stages}" if pipeline.stages_given else "--chunks 2") + " --placement v",
            two,
        )
    for times in (2, 4):
        more = replace(pipeline, num_ranks=times * pipeline.num_ranks)
        stages = f" --stages {more.num_stages}" if pipeline.stages_given else ""
        yield f"--pp {more.num_ranks}{stages}", more


def _training_changes(training: Training, gpus_per_node: int) -> Iterator[tuple[str, Training]]:
    t, replicas = training.tensor_parallel, training.data_parallel
    if training.attention is AttentionKernel.CORE:
        if training.recompute is Recompute.SELECTIVE:
            without = replace(training, attention=AttentionKernel.FLASH, recompute=Recompute.NONE)
            yield "--attention flash --recompute none", without
        else:
            yield "--attention flash", replace(training, attention=AttentionKernel.FLASH)
        if training.recompute is Recompute.NONE:
            yield "--recompute selective", replace(training, recompute=Recompute.SELECTIVE)
    if t > 1 and not training.sequence_parallel and training.sequence_length % t == 0:
        yield "--sequence-parallel", replace(training, sequence_parallel=True)
    if training.recompute is not Recompute.FULL:
        yield "--recompute full", replace(training, recompute=Recompute.FULL)
    if 2 * t <= gpus_per_node and not (training.sequence_parallel and training.sequence_length % (2 * t)):
        yield f"--tp {2 * t}", replace(training, tensor_parallel=2 * t)
    for stage in range(training.zero_stage + 1, 3):
        if replicas > 1:
            yield f"--zero {stage}", replace(training, zero_stage=stage)
    if training.zero_stage == 0 and replicas == 1:
        yield "--dp 8 --zero 1", replace(training, data_parallel=8, zero_stage=1)
    if training.microbatch_size > 1:
        half = training.microbatch_size // 2
        yield f"--microbatch {half}", replace(training, microbatch_size=half)
