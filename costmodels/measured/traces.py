"""Measured times out of profiler traces: the ``PP:`` ranges that torch's pipelining marks its actions with.

A range is called ``PP:<stage><letter><microbatch>`` in torch's letters, as in ``PP:3I1``. Sends, receives and
compound actions are left out. In a trace with device-side ranges those count, because host-side ones end when
work is launched; on the CPU a range includes waiting for what the op needs, so starved ops read too long.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from costmodels.measured.spreads import Spread, spread_of
from costmodels.quantise import Quantiser
from synth.errors import InputError
from synth.export.torch_names import TORCH_LETTERS
from synth.measured import NS_PER_S
from synth.measured_costs import with_op_times
from synth.ops import PASSES, Op, OpKind
from synth.placement import Placement
from synth.problem import OpCost, Problem, StageCosts, uniform_transfers

DEVICE_RANGES = "gpu_user_annotation"
"""Kineto's category of ranges as they ran on the device."""
_KINDS = {letter: kind for kind, letter in TORCH_LETTERS.items()}
_RANGE = re.compile(r"PP:(\d{1,9})([FIWB])(\d{1,9})", re.ASCII)
_NS_PER_US = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTimes:
    """The ranges of all ranks.

    Parameters
    ----------
    times_ns
        By stage and kind, one entry for each range.
    stage_to_rank
        The rank of every stage.
    num_microbatches
        As many as the highest number says.
    on_device
        Whether all ranges are device-side.
    names
        Of the traces.
    """

    times_ns: Mapping[tuple[int, OpKind], Sequence[int]]
    stage_to_rank: tuple[int, ...]
    num_microbatches: int
    on_device: bool
    names: tuple[str, ...]

    @property
    def medians_ns(self) -> dict[tuple[int, OpKind], float]:
        """What each op takes: the median of its ranges."""
        return {key: statistics.median(times) for key, times in self.times_ns.items()}

    @property
    def spreads(self) -> dict[tuple[int, OpKind], Spread]:
        """Medians and quartiles of the times, in seconds."""
        return {
            (stage, kind): spread_of([time / NS_PER_S for time in times], f"{kind} of stage {stage}")
            for (stage, kind), times in sorted(self.times_ns.items())
        }

    def source(self, tick_seconds: float) -> str:
        """Where the times come from, in words."""
        side = "device" if self.on_device else "host"
        spreads = self.spreads.values()
        error = Quantiser(tick_seconds=tick_seconds).largest_error(spread.median_s for spread in spreads)
        return "; ".join(
            [
                f"times: medians of {side}-side PP: ranges in {', '.join(self.names)}",
                *(["on the host a range includes waiting for what the op needs"] * (not self.on_device)),
                f"spread of a time: at most {max(spread.relative for spread in spreads):.1%} of its median "
                "(half of the quartiles' distance)",
                f"rounding to ticks of {tick_seconds:g} s: at most {error:.2%} of an op",
            ]
        )


@dataclass(frozen=True, slots=True)
class _Range:
    op: Op
    rank: tuple[int, int]
    """Sorts as the ranks do: number of the trace and of the process in it."""
    duration_ns: int


def read_traces(texts: Mapping[str, str]) -> TraceTimes:
    """Read the traces of a run.

    A trace that Kineto wrote of one rank says which; in others every process is a rank, in the order of their
    numbers, and several traces follow one another in the order given.

    Parameters
    ----------
    texts
        Traces by the names of their files.

    Raises
    ------
    InputError
        When one is no trace or has no ranges, a time is no number, or the stages are not whole.
    """
    ranges: list[_Range] = []
    on_device = True
    for number, (name, text) in enumerate(texts.items()):
        found, device_side = _ranges(_events(text, name), name, number)
        ranges += found
        on_device &= device_side
    times: dict[tuple[int, OpKind], list[int]] = defaultdict(list)
    for found_range in ranges:
        times[found_range.op.stage, found_range.op.kind].append(found_range.duration_ns)
    return TraceTimes(
        times_ns=times,
        stage_to_rank=_stage_to_rank(ranges),
        num_microbatches=1 + max(found_range.op.microbatch for found_range in ranges),
        on_device=on_device,
        names=tuple(map(os.path.basename, texts)),
    )


def traced_problem(traced: TraceTimes, tick_seconds: float) -> Problem:
    """A problem with the times of traces, the placement they show, and no memory: traces do not say it.

    Raises
    ------
    InputError
        When a stage shows no forward or no whole backward.
    """
    num_stages, num_ranks = len(traced.stage_to_rank), 1 + max(traced.stage_to_rank)
    problem = Problem(
        num_ranks=num_ranks,
        num_microbatches=traced.num_microbatches,
        placement=Placement.explicit(traced.stage_to_rank),
        stages=tuple(_unmeasured(traced, stage) for stage in range(num_stages)),
        transfer_ticks=uniform_transfers(num_ranks, 0),
        tick_seconds=tick_seconds,
        name="trace",
        source=f"{traced.source(tick_seconds)}; memory and transfers: none, a trace does not say them",
    )
    return with_op_times(problem, traced.medians_ns)


