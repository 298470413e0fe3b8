"""PipeDream's own planner, to compare with: stages with replicas of their own, level by level of the network.

Narayanan et al., PipeDream: Generalized Pipeline Parallelism for DNN Training, SOSP 2019, section 3.1. It
minimises the time of the slowest stage, knows no batches of several microbatches (weights change after each)
and leaves memory aside; what its plan needs under weight stashing is worked out behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Part = tuple[int, int, int]
"""First layer, layer behind the last, and how many units of the level below do it together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """What PipeDream's profiler says of one layer, for one minibatch.

    Parameters
    ----------
    seconds
        Forward and backward.
    output_bytes, weight_bytes
        Of its output, and of its weights.
    kept_bytes
        Of what its forward leaves for the backward.
    """

    seconds: float
    output_bytes: int
    weight_bytes: int
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of the network: so many units of the level below, connected at this bandwidth."""

    units: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeDreamStage:
    """Layers ``first`` to ``last - 1`` on so many GPUs, each of which takes minibatches in turn."""

    first: int
    last: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeDreamPlan:
    """The plan with the shortest time of the slowest stage.

    Parameters
    ----------
    stages
        From the first to the last.
    period_s
        How often a minibatch leaves the pipeline.
    """

    stages: tuple[PipeDreamStage, ...]
    period_s: float

    def versions(self) -> tuple[int, ...]:
        """Weight versions, and minibatches in flight, on each GPU of every stage.

        As many minibatches are in flight behind a stage's input as keep all GPUs from there on busy; its
        replicas share them.
        """
        behind = list(accumulate(stage.replicas for stage in reversed(self.stages)))[::-1]
        return tuple(-(-gpus // stage.replicas) for gpus, stage in zip(behind, self.stages, strict=True))

    def bytes_by_stage(self, layers: Sequence[LayerProfile]) -> tuple[int, ...]:
        """What stashed weights and activations take on each GPU of every stage."""
        return tuple(
            sum(layer.weight_bytes + layer.kept_bytes for layer in layers[stage.first : stage.last])
            * versions
            for stage, versions in zip(self.stages, self.versions(), strict=True)
        )


def plan_pipedream(layers: Sequence[LayerProfile], levels: Sequence[Level]) -> PipeDreamPlan:
    """Cut layers into stages and give each its replicas.

    At the lowest level one GPU does all the layers of a part. At a level, m units do layers i to j either as
    replicas, in the longer of an m-th of one unit's time and of their share of an all-reduce of the weights,
    2(m - 1)/m of them at the level's bandwidth; or as replicas of the last layers behind the best plan of the
    others, in the time of the slower, or of the activations and gradients between them.

    Parameters
    ----------
    layers
        The profile.
    levels
        The network from the inside out; the GPUs are the product of their units.
    """
    n = len(layers)
    spans = [(first, last) for first in range(n) for last in range(first + 1, n + 1)]
    ends = list(accumulate((layer.seconds for layer in layers), initial=0.0))
    times = {span: ends[span[1]] - ends[span[0]] for span in spans}
    tables = []
    for level in levels:
        table = _Level(layers, level, times)
        tables.append(table)
        times = {span: table.best(*span, level.units)[0] for span in spans}
    return PipeDreamPlan(stages=tuple(_stages(tables, 0, n, 1)), period_s=times[0, n])


class _Level:
    """The best times of one level, worked out as they are asked for."""

    def __init__(
        self, layers: Sequence[LayerProfile], level: Level, unit_s: dict[tuple[int, int], float]
    ) -> None:
        self._layers, self.level, self._unit_s = layers, level, unit_s
        self._weights = list(accumulate((layer.weight_bytes for layer in layers), initial=0))
        self._known: dict[Part, tuple[float, tuple[int, int] | None]] = {}

    def best(self, first: int, last: int, units: int) -> tuple[float, tuple[int, int] | None]:
        """What so many units take for these layers; where the part behind starts, and its units."""
        part = first, last, units
        if part not in self._known:
            choices: list[tuple[float, tuple[int, int] | None]] = [(self._together_s(*part), None)]
            for cut in range(first + 1, last):
                sent_s = 2 * self._layers[cut - 1].output_bytes / self.level.bytes_per_s
                for behind in range(1, units):
                    before_s = self.best(first, cut, units - behind)[0]
                    longest = max(before_s, sent_s, self._together_s(cut, last, behind))
                    choices.append((longest, (cut, behind)))
            self._known[part] = min(choices, key=lambda choice: choice[0])
        return self._known[part]

    def _together_s(self, first: int, last: int, units: int) -> float:
        weight_bytes = self._weights[last] - self._weights[first]
        sum_s = 2 * (units - 1) * weight_bytes / self.level.bytes_per_s
        return max(self._unit_s[first, last], sum_s) / units

    def parts(self, first: int, last: int, units: int) -> list[Part]:
        """The parts of the best plan, from the first to the last."""
        split = self.best(first, last, units)[1]
        if split is None:
            return [(first, last, units)]
        cut, behind = split
        return [*self.parts(first, cut, units - behind), (cut, last, behind)]


def _stages(tables: Sequence[_Level], first: int, last: int, copies: int) -> list[PipeDreamStage]:
    """The stages of the levels from the top down; replicas of a level multiply those of the one below."""
    if not tables:
        return [PipeDreamStage(first=first, last=last, replicas=copies)]
    *below, table = tables
    return [
        stage
        for begin, end, units in table.parts(first, last, table.level.units)
        for stage in _stages(below, begin, end, copies * units)
    ]
