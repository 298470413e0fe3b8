"""The GPUs of a pipeline, what connects them, and what each may hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from costmodels.hardware import Gpu, Link
from costmodels.roofline import Efficiencies, Machine
from costmodels.training import Training

RESERVE_BYTES = 4 * 2**30
"""What is at least kept free by default: for the driver's context, communication buffers, what a block holds
only while it runs, and fragmentation. An assumption; allocators and kernels differ."""
GPUS_PER_NODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The GPUs and what connects them.

    Parameters
    ----------
    gpu, gpus_per_node
        The kind of GPU, and how many NVLink connects.
    efficiencies
        Shares of the peaks.
    network
        Between nodes.
    rank_link
        Between any two pipeline ranks, or None for NVLink inside a node and the network between nodes.
    rank_latency_s
        Of a transfer between pipeline ranks, or None for that of the link.
    limit_bytes
        What one GPU may hold, or None for all but a reserve (:meth:`memory_limit_bytes`).
    """

    gpu: Gpu
    gpus_per_node: int = GPUS_PER_NODE
    efficiencies: Efficiencies = field(default_factory=Efficiencies)
    network: Link | None = None
    rank_link: Link | None = None
    rank_latency_s: float | None = None
    limit_bytes: int | None = None

    def memory_limit_bytes(self, transient_bytes: int = 0) -> int:
        """What one GPU may hold: what is given, or all but the reserve.

        The reserve is 4 GiB, or what a block holds only while it runs where that is more.
        """
        if self.limit_bytes is not None:
            return self.limit_bytes
        return max(0, self.gpu.memory_bytes - max(RESERVE_BYTES, transient_bytes))

    def link_within(self, gpus: int) -> Link:
        """What connects so many neighbouring GPUs."""
        return self.gpu.nvlink if gpus <= self.gpus_per_node else self.between_nodes

    @property
    def between_nodes(self) -> Link:
        """The network."""
        return self.network or self.gpu.network

    def machine(self, training: Training) -> Machine:
        """The GPU with the links of a stage: tensor-parallel peers are neighbours, experts' beyond them."""
        t = training.tensor_parallel
        return Machine(
            gpu=self.gpu,
            precision=training.precision,
            efficiencies=self.efficiencies,
            tensor_link=self.link_within(t),
            expert_link=self.link_within(t * training.expert_parallel),
        )

    def link_between(self, a: int, b: int, training: Training) -> Link:
        """What connects two pipeline ranks, with the latency given for them."""
        link = self._link_between(a, b, training)
        return link if self.rank_latency_s is None else replace(link, latency_s=self.rank_latency_s)

    def _link_between(self, a: int, b: int, training: Training) -> Link:
        """The link itself: a node holds neighbouring ranks, as many as fit into it."""
        if self.rank_link is not None:
            return self.rank_link
        per_node = max(1, self.gpus_per_node // (training.tensor_parallel * training.expert_parallel))
        return self.gpu.nvlink if a // per_node == b // per_node else self.between_nodes
