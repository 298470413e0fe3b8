"""What runs in a worker process: the search at one limit after another, until its connection closes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from synth.document import ScheduleDocument
from synth.errors import InfeasibleError, NoScheduleFoundError
from synth.frontier.axis import Axis
from synth.frontier.points import Point, PointStatus
from synth.problem import Problem
from synth.search.synthesizer import Progress, Result

Search = Callable[..., Result]
"""What is called like :func:`~synth.search.synthesizer.synthesize`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker is told once: the problem in every statement, its axis, and how to search."""

    problems: tuple[Problem, ...]
    axis: Axis
    time_limit_s: float
    threads: int
    seed: int
    search: Search


class _Interrupted(KeyboardInterrupt):
    """The parent wants what there is."""


def work(task: Task, connection: Connection) -> None:
    """Take limits from the connection; send :class:`Progress` and in the end what :func:`find_point` finds.

    Ctrl-C reaches every process of a terminal; it is the parent that answers it, with a SIGTERM to those
    workers whose search is to end with the best so far. A worker ends with its parent, however that ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    termination = Termination()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            limit_bytes: int = connection.recv()
        except (EOFError, OSError):
            return
        point = find_point(task, limit_bytes, connection.send, termination)
        connection.send(point)


def find_point(
    task: Task, limit_bytes: int, report: Callable[[Progress], None], termination: Termination
) -> Point | None:
    """Search at one limit; whatever goes wrong is part of the answer.

    None where an interrupt came before there was anything to answer.
    """
    begun = time.monotonic()
    try:
        with termination:
            result = _search(task, limit_bytes, report)
        had = time.monotonic() - begun if termination.came else task.time_limit_s
        document = ScheduleDocument.of(result.schedule, result.certificate, result.provenance)
        return Point.found(limit_bytes, document, had)
    except InfeasibleError as error:
        smallest = min(_needed(task, error.smallest_limit_bytes))
        return Point(
            limit_bytes=limit_bytes,
            status=PointStatus.INFEASIBLE,
            reason=str(error),
            smallest_limit_bytes=smallest,
            time_limit_s=task.time_limit_s,
        )
    except NoScheduleFoundError as error:
        reason, status = str(error), PointStatus.UNKNOWN
    except _Interrupted:
        return None
    except MemoryError:
        reason, status = "the search ran out of memory", PointStatus.FAILED
    except Exception as error:  # one point's failure is not to lose the others
        reason, status = f"the search failed: {error}", PointStatus.FAILED
    return Point(limit_bytes=limit_bytes, status=status, reason=reason)


def _search(task: Task, limit_bytes: int, report: Callable[[Progress], None]) -> Result:
    stated = [task.axis.under(problem, limit_bytes) for problem in task.problems]
    return task.search(
        stated[0],
        alternatives=stated[1:],
        time_limit=task.time_limit_s,
        workers=task.threads,
        seed=task.seed,
        on_progress=report,
    )


def _needed(task: Task, smallest: Sequence[int]) -> list[int]:
    return [task.axis.needed(problem, smallest) for problem in task.problems]


class Termination:
    """A SIGTERM: an interrupt of the search under way, or of the next one; those behind it are nothing."""

    def __init__(self) -> None:
        self.came = False
        self._is_searching = False
        signal.signal(signal.SIGTERM, self._come)

    def __enter__(self) -> None:
        self._is_searching = True
        if self.came:
            raise _Interrupted

    def __exit__(self, *_: object) -> None:
        self._is_searching = False

    def _come(self, *_: object) -> None:
        is_first, self.came = not self.came, True
        if is_first and self._is_searching:
            raise _Interrupted


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
