"""Ray as the executor: the same answers, and quick sentences where no cluster is."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from synth.errors import InputError
from synth.planner import ray_executor
from synth.planner.ray_executor import RayExecutor

RAY = """if True:
    from plan_cases import recipe_of
    from synth.planner.executors import SerialExecutor
    from synth.planner.ray_executor import RayExecutor
    from synth.planner.sweeping import sweep
    recipe = recipe_of(2, batch=4)
    executor = RayExecutor("local", 2)
    try:
        assert executor.width == 2
        there = sweep(recipe, executor, keep=3)
        executor.submit(int, "none")
        try:
            executor.next()
        except ValueError as error:
            assert type(error) is ValueError, "what a call raises is raised here"
    finally:
        executor.close()
    assert there.ranking()[:3] == sweep(recipe, SerialExecutor(), keep=3).ranking()[:3]
    print("the same")
"""


def test_ray_finds_the_same(tmp_path):
    """The same code path on Ray's workers, on this machine."""
    pytest.importorskip("ray")
    there = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", RAY],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": there},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("the same")
    assert not done.stderr, "Ray keeps quiet"


@contextmanager
def listening(answer):
    """A port of this machine at which something answers, or with None hears and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve():
            connection, _ = server.accept()
            with connection:
                if answer is not None:
                    connection.recv(1024)
                    connection.sendall(answer)
                ended.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "why"), [(None, "timed out"), (b"HTTP/1.1 400 Bad Request", "something else is there")]
)
def test_what_is_no_cluster(monkeypatch, answer, why):
    monkeypatch.setattr(ray_executor, "PATIENCE_S", 0.2)
    with listening(answer) as address, pytest.raises(InputError) as refused:
        RayExecutor(address, 1)
    assert str(refused.value) == f"no Ray cluster at {address} answers ({why}): start one, or give local"


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(InputError, match="answers \\(connection refused\\): start one, or give local"):
        RayExecutor(address, 1)


@pytest.mark.parametrize("address", ["", "here", "10.0.0.1:1x", "10.0.0.1:0", "10.0.0.1:65536", "ray://a"])
def test_what_is_no_address(address):
    with pytest.raises(InputError, match="is no address of a Ray cluster: give HOST:PORT, auto or local"):
        RayExecutor(address, 1)
