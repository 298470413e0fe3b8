"""``simulate``: replays a schedule's orders, over a network if asked."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from synth.cli.arguments import add_json_argument, add_schedule_argument, add_seed_argument, whole_number
from synth.cli.exit_codes import DONE
from synth.cli.networks import add_network_arguments, load_topology, network_of
from synth.cli.streams import Printer, print_json
from synth.document import ScheduleDocument, read_schedule
from synth.files import read_text
from synth.report import channel_table
from synth.schedule import Schedule
from synth.simulate import (
    ChannelUse,
    JitterResult,
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
    parser.add_argument("--jitter", type=float, metavar="SIGMA", help="noise per op, as a share of its ticks")
    parser.add_argument(
        "--samples", type=whole_number(1), default=100, metavar="N", help="replays under jitter"
    )
    add_seed_argument(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Replay a schedule's orders on its problem's costs, each rank from its planned first start."""
    topology = load_topology(options)
    document = read_schedule(read_text(options.schedule), options.schedule)
    network = network_of(options, topology, document.schedule.problem)
    simulation = replay_over(network, document.schedule)
    noisy = None if options.jitter is None else _with_jitter(options, document.schedule, network)
    if options.json:
        print_json(_answer(options, document, topology, simulation, noisy))
        return DONE
    _show(options, document, topology, simulation)
    if noisy is not None:
        print(
            f"under {options.jitter:.1%} noise, {options.samples} samples: mean {noisy.mean:.0f}, "
            f"median {noisy.p50}, 95th percentile {noisy.p95}, worst {noisy.max}"
        )
    return DONE


def _with_jitter(options: argparse.Namespace, schedule: Schedule, network: Network) -> JitterResult:
    return replay_with_jitter(
        schedule, sigma=options.jitter, samples=options.samples, seed=options.seed, network=network
    )


def _answer(
    options: argparse.Namespace,
    document: ScheduleDocument,
    topology: Topology | None,
    simulation: Simulation,
    noisy: JitterResult | None,
) -> dict[str, Any]:
    problem = document.schedule.problem
    links = "topology" if topology else (options.links or problem.links).value
    answer = {
        "objective": problem.objective.value,
        "planned": document.metrics.value(problem.objective),
        "value": simulation.value,
        "slow_down": _slow_down(document, simulation),
        "links": links,
        "topology": topology.name if topology else None,
        "overlap": not options.no_overlap,
        "agrees": simulation.schedule.ranks == document.schedule.ranks,
        **asdict(simulation.metrics),
        "all_reduce_ticks": simulation.all_reduce_ticks,
        "transfer_wait_ticks": simulation.waited_ticks,
        "channels": [asdict(use) for use in channel_uses(simulation)],
    }
    if noisy is not None:
        answer["jitter"] = {
            "sigma": options.jitter,
            "samples": options.samples,
            "seed": options.seed,
            "mean": noisy.mean,
            "p50": noisy.p50,
            "p95": noisy.p95,
            "max": noisy.max,
        }
    return answer


def _slow_down(document: ScheduleDocument, simulation: Simulation) -> float | None:
    """The value as a multiple of the planned one, None where the document claims none above 0."""
    planned = document.metrics.value(document.schedule.problem.objective)
    return simulation.value / planned if planned else None


def _show(
    options: argparse.Namespace,
    document: ScheduleDocument,
    topology: Topology | None,
    simulation: Simulation,
) -> None:
    objective, metrics = document.schedule.problem.objective, simulation.metrics
    planned = document.metrics.value(objective)
    print(
        f"{objective} {metrics.value(objective)} ticks (planned {planned}), bubble {metrics.bubble_ratio:.4f}"
    )
    agrees = simulation.schedule.ranks == document.schedule.ranks
    print("every op starts and ends as planned" if agrees else "ops differ from their planned times")
    if topology is None and not options.no_overlap:
        return
    slow_down = _slow_down(document, simulation)
    if slow_down is not None:
        print(
            f"slow-down {slow_down:.4f}x against the plan, "
            f"transfers wait {simulation.waited_ticks} ticks in all"
        )
    if simulation.all_reduce_ticks:
        print(f"the all-reduces add {simulation.all_reduce_ticks} ticks")
    uses = channel_uses(simulation)
    if uses:
        print(f"most contended link: {_contended(uses[0])}")
        Printer().table(channel_table(uses))


def _contended(use: ChannelUse) -> str:
    waited = f"transfers waited {use.waited_ticks} ticks for it" if use.waited_ticks else "nothing waited"
    return f"{use.channel}, busy {use.busy_share:.1%}, {waited}"
