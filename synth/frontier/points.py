"""Points of a frontier, and how they help one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from synth.bounds import best_bound
from synth.certificate import Certificate
from synth.document import ScheduleDocument
from synth.errors import BackendError
from synth.frontier.axis import Axis
from synth.placement import PlacementKind
from synth.problem import Problem
from synth.verify import verify_schedule


class PointStatus(StrEnum):
    """How much is known at a limit."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    """No schedule exists."""
    UNKNOWN = "unknown"
    """No schedule was found, and that there is none is not proved either."""
    FAILED = "failed"
    """The search broke off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What is known at one memory limit.

    Parameters
    ----------
    limit_bytes
        The limit, on its frontier's axis.
    status
        How much is known.
    document
        The best schedule, under exactly this limit, with its certificate.
    lower_bound, bound_from
        Ticks that no schedule can beat, and why, where there is a bound without a schedule.
    reason
        Why there is no schedule, or why the search at this limit gave none.
    smallest_limit_bytes
        The smallest limit that would do, where this one does not.
    taken_from_bytes
        The smaller limit at which the schedule was found, where that is another.
    time_limit_s
        How long the search was given; how long it had, where it was interrupted.
    """

    limit_bytes: int
    status: PointStatus
    document: ScheduleDocument | None = None
    lower_bound: int | None = None
    bound_from: str = ""
    reason: str = ""
    smallest_limit_bytes: int | None = None
    taken_from_bytes: int | None = None
    time_limit_s: float = 0.0

    @property
    def value(self) -> int | None:
        """The objective's value, ticks."""
        return None if self.document is None else self.document.certificate.value

    @property
    def gap(self) -> float | None:
        """``(value - lower_bound) / value``."""
        return None if self.document is None else self.document.certificate.gap

    @classmethod
    def found(cls, limit_bytes: int, document: ScheduleDocument, time_limit_s: float) -> Point:
        """A point with a schedule."""
        certificate = document.certificate
        return cls(
            limit_bytes=limit_bytes,
            status=PointStatus(certificate.status.value),
            document=document,
            lower_bound=certificate.lower_bound,
            bound_from=certificate.bound_from,
            time_limit_s=time_limit_s,
        )


@dataclass(frozen=True, slots=True)
class Carried:
    """Whose schedule and whose bound are the best that hold for a point; None where there is none."""

    value: int | None
    bound: int | None


def carry(
    limits: Sequence[int], values: Sequence[int | None], bounds: Sequence[int | None]
) -> tuple[Carried, ...]:
    """For every limit the index of the best schedule and of the best bound that hold there.

    A schedule fits every larger limit too, and a bound holds for every smaller one too. Among equals the own
    one stands, then that of the nearest limit.

    >>> carry([6, 7, 8], [30, 32, None], [25, 26, 24])
    (Carried(value=0, bound=1), Carried(value=0, bound=1), Carried(value=0, bound=2))
    """
    return tuple(_best_for(own, limits, values, bounds) for own in range(len(limits)))


def _best_for(
    own: int, limits: Sequence[int], values: Sequence[int | None], bounds: Sequence[int | None]
) -> Carried:
    def nearness(index: int) -> tuple[bool, int]:
        return index != own, abs(limits[index] - limits[own])

    fitting = [
        (v, *nearness(i), i) for i, v in enumerate(values) if v is not None and limits[i] <= limits[own]
    ]
    holding = [
        (-b, *nearness(i), i) for i, b in enumerate(bounds) if b is not None and limits[i] >= limits[own]
    ]
    return Carried(
        value=min(fitting)[-1] if fitting else None,
        bound=min(holding)[-1] if holding else None,
    )


def settle(
    points: Sequence[Point], axis: Axis, problems: Sequence[Problem], known: Sequence[Point] = ()
) -> tuple[Point, ...]:
    """Give every point the best schedule and the best bound that hold for it, and verify what comes out.

    Parameters
    ----------
    points
        One for each limit.
    axis, problems
        What the limits mean, and the problem under every way in which it is stated. Where that leaves the
        placement or the cut open, a bound holds for the placements searched at its limit only: there bounds
        stay where they are, and a schedule brings along the closed-form bound of its own placement.
    known
        Further points of the same problem, which may help and are not returned.

    Raises
    ------
    BackendError
        When a schedule breaks a rule at its limit, or a bound is above a value: a bug of ours.
    """
    everything = [*points, *known]
    bounds = [point.lower_bound for point in everything]
    carried = carry([p.limit_bytes for p in everything], [p.value for p in everything], bounds)
    is_open = len(problems) > 1 or problems[0].placement.kind is PlacementKind.AUTO
    settled = []
    for own, (point, best) in enumerate(zip(points, carried, strict=False)):
        bound = everything[own if is_open or best.bound is None else best.bound]
        giver = None if best.value is None else everything[best.value]
        settled.append(_settled(point, giver, bound, axis, is_open))
    return tuple(settled)


def _settled(point: Point, giver: Point | None, bound: Point, axis: Axis, is_open: bool) -> Point:
    if point.status is PointStatus.INFEASIBLE:
        return point
    ticks, argument = bound.lower_bound, bound.bound_from
    if bound.limit_bytes != point.limit_bytes and not argument.startswith(_AT):
        argument = f"{_AT}{bound.limit_bytes} bytes, {argument}"
    if giver is None or giver.document is None:
        return replace(point, lower_bound=ticks, bound_from=argument)
    given = giver.document
    problem = axis.under(given.schedule.problem, point.limit_bytes)
    if giver is not point and (is_open or ticks is None):
        own = best_bound(problem)
        if ticks is None or own.ticks < ticks:
            ticks, argument = own.ticks, f"of the schedule's placement alone, {own.name}: {own.argument}"
    assert ticks is not None
    certificate = Certificate(
        objective=given.certificate.objective,
        value=given.certificate.value,
        lower_bound=ticks,
        bound_from=argument,
    )
    schedule = replace(given.schedule, problem=problem)
    document = _verified(ScheduleDocument.of(schedule, certificate, given.provenance))
    moved = giver.limit_bytes != point.limit_bytes
    return replace(
        Point.found(point.limit_bytes, document, point.time_limit_s),
        reason=point.reason,
        taken_from_bytes=(giver.taken_from_bytes or giver.limit_bytes) if moved else giver.taken_from_bytes,
    )


_AT = "at a limit of "


def _verified(document: ScheduleDocument) -> ScheduleDocument:
    certificate = document.certificate
    if certificate.lower_bound > certificate.value:
        raise BackendError(
            f"the bound {certificate.lower_bound} ({certificate.bound_from}) is above a verified value, "
            f"{certificate.value}"
        )
    violations = verify_schedule(document.schedule, metrics=document.metrics, certificate=certificate)
    if violations:
        raise BackendError(f"a schedule of the frontier breaks a rule: {violations[0]}")
    return document
