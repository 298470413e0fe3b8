"""``simulate``: replays a schedule's orders."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

from synth.cli.arguments import (
    add_json_argument,
    add_name_argument,
    add_schedule_argument,
    add_seed_argument,
    whole_number,
)
from synth.cli.exit_codes import DONE
from synth.cli.streams import Printer, check_output, print_json
from synth.comparison import Times, compare_with_timeline, measured_problem
from synth.document import read_schedule, read_timeline, write_problem
from synth.errors import InputError
from synth.files import STANDARD_STREAM, read_text, write_whole
from synth.measured import Timeline
from synth.problem import Links
from synth.report import timeline_tables
from synth.schedule import Schedule, measure
from synth.simulate import replay, replay_with_jitter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``simulate`` takes."""
    add_schedule_argument(parser)
    add_name_argument(parser, "--links", list(Links), help_text="overrides the problem's links")
    parser.add_argument("--jitter", type=float, metavar="SIGMA", help="noise per op, as a share of its ticks")
    parser.add_argument(
        "--samples", type=whole_number(1), default=100, metavar="N", help="replays under jitter"
    )
    add_seed_argument(parser)
    parser.add_argument(
        "--against", metavar="TIMELINE", help="a timeline document of this schedule: compare plan and reality"
    )
    parser.add_argument(
        "--measured-problem",
        metavar="PROBLEM",
        help="write the problem with the timeline's costs, to plan with again; - for stdout",
    )
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Replay a schedule's orders on its problem's costs, each rank from its planned first start."""
    _check_options(options)
    document = read_schedule(read_text(options.schedule), options.schedule)
    schedule, objective = document.schedule, document.schedule.problem.objective
    replayed = replay(schedule, links=options.links)
    metrics = measure(replayed)
    answer: dict[str, Any] = {
        "objective": objective.value,
        "planned": document.metrics.value(objective),
        "value": metrics.value(objective),
        "links": replayed.problem.links.value,
        "agrees": replayed.ranks == schedule.ranks,
        **asdict(metrics),
    }
    if options.jitter is not None:
        answer["jitter"] = _under_jitter(schedule, options)
    timeline = _read_against(options)
    if timeline is not None:
        answer["against"] = _against(schedule, timeline)
        if options.measured_problem is not None:
            write_whole(options.measured_problem, write_problem(measured_problem(timeline)))
    if options.json:
        print_json(answer)
    elif options.measured_problem != STANDARD_STREAM:
        _show(answer)
        if timeline is not None:
            _show_against(schedule, timeline, answer["against"]["predicted_from_measured_ops"])
    return DONE


def _read_against(options: argparse.Namespace) -> Timeline | None:
    if options.against is None:
        return None
    return read_timeline(read_text(options.against), options.against)


def _under_jitter(schedule: Schedule, options: argparse.Namespace) -> dict[str, Any]:
    noisy = replay_with_jitter(
        schedule, sigma=options.jitter, samples=options.samples, seed=options.seed, links=options.links
    )
    return {
        "sigma": options.jitter,
        "samples": options.samples,
        "seed": options.seed,
        "mean": noisy.mean,
        "p50": noisy.p50,
        "p95": noisy.p95,
        "max": noisy.max,
    }


def _show(answer: dict[str, Any]) -> None:
    print(
        f"{answer['objective']} {answer['value']} ticks (planned {answer['planned']}), "
        f"bubble {answer['bubble_ratio']:.4f}"
    )
    print(
        "every op starts and ends as planned" if answer["agrees"] else "ops differ from their planned times"
    )
    jitter = answer.get("jitter")
    if jitter is not None:
        print(
            f"under {jitter['sigma']:.1%} noise, {jitter['samples']} samples: mean {jitter['mean']:.0f}, "
            f"median {jitter['p50']}, 95th percentile {jitter['p95']}, worst {jitter['max']}"
        )


def _check_options(options: argparse.Namespace) -> None:
    if options.measured_problem is not None and options.against is None:
        raise InputError(
            "--measured-problem is given without --against: name the timeline to take costs from"
        )
    if options.json and options.measured_problem == STANDARD_STREAM:
        raise InputError("--json and --measured-problem - both write to standard output: give a file")
    check_output(options.measured_problem)


def _against(schedule: Schedule, timeline: Timeline) -> dict[str, Any]:
    """The comparison, and what the orders take when the measured costs are replayed."""
    comparison = compare_with_timeline(schedule, timeline)
    again = Times(_replayed_s(timeline), comparison.makespan.measured_s)
    return {
        "makespan": _times_json(comparison.makespan),
        "rank_span": _times_json(comparison.rank_span),
        "predicted_from_measured_ops": _times_json(again),
        "ranks": [
            {
                "rank": row.rank,
                "span": _times_json(row.span),
                "busy": _times_json(row.busy),
                "planned_peak_bytes": row.planned_peak_bytes,
                "measured_peak_bytes": row.measured_peak_bytes,
            }
            for row in comparison.ranks
        ],
        "ops": [
            {"op": row.kind.value, "stage": row.stage, "count": row.count, **_times_json(row.times)}
            for row in comparison.ops
        ],
    }


def _replayed_s(timeline: Timeline) -> float:
    """The makespan of a replay of the timeline's orders on its measured costs."""
    measured = replace(timeline.schedule, problem=measured_problem(timeline))
    return measure(replay(measured)).makespan * timeline.problem.tick_seconds


def _times_json(times: Times) -> dict[str, float]:
    return {**asdict(times), "error": times.error}


def _show_against(schedule: Schedule, timeline: Timeline, again: dict[str, float]) -> None:
    printer = Printer()
    for table in timeline_tables(compare_with_timeline(schedule, timeline)):
        printer.table(table)
    printer.line(
        f"replayed on the measured costs, the orders take {again['planned_s']:.4g} s: "
        f"{again['error']:+z.1%} of what was measured"
    )
