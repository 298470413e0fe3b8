"""The machines of a Ray cluster as an executor; Ray is an extra (``pip install 'pipesynth[ray]'``)."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from synth.errors import InputError

LOCAL = "local"
"""The address that starts Ray on this machine alone."""
AUTO = "auto"
"""The address of the cluster that this machine belongs to."""
PATIENCE_S = 5.0
"""How long an address has to answer."""
RETRIES = "3"
"""How often Ray tries, a second apart, where something answers that may be no cluster; it would 20 times."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of gRPC says first: the preface of HTTP/2 and empty settings (RFC 9113, section 3.4)."""
_SETTINGS = 4


class RayExecutor:
    """Gives calls to the workers of a Ray cluster, as many at once as it has CPUs.

    Every machine of the cluster has this package installed.

    Parameters
    ----------
    address
        Of a running cluster, ``auto`` for the one this machine belongs to, or ``local`` to start one here.
    workers
        How many CPUs one started here takes.

    Raises
    ------
    InputError
        When Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, workers: int) -> None:
        if address not in (LOCAL, AUTO):
            _check_answers(address)
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", RETRIES)
        self._ray = _ray()
        given = (
            {"num_cpus": workers, "include_dashboard": False} if address == LOCAL else {"address": address}
        )
        try:
            with _quiet():
                self._ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **given)
        except (OSError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
            raise _no_cluster(address, _line(error)) from error
        self.width = int(self._ray.cluster_resources().get("CPU", 1))
        self._remote = self._ray.remote(max_retries=2)(_call)
        self._under_way: list[Any] = []

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Give a call to the next CPU that is free."""
        self._under_way.append(self._remote.remote(call, *arguments))

    def next(self) -> Any:
        """Wait for a call to be done."""
        try:
            done, self._under_way = self._ray.wait(self._under_way, num_returns=1)
            return self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise InputError(
                f"the Ray cluster has lost a call ({_line(error)}): see that every machine has this package "
                "and memory enough"
            ) from error

    def close(self) -> None:
        """Leave the cluster; what is not done is dropped."""
        for reference in self._under_way:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _call(call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments)


def _ray() -> Any:
    # Ray reports what is run with it to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray is given, and Ray is not installed: pip install 'pipesynth[ray]'") from error
    return ray


def _check_answers(address: str) -> None:
    """See that something there speaks gRPC: Ray itself would try for minutes.

    Raises
    ------
    InputError
        When the address is none, or nothing answers in time.
    """
    found = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[^:/]+):(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 2**16:
        raise InputError(f"{address!r} is no address of a Ray cluster: give HOST:PORT, auto or local")
    try:
        with socket.create_connection((found[1].strip("[]"), int(found[2])), PATIENCE_S) as connection:
            connection.sendall(_GREETING)
            answer = connection.recv(9)  # the head of a frame: three bytes of length, then its type
    except OSError as error:
        raise _no_cluster(address, (error.strerror or str(error)).lower()) from error
    if answer[3:4] != bytes([_SETTINGS]):
        raise _no_cluster(address, "something else is there")


def _no_cluster(address: str, why: str) -> InputError:
    return InputError(f"no Ray cluster at {address} answers ({why}): start one, or give local")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray's C++ says on standard error while it connects: what is wrong, the exception says."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120]
