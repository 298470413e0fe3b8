"""The setting of arXiv 2605.24006: a model, a grid of machines, depths and batches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from costmodels.described import Style, describe_model
from costmodels.layers import Layer, model_layers
from costmodels.optimizer_state import static_bytes
from costmodels.training import Training
from synth import Links, Objective, OpCost, OpKind, Problem, StageCosts, uniform_problem
from synth.simulate import Network, network_over
from synth.topology import AllReduce, Link, SharedBy, Topology, TransferBytes

BLOCKS, HIDDEN, SEQUENCE = 128, 4096, 4096
HEADS = 64
"""The paper has 80, which do not divide 4096. Attention is as wide as the hidden state whatever their number,
and a fused kernel keeps no scores, so neither times nor transfers depend on it."""

TICK_S = 1e-7
FLOPS_PER_S, BYTES_PER_S, LATENCY_S = 1e15, 50e9, 500e-9
"""The medium point, about a DGX H100."""

STEP = 4
"""Slow is a quarter of medium, fast four times: our choice, the factors are not in the text at hand."""
SPEEDS = {"slow": 1 / STEP, "medium": 1.0, "fast": float(STEP)}

DEPTHS, BATCHES = (4, 8, 16), (4, 8, 16, 32, 64)
"""Depths and microbatches of one sequence; a batch is no smaller than the depth."""

SEARCHED = ((8, 8), (8, 32))
"""Depth and microbatches of the points at which schedules are synthesized."""
SEARCH_S, SEED = (2.0, 5.0, 1.0), 0
"""Seconds for two chunks in a loop, in a V, and one stage per rank; one thread each, two at a time."""

MEMORIES = {"V-Min's": "v-min", "V-Half's": "v-half", "1F1B's": "1f1b", "Seq1F1B's": "seq1f1b"}
"""Equal memory: no rank may hold more than the fullest rank of this schedule."""

SLICED = "seq1f1b"
"""The one that cuts microbatches; within its memory, schedules of the same slices are searched."""

TWO_WAVES = "hanayo, 2 waves"
PAPER = ("gpipe", "1f1b", "chimera", "chimera-asymmetric", "hanayo", TWO_WAVES)
"""The schedules that the paper compares, as far as they exist here."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One machine of the grid.

    Parameters
    ----------
    compute, network
        ``slow``, ``medium`` or ``fast``.
    step
        How many times slower than medium slow is, and faster fast.
    """

    compute: str
    network: str
    step: float = STEP

    @property
    def flops_per_s(self) -> float:
        """Of one rank."""
        return FLOPS_PER_S * self._factor(self.compute)

    @property
    def link(self) -> Link:
        """What two neighbours have between them, each way for itself; the latency is the same everywhere."""
        speed = BYTES_PER_S * self._factor(self.network)
        return Link(latency_s=LATENCY_S, bytes_per_s=speed, shared_by=SharedBy.PAIR)

    def _factor(self, speed: str) -> float:
        return {"slow": 1 / self.step, "medium": 1.0, "fast": self.step}[speed]


CELLS = tuple(Cell(compute, network) for compute in SPEEDS for network in SPEEDS)


def training() -> Training:
    """One sequence per microbatch, bf16, a fused attention kernel, no recomputation."""
    return Training(microbatch_size=1, sequence_length=SEQUENCE)


def block() -> Layer:
    """One of the equal blocks, after GPT; embedding and head are left out: the paper counts blocks."""
    model = describe_model(Style.GPT, layers=1, hidden=HIDDEN, heads=HEADS, vocabulary=1, positions=SEQUENCE)
    return next(layer for layer in model_layers(model, training()) if layer.is_block)


def stage(cell: Cell, blocks: int) -> StageCosts:
    """The costs of so many blocks: floating-point operations over the rank's rate, nothing else."""
    one = block()

    def ticks(kind: OpKind) -> int:
        return blocks * round(one.flops(kind) / cell.flops_per_s / TICK_S)

    kept, for_w = blocks * one.kept_bytes, blocks * one.held_for_w_bytes
    forward, b, w = ticks(OpKind.F), ticks(OpKind.B), ticks(OpKind.W)
    return StageCosts(
        F=OpCost(ticks=forward, alloc_bytes=kept),
        B=OpCost(ticks=b, alloc_bytes=max(0, for_w - kept), free_bytes=max(0, kept - for_w)),
        W=OpCost(ticks=w, free_bytes=for_w),
        BW=OpCost(ticks=b + w, free_bytes=kept),
        static_bytes=blocks * static_bytes(one, training()).total,
    )


def transfer_bytes() -> int:
    """The hidden state of a microbatch, or its gradient, in half precision."""
    return 2 * SEQUENCE * HIDDEN


def transfer_ticks(cell: Cell, size_bytes: int) -> int:
    """Of one transfer that queues for nothing."""
    return round(cell.link.transfer_s(size_bytes) / TICK_S)


def problem(cell: Cell, depth: int, batch: int) -> Problem:
    """The model in one stage per rank."""
    chain = uniform_problem(
        depth,
        batch,
        stage(cell, BLOCKS // depth),
        transfer_ticks=transfer_ticks(cell, transfer_bytes()),
        objective=Objective.MAKESPAN,
        name=f"{cell.compute} compute, {cell.network} network",
    )
    return replace(chain, tick_seconds=TICK_S, links=Links.EXCLUSIVE)


def network(cell: Cell, cut: Problem, *, overlaps: bool = True, sums: bool = False) -> Network:
    """Every rank on a node of its own, a full-duplex link between any two.

    With ``sums``, replicas of a stage add up their gradients in a ring when the last of them is done.
    """
    topology = Topology(
        nodes=tuple((rank,) for rank in range(cut.num_ranks)),
        between=cell.link,
        transfer_bytes=TransferBytes(activation=transfer_bytes(), gradient=transfer_bytes()),
        all_reduce=AllReduce(replicas=1, weight_gradient_bytes=gradient_bytes(cut)) if sums else None,
    )
    return network_over(topology, cut, overlaps=overlaps)


def gradient_bytes(cut: Problem) -> tuple[int, ...]:
    """Of every stage of the model: its share of all, as it has of the time."""
    forward: dict[int, int] = defaultdict(int)
    for stage, costs in enumerate(cut.stages):
        forward[cut.feeds[stage].model_stage if cut.feeds else stage] += costs.F.ticks
    total = BLOCKS * block().parameters * training().gradient_bytes
    return tuple(total * forward[stage] // sum(forward.values()) for stage in range(len(forward)))


SENSITIVITY = tuple(Cell(compute, network, step=10.0) for compute in SPEEDS for network in SPEEDS)
"""The same grid with slow a tenth and fast ten times, at p = m = 8 only."""
