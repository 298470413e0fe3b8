"""``profile``: a problem from a user's own model, measured; or from a trace of a run."""

from __future__ import annotations

import argparse
import importlib.util
from enum import StrEnum
from typing import TYPE_CHECKING

from costmodels.hardware import find_gpu, find_link, gpu_names, link_names
from costmodels.measured.link_costs import LinkCosts, check_ranks, read_links, uniform_links
from costmodels.measured.profiled_problem import ProfiledProblem, profiled_problem
from costmodels.measured.profiles import Profile, Split
from costmodels.measured.traces import read_traces, traced_problem, with_traced_times
from costmodels.planning import Pipeline
from costmodels.roofline import Efficiencies
from synth.cli.arguments import add_json_argument, add_name_argument, seconds, whole_number
from synth.cli.exit_codes import DONE
from synth.cli.profiles import profile_json, show_profile, show_trace, trace_json
from synth.cli.showing import check_output_option
from synth.cli.streams import Printer, complain, print_json
from synth.document import read_problem, write_problem
from synth.errors import InputError
from synth.files import read_text, write_whole
from synth.memory import parse_size
from synth.placement import PlacementKind, place
from synth.problem import Objective, Problem

if TYPE_CHECKING:
    from costmodels.measured.profiling import Bench

MOST_RANKS = 1024
MOST_STAGES = 4096
COARSE_ROUNDING = 0.01
"""A larger rounding error of an op is said."""
MICROBATCHES_PER_RANK = 4
DEFAULT_TICK_S = 1e-6


class Device(StrEnum):
    """Where a model can run."""

    CPU = "cpu"
    CUDA = "cuda"


class Splits(StrEnum):
    """How a backward is divided; ``both`` measures both ways, and the problem takes the deferred one."""

    DEFERRED = "deferred"
    NATIVE = "native"
    BOTH = "both"
    NONE = "none"

    @property
    def ways(self) -> tuple[Split, ...]:
        """What to measure, the problem's first."""
        return (Split.DEFERRED, Split.NATIVE) if self is Splits.BOTH else (Split(self.value),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``profile`` takes."""
    parser.add_argument(
        "factory",
        nargs="?",
        metavar="FACTORY",
        help="module:function that returns (layers, sample) or (layers, sample, loss)",
    )
    _add_pipeline_arguments(parser)
    _add_measuring_arguments(parser)
    _add_other_sources(parser)
    parser.add_argument("-o", "--output", metavar="PROBLEM", help="write the problem document, - for stdout")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Measure a model's stages, or take their times from traces, and turn them into a problem."""
    check_output_option(options)
    _check_sources(options)
    return _from_traces(options) if options.trace else _from_model(options)


def _add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ranks", type=whole_number(1, MOST_RANKS), metavar="P", help="pipeline ranks (default: the stages)")
    stages = parser.add_mutually_exclusive_group()
    stages.add_argument("--stages", type=whole_number(1, MOST_STAGES), metavar="S", help="stages in all")
    stages.add_argument("--chunks", type=whole_number(1, MOST_STAGES), metavar="V", help="stages per rank")
    stages.add_argument(
        "--cut", type=_counts, metavar="N,N,…", help="layers of every stage (default: balanced as measured)"
    )
    named = [PlacementKind.LOOP, PlacementKind.V, PlacementKind.WAVE]
    add_name_argument(
        parser,
        "--placement",
        named,
        help_text="stages to ranks (default loop; with several chunks v or wave)",
    )
    add(
        "--microbatches",
        type=whole_number(1),
        metavar="M",
        help=f"per iteration (default {MICROBATCHES_PER_RANK} per rank)",
    )
    add_name_argument(parser, "--objective", list(Objective), help_text="what to minimise (default makespan)")
    add("--memory-limit", metavar="X", help="what a rank may hold: bytes, 12GiB, or a multiple such as 0.5x")
    add(
        "--optimizer-copies",
        type=whole_number(0, 8),
        default=2,
        metavar="N",
        help="tensors of a weight's size that the optimizer keeps (default %(default)s: Adam; 6: Adam with "
        "full-precision copies of half-precision weights)",
    )
    add("--tick-seconds", type=seconds, metavar="S", help=f"length of a tick (default {DEFAULT_TICK_S:g})")
    links = parser.add_mutually_exclusive_group()
    links.add_argument("--link", metavar="NAME", help=f"between all ranks: {', '.join(link_names())}")
    links.add_argument("--links", metavar="LINKS", help="measured by python -m costmodels.measured.links")


def _add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_name_argument(
        parser, "--split", list(Splits), help_text="how the backward divides (default deferred)"
    )
    add_name_argument(
        parser, "--device", list(Device), help_text="where to run (default cuda where there is one)"
    )
    add("--repeats", type=whole_number(1), default=20, metavar="N", help="of every op (default %(default)s)")
    add("--warm-up", type=whole_number(1), default=3, metavar="N", help="not counted (default %(default)s)")
    add("--threads", type=whole_number(1, 1024), metavar="N", help="of the CPU (default: as torch has them)")
    add("--shapes-only", action="store_true", help="run nothing: estimate from shapes, times for --gpu")
    add("--gpu", metavar="NAME", help=", ".join(gpu_names()))


def _add_other_sources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--trace",
        action="append",
        metavar="TRACE",
        help="instead of FACTORY: a profiler trace with PP: ranges; give it once for each rank",
    )
    add("--onto", metavar="PROBLEM", help="with --trace: the problem whose times to replace")