def with_traced_times(problem: Problem, traced: TraceTimes) -> Problem:
    """A problem with its op times replaced by those of traces, in its own ticks; all else stays.

    Raises
    ------
    InputError
        When the traces have other stages, or show an op that the problem does not offer.
    """
    if len(traced.stage_to_rank) != problem.num_stages:
        raise InputError(
            f"the traces show {len(traced.stage_to_rank)} stages and the problem has {problem.num_stages}: "
            "give the problem that was run"
        )
    offered = {(stage, kind) for stage, costs in enumerate(problem.stages) for kind, _ in costs.offered}
    for stage, kind in sorted(traced.times_ns.keys() - offered):
        raise InputError(
            f"the traces show PP:{stage}{TORCH_LETTERS[kind]} and the problem offers no {kind} on stage "
            f"{stage}: give the problem that was run"
        )
    kept = [f"{kind} of stage {stage}" for stage, kind in sorted(offered - traced.times_ns.keys())]
    source = "; ".join(
        [
            traced.source(problem.tick_seconds),
            *([f"not in the traces and as before: {', '.join(kept)}"] if kept else []),
            f"all else: {problem.source or problem.name or 'as given'}",
        ]
    )
    return replace(with_op_times(problem, traced.medians_ns), source=source)


def _unmeasured(traced: TraceTimes, stage: int) -> StageCosts:
    """The ops that a stage shows, for their times to be put in."""
    shown = {kind: OpCost(ticks=1) for kind in PASSES if (stage, kind) in traced.times_ns}
    names = [f"PP:{stage}{letter}" for letter, kind in _KINDS.items() if kind in shown]
    divided, whole = {OpKind.B, OpKind.W} & set(shown), OpKind.BW in shown
    if OpKind.F not in shown or len(divided) == 1 or not (divided or whole):
        raise InputError(
            f"the traces show of stage {stage} only {', '.join(names)}: trace a whole step, "
            "F with I and W, or with B"
        )
    return StageCosts(
        F=shown[OpKind.F], B=shown.get(OpKind.B), W=shown.get(OpKind.W), BW=shown.get(OpKind.BW)
    )


def _events(text: str, name: str) -> tuple[list[Any], int | None]:
    """The events of a trace, and the rank it is of where it says so."""
    try:
        tree: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{name} is no JSON: give a trace in Chrome's format, as torch.profiler exports it"
        ) from error
    events = tree.get("traceEvents") if isinstance(tree, dict) else tree
    if not isinstance(events, list):
        raise InputError(
            f"{name} has no traceEvents: give a trace in Chrome's format, as torch.profiler exports it"
        )
    info = tree.get("distributedInfo") if isinstance(tree, dict) else None
    rank = info.get("rank") if isinstance(info, dict) else None
    return events, rank if isinstance(rank, int) else None


def _ranges(read: tuple[list[Any], int | None], name: str, number: int) -> tuple[list[_Range], bool]:
    """The ranges of one trace, and whether they are device-side."""
    events, rank = read
    marked = [
        (match, event)
        for event in events
        if isinstance(event, dict)
        and event.get("ph") == "X"
        and (match := _RANGE.fullmatch(str(event.get("name")))) is not None
    ]
    if not marked:
        raise InputError(
            f"{name} has no PP: ranges such as PP:0F0: trace steps of a pipeline that torch's pipelining runs"
        )
    device_side = [(match, event) for match, event in marked if event.get("cat") == DEVICE_RANGES]
    found = []
    for match, event in device_side or marked:
        process = event.get("pid")
        where = (number, process if isinstance(process, int) else 0) if rank is None else (rank, 0)
        op = Op(_KINDS[match[2]], int(match[1]), int(match[3]))
        found.append(_Range(op, where, _duration_ns(event.get("dur"), match[0], name)))
    return found, bool(device_side)


def _duration_ns(given: Any, what: str, name: str) -> int:
    good = isinstance(given, int | float) and not isinstance(given, bool)
    if not good or not 0 <= given < 1e15:
        raise InputError(
            f"{what} in {name} lasts {given} microseconds: a time is a finite number of at least 0"
        )
    microseconds: float = given
    return round(microseconds * _NS_PER_US)


def _stage_to_rank(ranges: list[_Range]) -> tuple[int, ...]:
    numbers = {rank: number for number, rank in enumerate(sorted({found.rank for found in ranges}))}
    homes: dict[int, set[int]] = defaultdict(set)
    for found in ranges:
        homes[found.op.stage].add(numbers[found.rank])
    for stage in range(1 + max(homes)):
        if stage not in homes:
            raise InputError(f"the traces show no stage {stage}: give those of all ranks")
        if len(homes[stage]) > 1:
            raise InputError(
                f"the traces show stage {stage} on {len(homes[stage])} ranks: give those of one replica"
            )
    return tuple(homes[stage].pop() for stage in range(len(homes)))
