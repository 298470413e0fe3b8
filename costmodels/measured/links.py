"""Latency and bandwidth between all ranks, by ping-pong; every process runs it.

torchrun --nproc-per-node 4 -m costmodels.measured.links -o links.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import distributed as dist

from costmodels.measured.link_costs import LinkCosts, fit_link, write_links
from runtime.world import World, join
from synth.errors import InputError
from synth.files import write_whole

SIZES = tuple(4**power for power in range(5, 13))
"""Bytes: 1 KiB to 16 MiB."""
WRONG_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(prog="costmodels.measured.links", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "-o", "--output", required=True, metavar="LINKS", help="write the links, - for stdout"
    )
    parser.add_argument("--rounds", type=int, default=20, help="of every size (default %(default)s)")
    parser.add_argument(
        "--largest", type=int, default=SIZES[-1], help="bytes of a message (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        if "RANK" not in os.environ:
            raise InputError("this process has no rank: start it by torchrun, one process for each rank")
        probe(options.output, options.rounds, options.largest)
    except InputError as error:
        print(f"pipesynth: {error}", file=sys.stderr, flush=True)
        return WRONG_INPUT
    return 0


def probe(output: str, rounds: int, largest: int) -> None:
    """Measure the links between the processes that ``torchrun`` started, and have rank 0 write them.

    Raises
    ------
    InputError
        When there is only one process, or no size to measure.
    """
    size = int(os.environ["WORLD_SIZE"])
    if size < 2:
        raise InputError("one process is started, and a link is between two: start one for each rank")
    sizes = [given for given in SIZES if given <= largest]
    if len(sizes) < 2 or rounds < 1:
        raise InputError(
            f"{rounds} rounds up to {largest} bytes are given: give at least 1 round and {SIZES[1]} bytes"
        )
    links = measure_links(join(size), sizes, rounds)
    if links is not None:
        write_whole(output, write_links(links))
    dist.barrier()
    dist.destroy_process_group()


def measure_links(
    world: World, sizes: Sequence[int], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> LinkCosts | None:
    """Ping-pong between every two ranks, one pair at a time, the others waiting.

    Parameters
    ----------
    world
        All ranks; every one calls this.
    sizes
        Bytes of a message.
    rounds
        Of every size; the median counts, half of a round is one way.
    clock
        Seconds.

    Returns
    -------
    The links on rank 0, None elsewhere.
    """
    p = world.num_ranks
    own: dict[tuple[int, int], tuple[float, float]] = {}
    for pair in combinations(range(p), 2):
        dist.barrier()
        if world.rank in pair:
            times = {size: _one_way(world, pair, size, rounds, clock) for size in sizes}
            if world.rank == pair[0]:
                own[pair] = fit_link(times)
    gathered: list[dict[tuple[int, int], tuple[float, float]] | None] = [None] * p
    dist.all_gather_object(gathered, own)
    if world.rank:
        return None
    found = {pair: link for part in gathered if part for pair, link in part.items()}
    # A round goes there and back: both directions of a pair are taken for equal.
    table = {**found, **{(b, a): link for (a, b), link in found.items()}}
    ranks = range(p)
    backend = dist.get_backend()
    return LinkCosts(
        latency_s=tuple(tuple(table.get((a, b), (0.0, 0.0))[0] for b in ranks) for a in ranks),
        bytes_per_s=tuple(tuple(table.get((a, b), (0.0, 0.0))[1] for b in ranks) for a in ranks),
        source=(
            f"ping-pong over {backend} on {world.device.type}, torch {torch.__version__}, {p} ranks, "
            f"{len(sizes)} sizes up to {max(sizes)} bytes, medians of {rounds} rounds, least squares"
        ),
    )


def _one_way(
    world: World, pair: tuple[int, int], size: int, rounds: int, clock: Callable[[], float]
) -> float:
    """Seconds one way between two ranks: half of the median round, behind one round that does not count."""
    message = torch.zeros(size, dtype=torch.uint8, device=world.device)
    taken = []
    for _ in range(rounds + 1):
        before = clock()
        if world.rank == pair[0]:
            dist.send(message, pair[1])
            dist.recv(message, pair[1])
        else:
            dist.recv(message, pair[0])
            dist.send(message, pair[0])
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        taken.append(clock() - before)
    return statistics.median(taken[1:]) / 2


if __name__ == "__main__":
    sys.exit(main())