def _counts(text: str) -> tuple[int, ...]:
    """An argument type: layers of every stage."""
    read = whole_number(1, or_else="several with commas between")
    return tuple(read(part) for part in text.split(","))


def _check_sources(options: argparse.Namespace) -> None:
    if options.trace and options.factory is not None:
        raise InputError("FACTORY and --trace are both given: give one or the other")
    if not options.trace and options.factory is None:
        raise InputError("neither FACTORY nor --trace is given: give module:function")
    if options.onto is not None and not options.trace:
        raise InputError("--onto is given without --trace: name the traces to take times from")
    if options.onto is not None and options.tick_seconds is not None:
        raise InputError(
            "--onto and --tick-seconds are both given: the problem has a tick, leave out the latter"
        )
    if options.shapes_only != (options.gpu is not None):
        raise InputError("--shapes-only and --gpu go together: give both, or neither to measure")


def _from_traces(options: argparse.Namespace) -> int:
    traced = read_traces({path: read_text(path, wanted="a trace of fewer steps") for path in options.trace})
    if options.onto is None:
        problem = traced_problem(traced, options.tick_seconds or DEFAULT_TICK_S)
    else:
        problem = with_traced_times(read_problem(read_text(options.onto), options.onto), traced)
    _write(problem, options)
    if options.json:
        print_json(trace_json(problem, traced))
    else:
        show_trace(problem, traced, Printer(options.output))
    return DONE


def _from_model(options: argparse.Namespace) -> int:
    pipeline = _pipeline(options)
    links = _links(options, pipeline.num_ranks)
    profiles = _profiles(options, pipeline)
    made = profiled_problem(profiles[0], pipeline, links, options.memory_limit)
    _write(made.problem, options)
    if options.json:
        print_json(profile_json(made, profiles))
    else:
        show_profile(made, profiles, Printer(options.output))
    _warn(made)
    return DONE


def _profiles(options: argparse.Namespace, pipeline: Pipeline) -> list[Profile]:
    """What torch measures; only here is it imported."""
    if importlib.util.find_spec("torch") is None:
        raise InputError("measuring needs torch, which is not installed: pip install 'pipesynth[runtime]'")
    from costmodels.measured.profiling import Cutting, profile_model

    limit = options.memory_limit
    is_multiple = limit is not None and limit.strip().lower().endswith("x")
    cutting = Cutting(
        stage_to_rank=place(pipeline.kind, pipeline.num_ranks, pipeline.num_stages).stage_to_rank,
        counts=options.cut,
        limit_bytes=None if limit is None or is_multiple else parse_size(limit),
    )
    ways = (options.split or Splits.DEFERRED).ways
    return profile_model(
        options.factory, cutting, ways, _bench(options), optimizer_copies=options.optimizer_copies
    )


def _bench(options: argparse.Namespace) -> Bench:
    from costmodels.measured.profiling import ShapesBench, real_bench
    from costmodels.measured.timing import Repetitions

    if options.shapes_only:
        return ShapesBench(find_gpu(options.gpu))
    repetitions = Repetitions(warm_up=options.warm_up, repeats=options.repeats)
    return real_bench(options.device, repetitions, options.threads)


def _pipeline(options: argparse.Namespace) -> Pipeline:
    num_ranks, chunks = _ranks_and_chunks(options)
    usual = {1: PlacementKind.LOOP, 2: PlacementKind.V}.get(chunks, PlacementKind.WAVE)
    return Pipeline(
        num_ranks=num_ranks,
        num_microbatches=options.microbatches or MICROBATCHES_PER_RANK * num_ranks,
        chunks=chunks,
        kind=options.placement or usual,
        objective=options.objective or Objective.MAKESPAN,
        tick_seconds=options.tick_seconds or DEFAULT_TICK_S,
    )


def _ranks_and_chunks(options: argparse.Namespace) -> tuple[int, int]:
    stages = len(options.cut) if options.cut else options.stages
    ranks: int | None = options.ranks
    if stages is None:
        if ranks is None:
            raise InputError(
                "neither --ranks nor --stages nor --cut is given: say how many stages to cut into"
            )
        return ranks, options.chunks or 1
    ranks = ranks or stages
    if stages % ranks:
        raise InputError(f"{stages} stages are given with --ranks {ranks}: give a multiple of {ranks}")
    return ranks, stages // ranks


def _links(options: argparse.Namespace, num_ranks: int) -> LinkCosts | None:
    if options.links is not None:
        links = read_links(read_text(options.links, wanted="a file of measured links"), options.links)
        check_ranks(links, num_ranks)
        return links
    if options.link is None:
        return None
    link, share = find_link(options.link), Efficiencies().link
    source = f"{link.name} at {share:g} of its peak ({link.source})"
    return uniform_links(num_ranks, link.latency_s, share * link.bytes_per_s, source)


def _write(problem: Problem, options: argparse.Namespace) -> None:
    if options.output is not None:
        write_whole(options.output, write_problem(problem))


def _warn(made: ProfiledProblem) -> None:
    if made.rounding_error > COARSE_ROUNDING:
        complain(f"rounding changes an op by up to {made.rounding_error:.1%}: give a shorter --tick-seconds")
