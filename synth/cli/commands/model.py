"""``model``: a problem from a model's configuration and a machine."""

from __future__ import annotations

import argparse

from costmodels.architectures import MOST_BLOCKS
from costmodels.cluster import GPUS_PER_NODE, Cluster
from costmodels.fitting import memory_by_rank
from costmodels.hardware import Gpu, Link, find_gpu, find_link, gpu_names, link_names
from costmodels.planning import Pipeline, make_plan
from costmodels.training import Recompute, Training
from synth.cli.arguments import add_json_argument, add_name_argument, seconds, whole_number
from synth.cli.describing import (
    add_efficiency_argument,
    add_model_arguments,
    add_named_arguments,
    efficiencies,
    given_model,
)
from synth.cli.exit_codes import DONE, NO_SCHEDULE
from synth.cli.plans import plan_json, show_plan
from synth.cli.showing import check_output_option
from synth.cli.streams import Printer, complain, print_json
from synth.document import write_problem
from synth.errors import InputError
from synth.files import write_whole
from synth.memory import parse_size
from synth.placement import PlacementKind
from synth.problem import Objective

MOST_RANKS = 1024
MOST_MICROBATCHES = 2**20
MOST_TOKENS = 2**26
"""Of one sequence, and of sequences in a microbatch: beyond them sums leave 64 bits."""
COARSE_ROUNDING = 0.01
COARSE_TRANSFER_ROUNDING = 0.1
"""Larger rounding errors of an op, of a transfer are said; a transfer may be only a few ticks long."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``model`` takes."""
    add_model_arguments(parser)
    _add_pipeline_arguments(parser)
    _add_training_arguments(parser)
    _add_machine_arguments(parser)
    parser.add_argument("-o", "--output", metavar="PROBLEM", help="write the problem document, - for stdout")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Turn a model's configuration and a machine into a problem, and say what fits."""
    check_output_option(options)
    plan = make_plan(given_model(options), _training(options), _pipeline(options), _cluster(options))
    if options.output is not None:
        write_whole(options.output, write_problem(plan.problem))
    rows = memory_by_rank(plan)
    if options.json:
        print_json(plan_json(plan, rows))
    else:
        show_plan(plan, rows, Printer(options.output))
    _complain_of_rounding("an op", plan.rounding_error, COARSE_ROUNDING)
    _complain_of_rounding("a transfer", plan.transfer_rounding_error, COARSE_TRANSFER_ROUNDING)
    if all(row.microbatches for row in rows):
        return DONE
    short = [str(rank) for rank, row in enumerate(rows) if not row.microbatches]
    complain(f"no cut that fits was found: one microbatch is too much for rank {', '.join(short)}")
    return NO_SCHEDULE


def _complain_of_rounding(what: str, error: float, most: float) -> None:
    if error > most:
        complain(f"rounding changes {what} by up to {error:.1%}: give a shorter --tick-seconds")


def _add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--pp", type=whole_number(1, MOST_RANKS), required=True, metavar="P", help="pipeline ranks")
    add(
        "--microbatches",
        type=whole_number(1, MOST_MICROBATCHES),
        required=True,
        metavar="M",
        help="microbatches per iteration",
    )
    add("--chunks", type=whole_number(1, MOST_BLOCKS), metavar="V", help="stages per rank (default 1)")
    add("--stages", type=whole_number(1, MOST_BLOCKS), metavar="S", help="instead of --chunks: stages in all")
    named = [PlacementKind.LOOP, PlacementKind.V, PlacementKind.WAVE]
    add_name_argument(
        parser,
        "--placement",
        named,
        help_text="stages to ranks (default loop; with several chunks v or wave)",
    )
    add("--first", type=whole_number(0, MOST_BLOCKS), metavar="N", help="blocks of the first stage")
    add("--last", type=whole_number(0, MOST_BLOCKS), metavar="N", help="blocks of the last stage")
    add("--no-split", action="store_true", help="offer the whole backward only")
    add_name_argument(parser, "--objective", list(Objective), help_text="what to minimise (default makespan)")
    add(
        "--tick-seconds",
        type=seconds,
        default=1e-6,
        metavar="S",
        help="length of a tick (default %(default)s)",
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--microbatch", type=whole_number(1, MOST_TOKENS), required=True, metavar="B", help="sequences in one"
    )
    add("--seq", type=whole_number(1, MOST_TOKENS), required=True, metavar="S", help="tokens in a sequence")
    add(
        "--tp", type=whole_number(1), default=1, metavar="T", help="tensor-parallel GPUs per rank (default 1)"
    )
    add("--sequence-parallel", action="store_true", help="share the tokens between tensor-parallel regions")
    add("--ep", type=whole_number(1), default=1, metavar="E", help="expert-parallel degree (default 1)")
    add("--dp", type=whole_number(1), default=1, metavar="D", help="replicas of the pipeline (default 1)")
    add(
        "--zero",
        type=whole_number(0, 2),
        default=0,
        metavar="{0,1,2}",
        help="what replicas share (default 0)",
    )
    add_name_argument(
        parser, "--recompute", list(Recompute), help_text="what the backward computes again (default none)"
    )
    parser.set_defaults(recompute=Recompute.NONE)
    add_named_arguments(parser)


