"""Wire types to the domain and back."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from synth.certificate import Certificate, Provenance, Status
from synth.document.held_bytes import held_bytes_from_wire, held_bytes_to_wire
from synth.document.refusal import Refusal
from synth.document.stages import num_directions, place_in_document, stage_wires, stages_from_wire
from synth.document.wire import (
    PLACEMENT_KEYS,
    PROBLEM_FORMAT,
    SCHEDULE_FORMAT,
    TIMELINE_FORMAT,
    VERSION,
    CertificateWire,
    MeasuredOpWire,
    MetricsWire,
    PlacementWire,
    ProblemWire,
    ProvenanceWire,
    ScheduleWire,
    TimedOpWire,
    TimelineWire,
    TransfersWire,
    Wire,
)
from synth.errors import InvalidProblemError
from synth.measured import MeasuredOp, Timeline
from synth.ops import Op, OpKind, TimedOp
from synth.placement import Placement, PlacementKind, place
from synth.problem import Problem, uniform_transfers
from synth.schedule import Metrics, Schedule, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDocument:
    """A schedule and what its document claims of it; the claims are the verifier's to check.

    Parameters
    ----------
    schedule
        The problem and the timed ops.
    metrics
        What the document says the schedule achieves.
    certificate
        The value and the bound.
    stated_gap, stated_status
        As the document states them; the certificate computes its own.
    provenance
        How the schedule was made.
    """

    schedule: Schedule
    metrics: Metrics
    certificate: Certificate
    stated_gap: float
    stated_status: Status
    provenance: Provenance

    @classmethod
    def of(cls, schedule: Schedule, certificate: Certificate, provenance: Provenance) -> ScheduleDocument:
        """The document that states what the schedule's own numbers are."""
        return cls(
            schedule=schedule,
            metrics=measure(schedule),
            certificate=certificate,
            stated_gap=certificate.gap,
            stated_status=certificate.status,
            provenance=provenance,
        )


def problem_from_wire(wire: ProblemWire, path: str, refuse: Refusal) -> Problem:
    """The problem of a document or of the part of one at the path."""
    if wire.placement is UNSET and wire.directions is UNSET:
        refuse(f"{path}.placement", "missing", f"give {PLACEMENT_KEYS}, or directions in its place")
    _only_one_of(wire, path, ("placement", "directions"), refuse)
    for where, given in _placements(wire, path):
        _only_one_of(given, where, ("stage_to_rank", "kind"), refuse)
    _only_one_of(wire.transfers, f"{path}.transfers", ("ticks", "ticks_by_rank_pair"), refuse)
    most_ranks = len(wire.stages) * num_directions(wire)
    if wire.num_ranks > most_ranks > 0:
        # Said before anything of the size num_ranks times num_ranks is built.
        rule = f"every rank holds a stage; give at most {most_ranks}, or more stages"
        refuse(f"{path}.num_ranks", str(wire.num_ranks), rule)
    try:
        placement, stages, feeds = stages_from_wire(wire, path, refuse)
        return Problem(
            num_ranks=wire.num_ranks,
            num_microbatches=wire.num_microbatches,
            placement=placement,
            stages=stages,
            feeds=feeds,
            transfer_ticks=_transfer_ticks(wire),
            links=wire.transfers.links,
            memory_limit_bytes=_memory_limit_bytes(wire),
            objective=wire.objective,
            tick_seconds=wire.tick_seconds,
            name=wire.name,
            source=wire.source,
        )
    except InvalidProblemError as error:
        refuse(f"{path}.{place_in_document(wire, error.where)}", str(error.given), error.rule)


def problem_to_wire(problem: Problem, placement: Placement) -> ProblemWire:
    """The document of a problem, with a placement that may be named or resolved."""
    return ProblemWire(
        format=PROBLEM_FORMAT,
        version=VERSION,
        name=problem.name,
        source=problem.source,
        tick_seconds=problem.tick_seconds,
        num_ranks=problem.num_ranks,
        num_microbatches=problem.num_microbatches,
        placement=_placement_wire(problem, placement),
        stages=stage_wires(problem),
        transfers=_transfers_wire(problem),
        memory_limit_bytes=_memory_limit_wire(problem),
        objective=problem.objective,
    )


