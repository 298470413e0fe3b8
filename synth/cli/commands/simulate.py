"""``simulate``: replays a schedule's orders, over a network if asked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from synth.cli.against import (
    add_timeline_arguments,
    check_timeline_options,
    compare_json,
    load_timeline,
    show_comparison,
    write_measured,
)
from synth.cli.arguments import (
    add_json_argument,
    add_schedule_argument,
    add_seed_argument,
    noise,
    whole_number,
)
from synth.cli.exit_codes import DONE
from synth.cli.networks import add_network_arguments, load_topology, network_of
from synth.cli.streams import Printer, print_json
from synth.document import ScheduleDocument, read_schedule
from synth.files import STANDARD_STREAM, read_text
from synth.problem import Problem
from synth.report import channel_table
from synth.schedule import Schedule
from synth.simulate import (
    ChannelUse,
    Network,
    Simulation,
    channel_uses,
    replay_over,
    replay_with_jitter,
)
from synth.topology import Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``simulate`` takes."""
    add_schedule_argument(parser)
    add_network_arguments(parser)
    parser.add_argument("--jitter", type=noise, metavar="SIGMA", help="noise per op, as a share of its ticks")
    parser.add_argument(
        "--samples", type=whole_number(1), default=100, metavar="N", help="replays under jitter"
    )
    add_seed_argument(parser)
    add_timeline_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Replay a schedule's orders on its problem's costs, each rank from its planned first start."""
    check_timeline_options(options)
    topology = load_topology(options)
    document = read_schedule(read_text(options.schedule), options.schedule)
    schedule = document.schedule
    network = network_of(options, topology, schedule.problem)
    simulation = replay_over(network, schedule)
    answer = _answer(options, document, topology, simulation)
    if options.jitter is not None:
        answer["jitter"] = _under_jitter(options, schedule, network)
    timeline = load_timeline(options)
    if timeline is not None:
        answer["against"] = compare_json(schedule, timeline)
    if options.json:
        print_json(answer)
    elif options.measured_problem != STANDARD_STREAM:
        _show(answer)
        if topology is not None or options.no_overlap:
            _show_network(answer, channel_uses(simulation))
        if topology is not None and topology.all_reduce is not None:
            _show_planned_sums(schedule.problem)
        if timeline is not None:
            show_comparison(schedule, timeline, answer["against"]["predicted_from_measured_ops"])
    if timeline is not None:
        write_measured(timeline, options)
    return DONE


def _answer(
    options: argparse.Namespace, document: ScheduleDocument, topology: Topology | None, simulation: Simulation
) -> dict[str, Any]:
    problem = document.schedule.problem
    planned = document.metrics.value(problem.objective)
    return {
        "objective": problem.objective.value,
        "planned": planned,
        "value": simulation.value,
        "slow_down": simulation.value / planned if planned else None,
        "links": "topology" if topology else (options.links or problem.links).value,
        "topology": topology.name if topology else None,
        "overlap": not options.no_overlap,
        "agrees": simulation.schedule.ranks == document.schedule.ranks,
        **asdict(simulation.metrics),
        "all_reduce_ticks": simulation.all_reduce_ticks,
        "transfer_wait_ticks": simulation.waited_ticks,
        "channels": [asdict(use) for use in channel_uses(simulation)],
    }


def _under_jitter(options: argparse.Namespace, schedule: Schedule, network: Network) -> dict[str, Any]:
    noisy = replay_with_jitter(
        schedule, sigma=options.jitter, samples=options.samples, seed=options.seed, network=network
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


def _show_planned_sums(problem: Problem) -> None:
    if any(costs.R is not None for costs in problem.stages):
        print(
            "sums of gradients that the schedule plans (R) take what it plans: no all-reduce is added to them"
        )


def _show_network(answer: dict[str, Any], uses: Sequence[ChannelUse]) -> None:
    if answer["slow_down"] is not None:
        print(
            f"slow-down {answer['slow_down']:.4f}x against the plan, "
            f"transfers wait {answer['transfer_wait_ticks']} ticks in all"
        )
    if answer["all_reduce_ticks"]:
        print(f"the all-reduces add {answer['all_reduce_ticks']} ticks")
    if uses:
        print(f"most contended link: {_contended(uses[0])}")
        Printer().table(channel_table(uses))


def _contended(use: ChannelUse) -> str:
    waited = f"transfers waited {use.waited_ticks} ticks for it" if use.waited_ticks else "nothing waited"
    return f"{use.channel}, busy {use.busy_share:.1%}, {waited}"
