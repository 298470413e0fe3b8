"""The settings that are planned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from costmodels.architectures import read_model
from costmodels.cluster import Cluster
from costmodels.described import Style, describe_model
from costmodels.hardware import Link, find_gpu
from costmodels.model_shape import ModelShape
from costmodels.plans.fleet import Fleet, read_fleet
from costmodels.training import AttentionKernel, Precision, Training

GIB = 2**30

V100_LIMIT_BYTES = 14 * GIB
"""Of 16 GB: the rest for the driver, communication and what a block holds only while it runs."""
NIC = Link(name="25 Gb/s", bytes_per_s=25e9 / 8, latency_s=30e-6, source="one port per node; latency assumed")

GPT_SIZES = {"2.2B": (48, 1920), "3.8B": (64, 2176)}
"""Blocks and hidden size with these numbers of parameters; those of arXiv 2006.09503 were not at hand."""
GPT_HEADS, GPT_VOCABULARY, GPT_SEQUENCE = 32, 51200, 512
GPT_SETTINGS = ((8, 64), (8, 512), (16, 512), (32, 512), (64, 64), (64, 512), (64, 2048))
"""GPUs and sequences in a batch."""
ADDED = ((8, 64), (64, 512))
"""Those whose flushed plan is synthesized too."""

SPEED = (
    ("llama-3-8b", "16xh100", 64),
    *(("llama-3-70b", "64xh100", batch) for batch in (128, 512, 1024, 4096)),
)
"""Models, clusters and batches whose whole space is judged for its time."""

RUNTIME_LATENCY_S = 0.24e-3
"""What the zero-bubble papers' runtime adds to every transfer (results/2026-11-21-cost-models)."""

FAMILIES = {
    "1f1b": ("1f1b",),
    "zb-h1": ("zb-h1",),
    "interleaved": ("interleaved-1f1b", "group-interleaved-1f1b"),
    "v": ("v-min", "v-half", "v-zb"),
}
"""Schedules that a grid search may use; the last are those of arXiv 2405.15362."""


def gpt(size: str) -> ModelShape:
    """A GPT of so many parameters."""
    layers, hidden = GPT_SIZES[size]
    return describe_model(
        Style.GPT,
        layers=layers,
        hidden=hidden,
        heads=GPT_HEADS,
        vocabulary=GPT_VOCABULARY,
        positions=GPT_SEQUENCE,
    )


GPT_TRAINING = Training(
    microbatch_size=1,
    sequence_length=GPT_SEQUENCE,
    precision=Precision.FP16,
    gradient_bytes=2,
    attention=AttentionKernel.CORE,
)


def v100s(gpus: int) -> Fleet:
    """Servers of eight V100 of 16 GB, NVLink inside, 25 Gb/s between: as far as known the paper's."""
    cluster = Cluster(gpu=find_gpu("v100"), gpus_per_node=8, network=NIC, limit_bytes=V100_LIMIT_BYTES)
    return Fleet(cluster=cluster, num_gpus=gpus, shared_network=True, name=f"{gpus} V100")


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """A model whose depth, width, tensor degree and schedule are searched together."""

    name: str
    model: ModelShape
    sequence_length: int
    batch: int
    fleet: Fleet
    zero_stage: int = 0
    """1 where replicas share the optimizer's state."""


def hybrids(config: str) -> list[Hybrid]:
    """Llama-70B on 64 H100, and the largest model of arXiv 2405.15362 (Tables 2 and 3) on 40 A100."""
    llama, h100s, a100s = read_model(config), read_fleet("64xh100"), read_fleet("40xa100-80")
    slow = replace(a100s, cluster=replace(a100s.cluster, rank_latency_s=RUNTIME_LATENCY_S))
    large = describe_model(Style.GPT, layers=78, hidden=10240, heads=80, vocabulary=50304, positions=3072)
    return [
        Hybrid(name="llama-70b", model=llama, sequence_length=4096, batch=128, fleet=h100s),
        Hybrid(name="llama-70b", model=llama, sequence_length=4096, batch=1024, fleet=h100s),
        Hybrid(name="98.5B", model=large, sequence_length=1024, batch=160, fleet=a100s),
        Hybrid(name="98.5B", model=large, sequence_length=3072, batch=640, fleet=a100s),
        Hybrid(name="llama-70b", model=llama, sequence_length=8192, batch=64, fleet=h100s),
        Hybrid(name="llama-70b", model=llama, sequence_length=8192, batch=128, fleet=h100s),
        Hybrid(name="98.5B, slow transfers", model=large, sequence_length=1024, batch=160, fleet=slow),
        *(
            Hybrid(
                name="llama-70b, ZeRO 1",
                model=llama,
                sequence_length=8192,
                batch=batch,
                fleet=h100s,
                zero_stage=1,
            )
            for batch in (64, 128)
        ),
    ]