def timeline_from_wire(wire: TimelineWire, refuse: Refusal) -> Timeline:
    """What was measured; ops that the problem lacks, or on other ranks than theirs, are refused."""
    problem = _resolved_problem(wire.problem, refuse)
    _check_one_per_rank("$.ranks", len(wire.ranks), problem, refuse)
    peaks = wire.peak_memory_bytes
    if peaks is not None:
        _check_one_per_rank("$.peak_memory_bytes", len(peaks), problem, refuse)
    carried: list[Container[int]] = [frozenset(feed.microbatches) for feed in problem.feeds]
    carried = carried or [range(problem.num_microbatches)] * problem.num_stages
    for rank, listed in enumerate(wire.ranks):
        for n, measured in enumerate(listed):
            path = f"$.ranks[{rank}][{n}]"
            _check_measured(path, measured, rank, problem, refuse)
            _check_carried(path, measured, carried[measured.stage], refuse)
    return Timeline(
        problem=problem,
        ranks=tuple(tuple(map(_measured_op, rank)) for rank in wire.ranks),
        peak_memory_bytes=peaks,
        held_bytes=held_bytes_from_wire(wire, refuse),
        source=wire.source,
    )


def timeline_to_wire(timeline: Timeline) -> TimelineWire:
    """The document of what was measured, its placement resolved."""
    problem = timeline.problem
    return TimelineWire(
        format=TIMELINE_FORMAT,
        version=VERSION,
        source=timeline.source,
        problem=problem_to_wire(problem, Placement.explicit(problem.stage_to_rank)),
        ranks=tuple(tuple(map(_measured_op_wire, rank)) for rank in timeline.ranks),
        peak_memory_bytes=timeline.peak_memory_bytes,
        held_bytes=held_bytes_to_wire(timeline.held_bytes),
    )


def schedule_from_wire(wire: ScheduleWire, refuse: Refusal) -> ScheduleDocument:
    """The schedule and the claims of a document."""
    problem = _resolved_problem(wire.problem, refuse)
    _check_one_per_rank("$.ranks", len(wire.ranks), problem, refuse)
    peaks = wire.metrics.peak_memory_bytes
    _check_one_per_rank("$.metrics.peak_memory_bytes", len(peaks), problem, refuse)
    return ScheduleDocument(
        schedule=Schedule(problem, tuple(tuple(map(_timed_op, rank)) for rank in wire.ranks)),
        metrics=Metrics(**msgspec.structs.asdict(wire.metrics)),
        certificate=_certificate(wire.certificate),
        stated_gap=wire.certificate.gap,
        stated_status=wire.certificate.status,
        provenance=Provenance(**msgspec.structs.asdict(wire.provenance)),
    )


def schedule_to_wire(document: ScheduleDocument) -> ScheduleWire:
    """The document of a schedule, its placement resolved."""
    problem = document.schedule.problem
    return ScheduleWire(
        format=SCHEDULE_FORMAT,
        version=VERSION,
        problem=problem_to_wire(problem, Placement.explicit(problem.stage_to_rank)),
        ranks=tuple(tuple(map(_timed_op_wire, rank)) for rank in document.schedule.ranks),
        metrics=msgspec.convert(document.metrics, MetricsWire, from_attributes=True),
        certificate=_certificate_wire(document),
        provenance=msgspec.convert(document.provenance, ProvenanceWire, from_attributes=True),
    )


def _resolved_problem(wire: ProblemWire, refuse: Refusal) -> Problem:
    """The problem inside a document that was made for one placement."""
    if isinstance(wire.placement, PlacementWire) and wire.placement.kind == "auto":
        refuse("$.problem.placement.kind", '"auto"', "give the stage_to_rank the schedule was made for")
    problem = problem_from_wire(wire, "$.problem", refuse)
    return problem.with_placement(Placement.explicit(problem.stage_to_rank))


def _check_measured(path: str, wire: MeasuredOpWire, rank: int, problem: Problem, refuse: Refusal) -> None:
    for key, given, count in (
        ("stage", wire.stage, problem.num_stages),
        ("microbatch", wire.microbatch, problem.num_microbatches),
    ):
        if given >= count:
            refuse(f"{path}.{key}", str(given), f"give an integer from 0 to {count - 1}")
    own = problem.stage_to_rank[wire.stage]
    if own != rank:
        refuse(
            f"{path}.stage", str(wire.stage), f"stage {wire.stage} is on rank {own}; give one of rank {rank}"
        )
    if wire.end_ns < wire.start_ns:
        refuse(f"{path}.end_ns", str(wire.end_ns), f"give an integer ≥ start_ns, which is {wire.start_ns}")


