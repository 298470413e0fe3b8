"""Many searches at once, each in a process of its own, so that none can take the others with it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from synth.errors import InputError
from synth.frontier.axis import Axis
from synth.frontier.points import Point, PointStatus, settle
from synth.frontier.worker import Search, Task, work
from synth.problem import Problem
from synth.search.synthesizer import Progress, synthesize

GRACE_S = 20.0
"""Seconds that searches under way get to hand over their best after an interrupt."""

LEAVE_S = 2.0
"""Seconds that an idle worker gets to leave by itself."""

OnProgress = Callable[[int, Progress], None]
OnPoint = Callable[[Point], None]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The points that came of a sweep, ascending, and whether an interrupt ended it before its time."""

    points: tuple[Point, ...]
    interrupted: bool = False


def sweep(
    problems: Sequence[Problem],
    axis: Axis,
    limits: Sequence[int],
    *,
    time_limit: float = 60.0,
    workers: int = 2,
    seed: int = 0,
    known: Sequence[Point] = (),
    on_progress: OnProgress | None = None,
    on_point: OnPoint | None = None,
    search: Search = synthesize,
) -> Sweep:
    """Search for the best schedule at every limit, several at a time, and let the points help one another.

    Every search runs in a worker process, started afresh (``spawn``): a script that calls this does so under
    ``if __name__ == "__main__":``. An interrupt (Ctrl-C) ends the searches under way with their best so far
    and leaves out the limits not begun.

    Parameters
    ----------
    problems
        The problem under every way in which it is stated (as ``alternatives`` of
        :func:`~synth.search.synthesizer.synthesize`); their own limits do not count.
    axis, limits
        What the limits mean, and those to search at, bytes.
    time_limit
        Seconds for each limit.
    workers
        Threads in all: limits are searched side by side, and each gets its share.
    seed
        Of all random choices.
    known
        Points of an earlier sweep of the same problem. Those with as much time are not searched again, and
        all may help.
    on_progress, on_point
        Called with a limit and where its search stands, and with every point as its search ends, no worse
        than what is known.
    search
        Called in the worker for each limit.

    Returns
    -------
    A point for each limit, verified; after an interrupt for those searched or known.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}: give at least 1")
    task = Task(
        problems=tuple(problems), axis=axis, time_limit_s=time_limit, threads=1, seed=seed, search=search
    )
    by_time = sorted(known, key=lambda point: point.time_limit_s)
    there = {point.limit_bytes: point for point in by_time}
    missing = [n for n in limits if n not in there or not is_searched(there[n], time_limit)]

    def note(point: Point) -> None:
        if on_point:
            on_point(settle([point], axis, problems, known)[0])

    crew = _Crew(task, workers, missing, on_progress, note)
    interrupted = crew.run()
    found = {limit: there[limit] for limit in limits if limit in there} | crew.points
    points = settle([found[limit] for limit in sorted(found)], axis, problems, known)
    return Sweep(points, interrupted)


def is_searched(point: Point, time_limit_s: float) -> bool:
    """Whether a search of so many seconds would be no more than this point has had."""
    return point.status is PointStatus.OPTIMAL or point.time_limit_s >= time_limit_s


@dataclass(slots=True)
class _Worker:
    """A process, the line to it, and the limit it searches at, if any."""

    process: BaseProcess
    connection: Connection
    task: Task
    limit_bytes: int | None = None

    @classmethod
    def start(cls, task: Task) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(task, theirs), daemon=True)
        with _interrupts_ignored():  # which the process inherits while it is not ready to
            process.start()
        theirs.close()
        return cls(process, ours, task)

    def give(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        with suppress(OSError):  # a process that has died is noticed when it is listened to
            self.connection.send(limit_bytes)

    def end(self) -> None:
        self.connection.close()
        if self.limit_bytes is None:
            self.process.join(LEAVE_S)
        self.process.kill()
        self.process.join()


class _Crew:
    """The workers of one sweep."""

    def __init__(
        self,
        task: Task,
        threads: int,
        limits: Sequence[int],
        on_progress: OnProgress | None,
        on_point: OnPoint,
    ) -> None:
        self.points: dict[int, Point] = {}
        self._waiting = deque(limits)
        self._on_progress, self._on_point = on_progress, on_point
        self._shares = [replace(task, threads=share) for share in _shares(threads, len(limits))]
        self._workers: list[_Worker] = []
        self._is_ending = False

    def run(self) -> bool:
        """Search at all limits; whether an interrupt came."""
        try:
            for task in self._shares:
                self._workers.append(_Worker.start(task))
                self._occupy()
            while self._busy():
                self._listen()
        except KeyboardInterrupt:
            self._is_ending = True
            self._waiting.clear()
            self._collect()
            return True
        finally:
            for worker in self._workers:
                worker.end()
        return False

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.limit_bytes is not None]

    def _occupy(self) -> None:
        for worker in self._workers:
            if worker.limit_bytes is None and self._waiting:
                worker.give(self._waiting.popleft())

    def _collect(self) -> None:
        """Ask the searches under way for what they have."""
        for worker in self._busy():
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        while self._busy() and time.monotonic() < deadline:
            self._listen(deadline - time.monotonic())

    def _listen(self, timeout_s: float | None = None) -> None:
        """Hear whoever has something to say, and give those that are done the next limit."""
        busy = {worker.connection: worker for worker in self._busy()}
        for connection in wait(list(busy), timeout_s):
            assert isinstance(connection, Connection)
            self._hear(busy[connection])
        self._occupy()

    def _hear(self, worker: _Worker) -> None:
        limit = worker.limit_bytes
        assert limit is not None
        try:
            message: Progress | Point | None = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, Progress):
            if self._on_progress:
                self._on_progress(limit, message)
            return
        worker.limit_bytes = None
        if message is not None:
            self._note(message)

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: its point has failed, and another takes its place where there is more to do.

        One that was told to end before it was ready to search has nothing to say.
        """
        limit = worker.limit_bytes
        assert limit is not None
        self._workers.remove(worker)
        worker.end()
        if self._is_ending:
            return
        self._note(Point(limit_bytes=limit, status=PointStatus.FAILED, reason=_death(worker.process)))
        if self._waiting:
            self._workers.append(_Worker.start(worker.task))

    def _note(self, point: Point) -> None:
        self.points[point.limit_bytes] = point
        self._on_point(point)


def _death(process: BaseProcess) -> str:
    code = process.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"the worker process {how}"


def _shares(threads: int, limits: int) -> list[int]:
    """The threads of every worker process: as many processes as there are threads or limits to search."""
    processes = min(threads, limits)
    return [threads // processes + (n < threads % processes) for n in range(processes)]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
