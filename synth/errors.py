"""The exceptions of the planner.

::

    SynthError
    ├── InputError (also ValueError)   what was given is wrong: exit code 2
    │   ├── InvalidValueError          a value that cannot mean anything; carries its place
    │   │   ├── InvalidProblemError    in a problem
    │   │   └── InvalidTopologyError   in a topology
    │   ├── InvalidOrdersError         orders that do not hold a problem's ops, or that deadlock
    │   │   └── DeadlockError          carries each rank's next op and what it waits for
    │   ├── DocumentError              a file that is not what it claims; carries the JSON path
    │   └── BaselineUndefinedError     a published schedule that does not exist for this problem
    ├── InfeasibleError                no schedule exists: exit code 1; carries the ranks and limits
    ├── NoScheduleFoundError           none was found, though none may not be the answer: exit code 1
    └── BackendError                   a solver answered something we cannot read: our bug or its
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SynthError(Exception):
    """Anything the planner raises on purpose."""


class InputError(SynthError, ValueError):
    """What was given breaks a rule; the message says which and what would do."""


class InvalidValueError(InputError):
    """A value that cannot mean anything where it stands.

    Parameters
    ----------
    where
        The place, as a JSON path below the document's root, e.g. ``stages[0].F.ticks``.
    given
        The value found there, as it should be shown.
    rule
        What would be accepted instead.
    """

    def __init__(self, where: str, given: object, rule: str) -> None:
        self.where, self.given, self.rule = where, given, rule
        super().__init__(f"{where} is {given}: {rule}")


class InvalidProblemError(InvalidValueError):
    """A problem that cannot mean anything."""


class InvalidTopologyError(InvalidValueError):
    """A topology that cannot mean anything."""


class InvalidOrdersError(InputError):
    """Per-rank orders that do not hold exactly the ops of their problem."""


@dataclass(frozen=True, slots=True)
class WaitingRank:
    """A rank that cannot go on: its next op and the ops that one waits for, in print form."""

    rank: int
    next_op: str
    waits_for: tuple[str, ...]

    def __str__(self) -> str:
        return f"rank {self.rank} is at {self.next_op}, which waits for {', '.join(self.waits_for)}"


class DeadlockError(InvalidOrdersError):
    """Orders in which every unfinished rank waits for another."""

    def __init__(self, waiting: Sequence[WaitingRank]) -> None:
        self.waiting = tuple(waiting)
        super().__init__(
            "the orders deadlock: "
            + "; ".join(map(str, self.waiting))
            + ". Move one of the awaited ops ahead of what its rank does now"
        )


class DocumentError(InputError):
    """A document that is not what it claims to be.

    Parameters
    ----------
    path
        Where in the document, as a JSON path such as ``$.stages[0].F.ticks``.
    given
        The value found there, as it should be shown.
    rule
        What would be accepted instead.
    source
        The name of the file, or ``-``.
    """

    def __init__(self, path: str, given: str, rule: str, source: str = "") -> None:
        self.path, self.given, self.rule, self.source = path, given, rule, source
        super().__init__(f"{source + ': ' if source else ''}{path} is {given}: {rule}")


class BaselineUndefinedError(InputError):
    """A published schedule that is not defined for this problem; the message says why."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} is not defined here: {reason}")


class InfeasibleError(SynthError):
    """No schedule exists within the limits.

    Parameters
    ----------
    reasons
        One sentence per rank that cannot do with its limit.
    smallest_limit_bytes
        The smallest limit per rank that would do, length ``num_ranks``.
    """

    def __init__(self, reasons: Sequence[str], smallest_limit_bytes: Sequence[int]) -> None:
        self.reasons = tuple(reasons)
        self.smallest_limit_bytes = tuple(smallest_limit_bytes)
        super().__init__("no schedule exists: " + "; ".join(self.reasons))


class NoScheduleFoundError(SynthError):
    """No schedule was found within the limits, and that there is none is not proved either."""


class BackendError(SynthError):
    """A solver or a search returned what it must not; the message says what."""
