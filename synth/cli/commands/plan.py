"""``plan``: the best way to spread a model over a cluster."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

from costmodels.plans.fleet import read_fleet
from costmodels.plans.recipe import PlanRecipe
from costmodels.plans.seats import SeatOrder
from costmodels.plans.shapes import CHUNKS, Shape, Space
from costmodels.plans.stashing import stashing_plan
from costmodels.training import AttentionKernel, Recompute, Training
from synth.cli.arguments import add_json_argument, add_seed_argument, seconds, whole_number
from synth.cli.commands.model import MOST_TOKENS
from synth.cli.describing import add_model_arguments, add_named_arguments, given_model
from synth.cli.exit_codes import DONE, INTERRUPTED, NO_SCHEDULE
from synth.cli.plan_tables import Answer, Choice, Cut, answer_json, show_answer
from synth.cli.showing import check_output_option
from synth.cli.stashing_tables import show_stashing, stashing_json
from synth.cli.streams import Printer, complain, print_json
from synth.document import ScheduleDocument, write_schedule
from synth.drafts import WeightPolicy
from synth.errors import InputError
from synth.files import write_whole
from synth.planner.documents import check_shows_steady_state, schedule_document
from synth.planner.executors import Executor, executor_of
from synth.planner.journal import Journal
from synth.planner.judging import SCHEDULES
from synth.planner.ray_executor import LOCAL, RayExecutor
from synth.planner.sweeping import KEEP, Sweep, sweep
from synth.planner.synthesizing import Synthesized, synthesize_best
from synth.search.synthesizer import MOST_WORKERS

MOST_DEGREE = 2**20
MOST_SYNTHESIZED = 8
SYNTHESIS_S = 10.0
SEARCH, PIPEDREAM = "search", "pipedream"
NO_WAYS = (
    "no plan has these degrees: pp · dp · tp must be the GPUs of the cluster, tp divide those of a node, dp "
    "the batch, and microbatch a replica's part of it; leave one of them open"
)
NO_BUFFERED_WAYS = (
    "; --weights 2bw takes one stage per rank and at least as many microbatches as ranks: give --weights "
    "flush too, or fewer ranks, a larger batch, a smaller microbatch or --chunks 1"
)
UNUSED_BY_PIPEDREAM: dict[str, tuple[str, object]] = {
    "-o": ("output", None),
    "--pp": ("pp", ()),
    "--dp": ("dp", ()),
    "--tp": ("tp", ()),
    "--chunks": ("chunks", CHUNKS),
    "--weights": ("weights", tuple(WeightPolicy)),
    "--neighbours": ("neighbours", tuple(SeatOrder)),
    "--schedule": ("schedule", SCHEDULES),
    "--sequence-parallel": ("sequence_parallel", False),
    "--zero": ("zero", 0),
    "--synthesize": ("synthesize", MOST_SYNTHESIZED),
    "--time-limit": ("time_limit", SYNTHESIS_S),
    "--folder": ("folder", None),
    "--ray": ("ray", None),
}
"""Flags that PipeDream's planner has no use for: where each is read, and what it is when not given."""
Name = TypeVar("Name", bound=StrEnum)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``plan`` takes."""
    add_model_arguments(parser)
    add = parser.add_argument
    add("--cluster", required=True, metavar="CLUSTER", help="a cluster's file, or such as 64xh100")
    add("--batch", type=whole_number(1, MOST_TOKENS), required=True, metavar="N", help="sequences per update")
    add("--seq", type=whole_number(1, MOST_TOKENS), required=True, metavar="S", help="tokens in a sequence")
    _add_fixing_arguments(parser)
    add("--sequence-parallel", action="store_true", help="share the tokens between tensor-parallel regions")
    add("--zero", type=whole_number(0, 1), default=0, metavar="{0,1}", help="what replicas share (default 0)")
    add_named_arguments(parser)
    _add_effort_arguments(parser)
    text = (
        "search what may be chosen (default), or PipeDream's own, to compare with: stages and replicas for "
    )
    text += "minibatches of the sizes given as microbatches (default 1)"
    add("--planner", choices=(SEARCH, PIPEDREAM), default=SEARCH, help=text)
    add("-o", "--output", metavar="SCHEDULE", help="write the best plan's schedule document, - for stdout")
    add_json_argument(parser)


def _add_fixing_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what may be chosen, with commas; by default all of it").add_argument
    for flag, what in (
        ("--pp", "pipeline ranks"),
        ("--dp", "replicas of the pipeline"),
        ("--tp", "tensor-parallel GPUs of a rank"),
        ("--microbatch", "sequences in a microbatch"),
    ):
        add(flag, type=_numbers, default=(), metavar="N,…", help=what)
    usual = ",".join(map(str, CHUNKS))
    add("--chunks", type=_numbers, default=CHUNKS, metavar="V,…", help=f"stages per rank (default {usual})")
    add("--recompute", type=_names(Recompute), metavar="NAME,…", help=", ".join(Recompute))
    policies = tuple(WeightPolicy)
    add("--weights", type=_names(WeightPolicy), default=policies, metavar="NAME,…", help=", ".join(policies))
    orders = tuple(SeatOrder)
    text = "who are neighbours in a node: stages, replicas"
    add("--neighbours", type=_names(SeatOrder), default=orders, metavar="NAME,…", help=text)
    add("--schedule", type=_schedules, default=SCHEDULES, metavar="NAME,…", help="published schedules to try")


def _add_effort_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--keep", type=whole_number(1), default=KEEP, metavar="N", help="rows shown (default %(default)s)")
    text = "how many of the best to synthesize schedules for (default %(default)s)"
    add("--synthesize", type=whole_number(0), default=MOST_SYNTHESIZED, metavar="N", help=text)
    text = "seconds for each of those (default %(default)s)"
    add("--time-limit", type=seconds, default=SYNTHESIS_S, metavar="S", help=text)
    cores = min(os.cpu_count() or 1, MOST_WORKERS)
    workers = whole_number(1, MOST_WORKERS)
    add("--workers", type=workers, default=cores, metavar="N", help="processes (default: one per core)")
    add_seed_argument(parser)
    add("--folder", metavar="FOLDER", help="keep what is judged; the same command again goes on from there")
    text = "work on a Ray cluster: its address, auto, or local (default) to start one here"
    add("--ray", nargs="?", const=LOCAL, metavar="ADDRESS", help=text)


def run(options: argparse.Namespace) -> int:
    """Find the best way to spread a model over a cluster: depth, width, cut, microbatch and schedule."""
    check_output_option(options)
    if options.planner == PIPEDREAM:
        return _run_pipedream(options)
    begun = time.monotonic()
    recipe = _recipe(options)
    journal = None if options.folder is None else Journal(options.folder, recipe.fingerprint)
    executor = _executor(options)
    try:
        standing = sweep(recipe, executor, keep=options.keep, schedules=options.schedule, journal=journal)
        swept_s = time.monotonic() - begun
        found: Sequence[Synthesized] = ()
        if options.synthesize and not standing.interrupted:
            found = synthesize_best(
                recipe,
                executor,
                standing,
                most=options.synthesize,
                time_limit_s=options.time_limit,
                seed=options.seed,
                journal=journal,
            )
    finally:
        executor.close()
    choices = _choices(recipe, standing, found)
    document = _document(recipe, choices[0], found) if choices else None
    answer = Answer(
        choices=choices,
        cut=None if document is None else _cut(recipe, choices[0], document),
        standing=standing,
        num_synthesized=len(found),
        swept_s=swept_s,
        batch=recipe.space.batch,
        sequence_length=recipe.training.sequence_length,
        limit_bytes=recipe.limit_bytes,
        name=f"{recipe.model.name} on {recipe.fleet.name}",
    )
    if options.json:
        print_json(answer_json(answer, options.keep))
    else:
        show_answer(answer, options.keep, Printer(options.output))
    if options.output is not None and document is not None:
        check_shows_steady_state(document, choices[0].num_microbatches)
        write_whole(options.output, write_schedule(document))
    return _conclude(standing, answer, options)


def _run_pipedream(options: argparse.Namespace) -> int:
    """PipeDream's own planner: no search, and no schedule document."""
    for flag, (name, default) in UNUSED_BY_PIPEDREAM.items():
        if getattr(options, name) != default:
            raise InputError(
                f"{flag} is given with --planner pipedream, which has no use for it: leave it out"
            )
    recipe = _recipe(options)
    ways = [
        replace(recipe.training, microbatch_size=size, recompute=recompute)
        for size in options.microbatch or (1,)
        for recompute in recipe.space.recompute
    ]
    found = [stashing_plan(recipe.model, training, recipe.fleet) for training in ways]
    plans = sorted(found, key=lambda plan: (not plan.fits, -plan.sequences_per_s))[: options.keep]
    name = f"{recipe.model.name} on {recipe.fleet.name}"
    if options.json:
        print_json(stashing_json(name, options.batch, plans))
    else:
        show_stashing(name, options.batch, plans, Printer(None))
    if not plans[0].fits:
        complain("no plan of PipeDream's fits: it stashes as many versions as microbatches are in flight")
        return NO_SCHEDULE
    return DONE