def _check_carried(path: str, wire: MeasuredOpWire, carried: Container[int], refuse: Refusal) -> None:
    if wire.op is OpKind.R and wire.microbatch != 0:
        refuse(f"{path}.microbatch", str(wire.microbatch), "R runs once, as microbatch 0")
    if wire.op is not OpKind.R and wire.microbatch not in carried:
        refuse(f"{path}.microbatch", str(wire.microbatch), f"stage {wire.stage} does not carry it")


def _only_one_of(wire: Wire, path: str, keys: tuple[str, str], refuse: Refusal) -> None:
    given = [key for key in keys if getattr(wire, key) is not UNSET]
    if len(given) != 1:
        found = " and ".join(given) if given else f"without {' and '.join(keys)}"
        refuse(path, f"given {found}" if given else found, f"give {' or '.join(keys)}, exactly one of them")


def _placements(wire: ProblemWire, path: str) -> list[tuple[str, PlacementWire]]:
    """The placements of a document, with their paths."""
    if isinstance(wire.placement, PlacementWire):
        return [(f"{path}.placement", wire.placement)]
    directions = wire.directions if isinstance(wire.directions, tuple) else ()
    return [(f"{path}.directions[{n}].placement", given.placement) for n, given in enumerate(directions)]


def _placement_wire(problem: Problem, placement: Placement) -> PlacementWire:
    kind = placement.kind
    if kind is not PlacementKind.MAP:
        named = place(kind, problem.num_ranks, problem.num_stages)
        # The loop stands in until the solver has chosen, so under auto the map says nothing.
        if kind is PlacementKind.AUTO or named.stage_to_rank == placement.stage_to_rank:
            return msgspec.convert({"kind": kind.value}, PlacementWire)
    return PlacementWire(stage_to_rank=placement.stage_to_rank)


def _transfer_ticks(wire: ProblemWire) -> tuple[tuple[int, ...], ...]:
    if isinstance(wire.transfers.ticks, int):
        return uniform_transfers(wire.num_ranks, wire.transfers.ticks)
    assert isinstance(wire.transfers.ticks_by_rank_pair, tuple), "exactly one is given"
    return wire.transfers.ticks_by_rank_pair


def _transfers_wire(problem: Problem) -> TransfersWire:
    matrix = problem.transfer_ticks
    ticks = matrix[0][-1] if problem.num_ranks > 1 else 0
    if matrix == uniform_transfers(problem.num_ranks, ticks):
        return TransfersWire(ticks=ticks, links=problem.links)
    return TransfersWire(ticks_by_rank_pair=matrix, links=problem.links)


def _memory_limit_bytes(wire: ProblemWire) -> tuple[int, ...] | None:
    limit = wire.memory_limit_bytes
    return (limit,) * wire.num_ranks if isinstance(limit, int) else limit


def _memory_limit_wire(problem: Problem) -> int | tuple[int, ...] | None:
    limits = problem.memory_limit_bytes
    return limits[0] if limits is not None and len(set(limits)) == 1 else limits


def _timed_op(wire: TimedOpWire) -> TimedOp:
    return TimedOp(Op(wire.op, wire.stage, wire.microbatch), wire.start, wire.end)


def _timed_op_wire(timed: TimedOp) -> TimedOpWire:
    kind, stage, microbatch = timed.op
    return TimedOpWire(op=kind, stage=stage, microbatch=microbatch, start=timed.start, end=timed.end)


def _measured_op(wire: MeasuredOpWire) -> MeasuredOp:
    return MeasuredOp(Op(wire.op, wire.stage, wire.microbatch), wire.start_ns, wire.end_ns)


def _measured_op_wire(measured: MeasuredOp) -> MeasuredOpWire:
    (kind, stage, microbatch), start, end = measured
    return MeasuredOpWire(op=kind, stage=stage, microbatch=microbatch, start_ns=start, end_ns=end)


def _certificate(wire: CertificateWire) -> Certificate:
    return Certificate(
        objective=wire.objective,
        value=wire.value,
        lower_bound=wire.lower_bound,
        bound_from=wire.bound_from,
    )


def _check_one_per_rank(path: str, length: int, problem: Problem, refuse: Refusal) -> None:
    if length != problem.num_ranks:
        refuse(path, f"{length} long", f"give {problem.num_ranks} entries, one per rank")


def _certificate_wire(document: ScheduleDocument) -> CertificateWire:
    claim = document.certificate
    return CertificateWire(
        objective=claim.objective,
        value=claim.value,
        lower_bound=claim.lower_bound,
        gap=document.stated_gap,
        status=document.stated_status,
        bound_from=claim.bound_from,
    )
