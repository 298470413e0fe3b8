"""What is replayed: one large schedule for speed, and schedules of a profile over ever slower networks."""

from synth.topology import Duplex, Link, SharedBy, Topology, TransferBytes

# Speed: ranks, chunks per rank, microbatches, and the passes of half a stage of the 1.5B profile in 10 µs.
RANKS, CHUNKS, MICROBATCHES = 16, 2, 64
TICKS = {"F": 926, "B": 904, "W": 467}
TRANSFER_TICKS = 60
SAMPLES, SIGMA, REPEATS, PLAIN_REPLAYS = 1000, 0.05, 5, 20

# Ranking: arXiv 2401.10241, 1.5B: microbatches of 6 sequences of 1024 tokens, hidden size 2304, 2 bytes each.
INSTANCE = "zb-1.5b-m24"
BOUNDARY_BYTES = 6 * 1024 * 2304 * 2
LOOP_ONE, LOOP_TWO, V_TWO = (1, "loop"), (2, "loop"), (2, "v")
SCHEDULES = {
    "gpipe": LOOP_ONE,
    "1f1b": LOOP_ONE,
    "zb-h1": LOOP_ONE,
    "zb-h2": LOOP_ONE,
    "interleaved-1f1b": LOOP_TWO,
    "v-half": V_TWO,
    "v-zb": V_TWO,
}
NVLINK = Link(latency_s=2e-6, bytes_per_s=300e9, shared_by=SharedBy.RANK)
NETWORKS_GB_PER_S = (100, 12.5, 3.125, 1.25)
"""Of the one NIC of a node: 800, 100, 25 and 10 Gbit/s."""


def two_nodes(gb_per_s: float, duplex: Duplex = Duplex.FULL) -> Topology:
    """Two nodes of four ranks, each node with one NIC."""
    return Topology(
        nodes=((0, 1, 2, 3), (4, 5, 6, 7)),
        inside=NVLINK,
        between=Link(latency_s=5e-6, bytes_per_s=gb_per_s * 1e9, duplex=duplex, shared_by=SharedBy.NODE),
        transfer_bytes=TransferBytes(activation=BOUNDARY_BYTES, gradient=BOUNDARY_BYTES),
    )


def nodes_of_four(ranks: int, shared_by: SharedBy, duplex: Duplex = Duplex.FULL) -> Topology:
    """Nodes of four ranks, every link of the same speed: a transfer takes TRANSFER_TICKS of 1 µs."""
    link = Link(latency_s=0, bytes_per_s=1e6, duplex=duplex, shared_by=shared_by)
    return Topology(
        nodes=tuple(tuple(range(first, first + 4)) for first in range(0, ranks, 4)),
        inside=link,
        between=link,
        transfer_bytes=TransferBytes(activation=TRANSFER_TICKS, gradient=TRANSFER_TICKS),
    )
