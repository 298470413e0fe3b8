"""Processes that the runtime's tests share: starting one takes seconds, so each runs many cases."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from pathlib import Path

CASE_SECONDS = 90
"""How long a case may take before the pool gives up on it."""


class Pool:
    """Processes in which the same function runs at once, as the ranks of one world."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._cases = 0
        self._pipes, self._processes = [], []
        for number in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(number, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, count: int, function, *arguments, dead: int | None = None) -> list:
        """Run ``function(store, number, count, *arguments)`` in so many processes; their answers.

        An exception in one of them is raised here, with its traceback. A process that is to be ``dead`` by
        then gives no answer.
        """
        self._cases += 1
        store = str(Path(self._folder.name) / f"store-{self._cases}")
        pipes = self._pipes[:count]
        for pipe in pipes:
            pipe.send((function, store, count, arguments))
        answers = []
        for number, pipe in enumerate(pipes):
            if number == dead:
                self._processes[number].join(CASE_SECONDS)
                assert self._processes[number].exitcode == 9
                continue
            assert pipe.poll(CASE_SECONDS), f"process {number} has not answered within {CASE_SECONDS} s"
            answers.append(pipe.recv())
        failed = [text for good, text in answers if not good]
        assert not failed, "\n".join(failed)
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._folder.cleanup()


def _serve(number: int, pipe) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    from torch import distributed as dist

    torch.set_num_threads(1)
    while True:
        try:
            function, path, count, arguments = pipe.recv()
        except EOFError:
            return
        store = dist.FileStore(path, count)
        try:
            pipe.send((True, function(store, number, count, *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
        if dist.is_initialized():
            dist.destroy_process_group()
