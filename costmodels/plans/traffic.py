"""What travels on a cluster: activations between pipeline ranks, and weight gradients between replicas."""

from __future__ import annotations

from functools import cache

from costmodels.plans.fleet import Fleet
from costmodels.plans.seats import Seats
from costmodels.roofline import transfer_seconds


def transfer_matrix_s(fleet: Fleet, seats: Seats, size_bytes: int) -> list[list[float]]:
    """Seconds of a transfer for every pair of ranks: that of the replica with the slowest way.

    Parameters
    ----------
    fleet, seats
        The links, and who sits where.
    size_bytes
        What one GPU sends.
    """

    @cache
    def seconds(flows: int) -> float:
        return transfer_seconds(size_bytes, fleet.transfer_link(flows), fleet.cluster.efficiencies)

    ranks = range(seats.num_ranks)
    return [[0.0 if a == b else seconds(seats.flows(a, b)) for b in ranks] for a in ranks]


def all_reduce_s(fleet: Fleet, seats: Seats, rank: int, size_bytes: int) -> float:
    """Seconds of the sum of a rank's weight gradients over its replicas: one ring over all of them.

    2(d - 1) steps, each of which sends a d-th of the bytes over the slowest link of the ring (Patarasuk,
    Yuan, J. Parallel Distrib. Comput. 69, 2009). The rings of all ranks run at once: where they
    share a node's port they share its bandwidth. The time of the additions is left out;
    ZeRO-1's reduce-scatter and all-gather are counted as the same.
    """
    d = seats.replicas
    link = fleet.link(seats.rings[rank])
    return 2 * (d - 1) * transfer_seconds(-(-size_bytes // d), link, fleet.cluster.efficiencies)
