"""``simulate``: replays a schedule's orders."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from synth.cli.arguments import (
    add_json_argument,
    add_name_argument,
    add_schedule_argument,
    add_seed_argument,
    whole_number,
)
from synth.cli.exit_codes import DONE
from synth.cli.streams import print_json
from synth.document import read_schedule
from synth.files import read_text
from synth.problem import Links
from synth.schedule import measure
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
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Replay a schedule's orders on its problem's costs, each rank from its planned first start."""
    document = read_schedule(read_text(options.schedule), options.schedule)
    schedule = document.schedule
    replayed = replay(schedule, links=options.links)
    metrics = measure(replayed)
    objective = schedule.problem.objective
    planned = document.metrics.value(objective)
    answer: dict[str, Any] = {
        "objective": objective.value,
        "planned": planned,
        "value": metrics.value(objective),
        "links": replayed.problem.links.value,
        "agrees": replayed.ranks == schedule.ranks,
        **asdict(metrics),
    }
    if options.jitter is not None:
        noisy = replay_with_jitter(
            schedule, sigma=options.jitter, samples=options.samples, seed=options.seed, links=options.links
        )
        answer["jitter"] = {
            "sigma": options.jitter,
            "samples": options.samples,
            "seed": options.seed,
            "mean": noisy.mean,
            "p50": noisy.p50,
            "p95": noisy.p95,
            "max": noisy.max,
        }
    if options.json:
        print_json(answer)
        return DONE
    print(f"{objective} {answer['value']} ticks (planned {planned}), bubble {metrics.bubble_ratio:.4f}")
    print(
        "every op starts and ends as planned" if answer["agrees"] else "ops differ from their planned times"
    )
    if options.jitter is not None:
        jitter = answer["jitter"]
        print(
            f"under {options.jitter:.1%} noise, {options.samples} samples: mean {jitter['mean']:.0f}, "
            f"median {jitter['p50']}, 95th percentile {jitter['p95']}, worst {jitter['max']}"
        )
    return DONE