def _add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gpu", required=True, metavar="NAME", help=", ".join(gpu_names()))
    add(
        "--gpus-per-node",
        type=whole_number(1),
        default=GPUS_PER_NODE,
        metavar="N",
        help="default %(default)s",
    )
    links = ", ".join(link_names())
    add("--link", metavar="NAME", help=f"between all pipeline ranks: nvlink, {links}")
    add("--latency", type=seconds, metavar="S", help="of a transfer between ranks (default: the link's)")
    add("--network", metavar="NAME", help="between nodes (default: what the GPU usually has)")
    add("--memory-limit", metavar="X", help="what a GPU may hold, such as 72GiB (default: all but 4 GiB)")
    add_efficiency_argument(parser)


def _training(options: argparse.Namespace) -> Training:
    return Training(
        microbatch_size=options.microbatch,
        sequence_length=options.seq,
        tensor_parallel=options.tp,
        sequence_parallel=options.sequence_parallel,
        expert_parallel=options.ep,
        data_parallel=options.dp,
        zero_stage=options.zero,
        precision=options.dtype,
        gradient_bytes=options.gradient_bytes,
        attention=options.attention,
        recompute=options.recompute,
    )


def _pipeline(options: argparse.Namespace) -> Pipeline:
    chunks = _chunks(options)
    usual = {1: PlacementKind.LOOP, 2: PlacementKind.V}.get(chunks, PlacementKind.WAVE)
    return Pipeline(
        num_ranks=options.pp,
        num_microbatches=options.microbatches,
        chunks=chunks,
        kind=options.placement or usual,
        first_blocks=options.first,
        last_blocks=options.last,
        divided=not options.no_split,
        objective=options.objective or Objective.MAKESPAN,
        tick_seconds=options.tick_seconds,
        stages_given=options.stages is not None,
    )


def _chunks(options: argparse.Namespace) -> int:
    if options.stages is None:
        return int(options.chunks or 1)
    if options.chunks is not None:
        raise InputError("--chunks and --stages are both given: give one or the other")
    chunks, odd = divmod(options.stages, options.pp)
    if odd or not chunks:
        raise InputError(
            f"--stages {options.stages} is given with --pp {options.pp}: give a multiple of {options.pp}"
        )
    return int(chunks)


def _cluster(options: argparse.Namespace) -> Cluster:
    gpu = find_gpu(options.gpu)
    return Cluster(
        gpu=gpu,
        gpus_per_node=options.gpus_per_node,
        efficiencies=efficiencies(options.efficiency),
        network=None if options.network is None else find_link(options.network),
        rank_link=_rank_link(options.link, gpu),
        rank_latency_s=options.latency,
        limit_bytes=None if options.memory_limit is None else parse_size(options.memory_limit),
    )


def _rank_link(name: str | None, gpu: Gpu) -> Link | None:
    """The link between pipeline ranks, where one is named; plain NVLink is that of the GPU."""
    if name is None:
        return None
    return gpu.nvlink if name == "nvlink" else find_link(name)