def _conclude(standing: Sweep, answer: Answer, options: argparse.Namespace) -> int:
    if standing.interrupted:
        goes_on = "the same command goes on from there" if options.folder else "with --folder it could go on"
        complain(f"interrupted: this is the best so far; {goes_on}")
        return DONE if answer.choices else INTERRUPTED
    if not answer.choices:
        if not standing.outlines:
            flushes = WeightPolicy.FLUSH in options.weights
            complain(NO_WAYS + ("" if flushes else NO_BUFFERED_WAYS))
            return NO_SCHEDULE
        complain(f"none of {len(standing.outlines)} ways fits: {_why_not(standing)}")
        return NO_SCHEDULE
    return DONE


def _why_not(standing: Sweep) -> str:
    """The most frequent reason."""
    reasons = [outline.refusal for outline in standing.outlines if outline.refusal]
    reasons += [verdict.refusal for verdict in standing.verdicts.values() if verdict.refusal]
    if not reasons and not any(verdict.rows for verdict in standing.verdicts.values()):
        return "none of these schedules exists for them: give others with --schedule, or other --weights"
    if not reasons:
        return "every schedule tried holds too much"
    return max(sorted(set(reasons)), key=reasons.count)


def _recipe(options: argparse.Namespace) -> PlanRecipe:
    flash = options.attention is AttentionKernel.FLASH  # which keeps no scores to compute again
    usual = tuple(way for way in Recompute if not (flash and way is Recompute.SELECTIVE))
    training = Training(
        microbatch_size=1,
        sequence_length=options.seq,
        sequence_parallel=False,
        precision=options.dtype,
        gradient_bytes=options.gradient_bytes,
        attention=options.attention,
    )
    space = Space(
        batch=options.batch,
        pp=options.pp,
        dp=options.dp,
        tp=options.tp,
        microbatch=options.microbatch,
        chunks=options.chunks,
        recompute=options.recompute or usual,
        weights=options.weights,
        seats=options.neighbours,
    )
    fleet = read_fleet(options.cluster)
    fleet.cluster.gpu.flops_per_s(options.dtype)  # refused where the GPU does not have it: no plan could be
    return PlanRecipe(
        given_model(options),
        training,
        fleet,
        space,
        sequence_parallel=options.sequence_parallel,
        zero_stage=options.zero,
    )


