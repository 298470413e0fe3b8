"""Measures, or estimates, a model: cut into stages, every op timed, every byte counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from costmodels.chain import Chain
from costmodels.hardware import Gpu
from costmodels.measured.factories import Model, load_model
from costmodels.measured.memory import stage_bytes, static_bytes
from costmodels.measured.profiles import Profile, Split, StageProfile
from costmodels.measured.saved_tensors import saved_bytes
from costmodels.measured.shapes_only import ConvertibleWeights, estimate_ops, precision_of
from costmodels.measured.stage_runs import StageRun, stage_runs
from costmodels.measured.storage_ledger import StorageLedger
from costmodels.measured.timing import OpTimes, Repetitions, time_ops
from costmodels.partition import CutRules, cut_layers
from costmodels.roofline import Efficiencies, Machine
from runtime.allocators import Allocator, make_allocator
from runtime.clock import make_recorder
from synth.errors import InputError
from synth.ops import OpKind

_PER_SECOND = 10**9
"""The cut compares whole nanoseconds."""


class Bench(Protocol):
    """What stages are run on."""

    @property
    def device(self) -> torch.device:
        """Where weights and inputs are."""

    def running(self) -> contextlib.AbstractContextManager[object]:
        """Inside of it the model is made and run."""

    def times(self, runs: Sequence[StageRun], split: Split) -> list[OpTimes]:
        """The times of every stage's ops; behind it all weights have gradients."""

    def allocator(self) -> Allocator:
        """Who watches what ops allocate."""

    def how(self) -> tuple[str, ...]:
        """Where times and bytes come from."""


@dataclass(frozen=True, slots=True)
class RealBench:
    """A device that computes."""

    device: torch.device
    repetitions: Repetitions = field(default_factory=Repetitions)
    threads: int | None = None
    """Of the CPU; None leaves them as they are."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """With so many threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def times(self, runs: Sequence[StageRun], split: Split) -> list[OpTimes]:
        """Measured."""
        return time_ops(runs, split, make_recorder(self.device), self.repetitions)

    def allocator(self) -> Allocator:
        """That of the device."""
        return make_allocator(self.device)

    def how(self) -> tuple[str, ...]:
        """The device, and how often each op ran."""
        on_cuda = self.device.type == "cuda"
        device = (
            torch.cuda.get_device_name(self.device)
            if on_cuda
            else f"CPU, {_counted(self.threads or torch.get_num_threads(), 'thread')}"
        )
        clock = "device events" if on_cuda else "host time"
        return (
            f"measured on {device}, torch {torch.__version__}",
            f"times: medians of {self.repetitions.repeats} by {clock}, "
            f"after {self.repetitions.warm_up} to warm up",
            "each with a copy of what the op receives",
            "bytes: what the allocator holds after each op",
        )


def real_bench(device: str | None, repetitions: Repetitions, threads: int | None) -> RealBench:
    """A bench by the name of its kind of device: ``cpu``, ``cuda``, or None for CUDA where there is any.

    Raises
    ------
    InputError
        When there is no such device.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise InputError(
            "--device cuda is given, and torch sees no GPU: give cpu, or --shapes-only with --gpu"
        )
    on_cuda = has_cuda if device is None else device == "cuda"
    where = torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")
    return RealBench(where, repetitions, threads)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class ShapesBench:
    """Shapes alone, with the times that a GPU's roofline gives."""

    gpu: Gpu
    efficiencies: Efficiencies = field(default_factory=Efficiencies)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Tensors have shapes and no numbers."""
        with FakeTensorMode() as fake, ConvertibleWeights(fake):
            yield

    def times(self, runs: Sequence[StageRun], split: Split) -> list[OpTimes]:
        """Estimated."""
        machine = Machine(
            gpu=self.gpu,
            precision=precision_of(runs),
            efficiencies=self.efficiencies,
            tensor_link=self.gpu.nvlink,
            expert_link=self.gpu.nvlink,
        )
        return estimate_ops(runs, split, machine)

    def allocator(self) -> Allocator:
        """That of tensors that are only counted."""
        return StorageLedger()

    def how(self) -> tuple[str, ...]:
        """The GPU and what it is said to reach."""
        return (
            f"estimated from shapes alone, torch {torch.__version__}",
            f"times: roofline of {self.gpu.name} at efficiencies {self.efficiencies} ({self.gpu.source})",
            "bytes: tensors alive after each op, without what kernels take for themselves",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How layers become stages.

    Parameters
    ----------
    stage_to_rank
        The rank of every stage.
    counts
        Layers of every stage, or None to make the slowest stage as fast as can be.
    limit_bytes
        What a rank may hold, where the cut is to keep to it.
    """

    stage_to_rank: tuple[int, ...]
    counts: tuple[int, ...] | None = None
    limit_bytes: int | None = None


