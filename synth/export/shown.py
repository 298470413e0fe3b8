"""What an exporter shows: a schedule under a title, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from synth.certificate import Certificate
from synth.ops import Op
from synth.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A schedule to show under a title, and what is known of it."""

    title: str
    schedule: Schedule
    certificate: Certificate | None = None
    """Value, lower bound and gap."""
    marked: tuple[Op, ...] = ()
    """Ops to point out, such as the critical path, in order of time."""
    notes: tuple[str, ...] = ()
    """Sentences shown with it."""
