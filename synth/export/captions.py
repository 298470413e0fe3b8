"""The line of numbers under a schedule's title."""

from __future__ import annotations

from synth.certificate import Certificate, Status
from synth.export.shown import Shown
from synth.export.units import BytesUnit, TimeUnit
from synth.problem import Problem
from synth.schedule import measure


def caption(shown: Shown, time: TimeUnit, memory: BytesUnit) -> str:
    """Objective and value, bubble, bound and gap, and the fullest rank's peak beside its limit."""
    problem = shown.schedule.problem
    metrics = measure(shown.schedule)
    parts = [
        f"{problem.objective} {time.write(problem, metrics.value(problem.objective))}",
        f"bubble {metrics.bubble_ratio:.2%}",
    ]
    if shown.certificate is not None:
        value = metrics.value(shown.certificate.objective)
        parts.append(_bound(shown.certificate, value, problem, time))
    parts.append(_peak(problem, metrics.peak_memory_bytes, memory))
    return ", ".join(parts)


def _bound(certificate: Certificate, value: int, problem: Problem, time: TimeUnit) -> str:
    """What is proved; of a measured schedule, whose value is another one, said of the plan."""
    if certificate.value != value:
        planned = f"planned {time.write(problem, certificate.value)}"
        return f"{planned} with bound {time.write(problem, certificate.lower_bound)}"
    if certificate.status is Status.OPTIMAL:
        return "proved optimal"
    return f"bound {time.write(problem, certificate.lower_bound)} (gap {certificate.gap:.2%})"


def _peak(problem: Problem, peaks: tuple[int, ...], memory: BytesUnit) -> str:
    """The peak of the rank nearest to its limit, or the highest where there is none."""
    limits = problem.memory_limit_bytes
    if limits is None:
        return f"peak memory {memory.number(max(peaks))} {memory.name}".rstrip()
    _, peak, limit = max((peak - limit, peak, limit) for peak, limit in zip(peaks, limits, strict=True))
    over = " (over it)" if peak > limit else ""
    return f"peak memory {memory.number(peak)} of {memory.number(limit)} {memory.name}".rstrip() + over
