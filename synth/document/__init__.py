"""The JSON documents: ``pipesynth.problem``, ``.schedule`` (FORMATS.md), ``.timeline`` and ``.topology``.

A document is read in three steps, each of which refuses with the JSON path, the value found there and what
would be accepted: ``text`` (to JSON), ``conversion`` (to the types of ``wire``), ``domain`` or ``topology``.
``python -m synth.document`` regenerates the JSON Schemas from the wire types.
"""

from __future__ import annotations

from typing import Any

import msgspec

from synth.document.conversion import check_header, convert
from synth.document.domain import (
    ScheduleDocument,
    problem_from_wire,
    problem_to_wire,
    schedule_from_wire,
    schedule_to_wire,
    timeline_from_wire,
    timeline_to_wire,
)
from synth.document.refusal import Refusal
from synth.document.text import layout, parse_strictly
from synth.document.topology import topology_from_wire
from synth.document.wire import (
    PROBLEM_FORMAT,
    SCHEDULE_FORMAT,
    TIMELINE_FORMAT,
    TOPOLOGY_FORMAT,
    VERSION,
    ProblemWire,
    ScheduleWire,
    TimelineWire,
    TopologyWire,
    generate_schemas,
)
from synth.measured import Timeline
from synth.problem import Problem
from synth.topology import Topology

__all__ = [
    "PROBLEM_FORMAT",
    "SCHEDULE_FORMAT",
    "TIMELINE_FORMAT",
    "TOPOLOGY_FORMAT",
    "VERSION",
    "ScheduleDocument",
    "generate_schemas",
    "read_problem",
    "read_schedule",
    "read_schedule_or_timeline",
    "read_timeline",
    "read_topology",
    "write_problem",
    "write_schedule",
    "write_timeline",
]


def read_problem(text: str | bytes, source: str = "") -> Problem:
    """Read a problem document.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        In one sentence: the JSON path, the value found there, and what would be accepted.
    """
    refuse = Refusal(source)
    tree = parse_strictly(text, refuse)
    check_header(tree, PROBLEM_FORMAT, "$", refuse)
    return problem_from_wire(convert(tree, ProblemWire, refuse), "$", refuse)


def write_problem(problem: Problem) -> str:
    """Write a problem document; reading it gives an equal problem."""
    return layout(msgspec.to_builtins(problem_to_wire(problem, problem.placement)))


def read_schedule(text: str | bytes, source: str = "") -> ScheduleDocument:
    """Read a schedule document, whose schedule and claims may still be wrong: that is the verifier's to say.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        In one sentence: the JSON path, the value found there, and what would be accepted.
    """
    refuse = Refusal(source)
    return _schedule(parse_strictly(text, refuse, SCHEDULE_FORMAT), refuse)


def read_timeline(text: str | bytes, source: str = "") -> Timeline:
    """Read a timeline document.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        In one sentence: the JSON path, the value found there, and what would be accepted.
    """
    refuse = Refusal(source)
    return _timeline(parse_strictly(text, refuse, TIMELINE_FORMAT), refuse)


def read_schedule_or_timeline(text: str | bytes, source: str = "") -> ScheduleDocument | Timeline:
    """Read whichever of the two a document says it is.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        As for a schedule document, unless the header names a timeline.
    """
    refuse = Refusal(source)
    tree = parse_strictly(text, refuse, SCHEDULE_FORMAT)
    is_timeline = isinstance(tree, dict) and tree.get("format") == TIMELINE_FORMAT
    return _timeline(tree, refuse) if is_timeline else _schedule(tree, refuse)


def write_timeline(timeline: Timeline) -> str:
    """Write a timeline document, its problem's placement resolved to ``stage_to_rank``."""
    return layout(msgspec.to_builtins(timeline_to_wire(timeline)))


def write_schedule(document: ScheduleDocument) -> str:
    """Write a schedule document, its problem's placement resolved to ``stage_to_rank``."""
    return layout(msgspec.to_builtins(schedule_to_wire(document)))


def read_topology(text: str | bytes, source: str = "") -> Topology:
    """Read a topology document.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        In one sentence: the JSON path, the value found there, and what would be accepted.
    """
    refuse = Refusal(source)
    tree = parse_strictly(text, refuse, TOPOLOGY_FORMAT)
    check_header(tree, TOPOLOGY_FORMAT, "$", refuse)
    return topology_from_wire(convert(tree, TopologyWire, refuse), refuse)


def _schedule(tree: Any, refuse: Refusal) -> ScheduleDocument:
    _check_headers(tree, SCHEDULE_FORMAT, refuse)
    return schedule_from_wire(convert(tree, ScheduleWire, refuse), refuse)


def _timeline(tree: Any, refuse: Refusal) -> Timeline:
    _check_headers(tree, TIMELINE_FORMAT, refuse)
    return timeline_from_wire(convert(tree, TimelineWire, refuse), refuse)


def _check_headers(tree: Any, expected: str, refuse: Refusal) -> None:
    """A document's own header and that of the problem inside."""
    check_header(tree, expected, "$", refuse)
    if isinstance(tree.get("problem"), dict):
        check_header(tree["problem"], PROBLEM_FORMAT, "$.problem", refuse)
