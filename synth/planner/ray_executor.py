"""The machines of a Ray cluster as an executor; Ray is an extra (``pip install 'pipesynth[ray]'``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from synth.errors import InputError

LOCAL = "local"
"""The address that starts Ray on this machine alone."""


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
        self._ray = _ray()
        given = (
            {"num_cpus": workers, "include_dashboard": False} if address == LOCAL else {"address": address}
        )
        try:
            self._ray.init(log_to_driver=False, logging_level="error", **given)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"no Ray cluster at {address} answers ({_line(error)}): start one, or give local"
            ) from error
        self.width = int(self._ray.cluster_resources().get("CPU", 1))
        self._remote = self._ray.remote(max_retries=2)(_call)
        self._under_way: list[Any] = []

    def submit(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Give a call to the next CPU that is free."""
        self._under_way.append(self._remote.remote(call, *arguments))

    def next(self) -> Any:
        """Wait for a call to be done."""
        done, self._under_way = self._ray.wait(self._under_way, num_returns=1)
        return self._ray.get(done[0])

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


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120]