def _executor(options: argparse.Namespace) -> Executor:
    return executor_of(options.workers) if options.ray is None else RayExecutor(options.ray, options.workers)


def _choices(recipe: PlanRecipe, standing: Sweep, found: Sequence[Synthesized]) -> tuple[Choice, ...]:
    """Every configuration that fits with its best schedule, the shortest step first."""
    choices = [
        _choice(recipe, verdict.key, row.schedule, row.step_ticks, row.peak_bytes, verdict.least_ticks)
        for verdict in standing.ranking()
        if (row := verdict.best) and row.step_ticks is not None
    ]
    by_key = {choice.key: choice for choice in choices}
    for answer in found:
        known = by_key.get(answer.key)
        if answer.step_ticks is not None and (known is None or answer.step_ticks < known.step_ticks):
            least = standing.verdicts[answer.key].least_ticks
            by_key[answer.key] = _choice(
                recipe, answer.key, "synthesized", answer.step_ticks, answer.peak_bytes, least
            )
    return tuple(sorted(by_key.values(), key=lambda choice: choice.step_ticks))


def _cut(recipe: PlanRecipe, choice: Choice, document: ScheduleDocument) -> Cut:
    problem = document.schedule.problem
    return Cut(
        stage_to_rank=problem.stage_to_rank,
        layers=tuple(costs.layers for costs in problem.stages),
        num_blocks=tuple(
            sum(layer.is_block for layer in layers) for layers in recipe.plan(choice.shape).stage_layers
        ),
        peak_bytes=document.metrics.peak_memory_bytes,
    )


def _choice(
    recipe: PlanRecipe, key: str, schedule: str, step_ticks: int, peak_bytes: int, least_ticks: int
) -> Choice:
    shape = Shape.of(key)
    return Choice(
        key=key,
        shape=shape,
        num_microbatches=recipe.num_microbatches(shape),
        schedule=schedule,
        step_ticks=step_ticks,
        least_ticks=least_ticks,
        peak_bytes=peak_bytes,
    )


def _document(recipe: PlanRecipe, choice: Choice, found: Sequence[Synthesized]) -> ScheduleDocument:
    """The schedule of the best choice."""
    for answer in found:
        if answer.key == choice.key and answer.document and choice.schedule == "synthesized":
            return answer.document
    return schedule_document(recipe.draft(choice.key), choice.schedule)


def _numbers(text: str) -> tuple[int, ...]:
    """An argument type: counts with commas."""
    read = whole_number(1, MOST_DEGREE)
    return tuple(dict.fromkeys(read(part) for part in text.split(",")))


def _names(names: type[Name]) -> Callable[[str], tuple[Name, ...]]:
    def read(text: str) -> tuple[Name, ...]:
        known = {name.value: name for name in names}
        for part in text.split(","):
            if part not in known:
                raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(known)}")
        return tuple(dict.fromkeys(known[part] for part in text.split(",")))

    return read


def _schedules(text: str) -> tuple[str, ...]:
    given = tuple(dict.fromkeys(text.split(",")))
    for name in given:
        if name not in SCHEDULES:
            raise argparse.ArgumentTypeError(f"{name!r} is no schedule of a plan: use {', '.join(SCHEDULES)}")
    return given