def profile_model(
    path: str, cutting: Cutting, splits: Sequence[Split], bench: Bench, *, optimizer_copies: int = 2
) -> list[Profile]:
    """Measure a model.

    Parameters
    ----------
    path
        The import path of its factory.
    cutting
        How its layers become stages.
    splits
        Ways of dividing its backward, each measured on its own; ``deferred`` comes last, for it changes
        layers.
    bench
        What it is run on.
    optimizer_copies
        Tensors of a weight's size that the optimizer keeps.

    Raises
    ------
    InputError
        When the factory or one of its layers is not as it should be, or the layers cannot be cut so.
    """
    with bench.running():
        model = load_model(path)
        counts = _check_counts(model, cutting) or measured_cut(model, cutting, bench, optimizer_copies)
        ordered = sorted(splits, key=lambda split: split is Split.DEFERRED)
        made = {split: _profile(model, counts, split, bench, optimizer_copies) for split in ordered}
    return [made[split] for split in splits]


def _profile(
    model: Model, counts: Sequence[int], split: Split, bench: Bench, optimizer_copies: int
) -> Profile:
    runs = stage_runs(model, counts, split, bench.device)
    allocator = bench.allocator()
    stages = tuple(
        StageProfile(
            layers=run.layers,
            times=times,
            memory=stage_bytes(run, split, allocator, optimizer_copies),
            division=split if split is Split.NONE else Split(run.division.value),
            sent_bytes=run.sent_bytes,
        )
        for run, times in zip(runs, bench.times(runs, split), strict=True)
    )
    return Profile(name=model.name, split=split, stages=stages, how=bench.how())


def _check_counts(model: Model, cutting: Cutting) -> tuple[int, ...] | None:
    stages, layers = len(cutting.stage_to_rank), len(model.layers)
    if cutting.counts is None:
        if layers < stages:
            raise InputError(f"{stages} stages are asked of {layers} layers: ask for at most {layers}")
        return {1: (layers,), layers: (1,) * layers}.get(stages)
    if sum(cutting.counts) != layers:
        raise InputError(
            f"a cut into {','.join(map(str, cutting.counts))} layers is given, and {model.name} returns "
            f"{layers}: give numbers that add up to them"
        )
    return cutting.counts


def measured_cut(model: Model, cutting: Cutting, bench: Bench, optimizer_copies: int) -> tuple[int, ...]:
    """Cut a model so that the slowest stage is as fast as can be, every layer timed on its own.

    Within a limit where that is possible, else regardless of it.

    Returns
    -------
    Layers of every stage.
    """
    runs = stage_runs(model, [1] * len(model.layers), Split.NONE, bench.device)
    times = bench.times(runs, Split.NONE)
    taken = [
        round(sum(layer[kind].median_s for kind in (OpKind.F, OpKind.BW)) * _PER_SECOND) for layer in times
    ]
    chain = Chain(
        costs=tuple(taken),
        static_bytes=tuple(static_bytes(run, optimizer_copies).total for run in runs),
        kept_bytes=tuple(saved_bytes(run) for run in runs),
        extra_bytes=(0,) * len(runs),
        may_cut_before=(True,) * len(runs),
        blocks=(True,) * len(runs),
    )
    fitting = cut_layers(
        chain, CutRules(stage_to_rank=cutting.stage_to_rank, limit_bytes=cutting.limit_bytes)
    )
    cuts = fitting or cut_layers(chain, CutRules(stage_to_rank=cutting.stage_to_rank))
    assert cuts is not None, "without a limit there is a cut"
    return tuple(b - a for a, b in pairwise(cuts))
