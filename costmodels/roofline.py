"""Seconds from work: an operation takes as long as the slower of arithmetic and memory (roofline)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from costmodels.hardware import Gpu, Link
from costmodels.operations import Work
from costmodels.training import Precision
from synth.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiencies:
    """What share of its peak each resource reaches, above 0 and up to 1.

    ``matmul`` and ``attention`` are of the arithmetic peak, ``memory`` of the memory's, ``link`` of a link's.
    The defaults are round numbers for large products on A100, but for ``memory``, which is calibrated on one
    published profile (``results/2026-11-21-cost-models``); newer GPUs may reach less.
    """

    matmul: float = 0.8
    attention: float = 0.5
    memory: float = 0.46
    link: float = 0.8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= 1:
                raise InputError(f"the {field.name} efficiency is {value}: give a share above 0 and up to 1")

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name):g}" for field in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A GPU with its links and what share of their peaks work reaches.

    Parameters
    ----------
    gpu, precision
        The GPU and the precision of matrix products.
    efficiencies
        Shares of the peaks.
    tensor_link, expert_link
        What connects tensor-parallel, expert-parallel peers.
    """

    gpu: Gpu
    precision: Precision
    efficiencies: Efficiencies
    tensor_link: Link
    expert_link: Link

    def seconds(self, works: Iterable[Work]) -> float:
        """The time of operations one after another."""
        return sum(map(self._seconds, works))

    def _seconds(self, work: Work) -> float:
        share, peak = self.efficiencies, self.gpu.flops_per_s(self.precision)
        arithmetic = work.matmul_flops / (share.matmul * peak) + work.attention_flops / (
            share.attention * peak
        )
        memory = work.moved_bytes / (share.memory * self.gpu.memory_bytes_per_s)
        sent = self._sending(work.tensor_bytes, self.tensor_link) + self._sending(
            work.expert_bytes, self.expert_link
        )
        return max(arithmetic, memory) + sent

    def _sending(self, size_bytes: int, link: Link) -> float:
        return transfer_seconds(size_bytes, link, self.efficiencies) if size_bytes else 0.0


def transfer_seconds(size_bytes: int, link: Link, efficiencies: Efficiencies) -> float:
    """The time of one transfer: latency, then bytes at a share of the link's peak."""
    return link.latency_s + size_bytes / (efficiencies.link * link.bytes_per_s)
