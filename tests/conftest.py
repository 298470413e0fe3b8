"""Fixtures that several test modules share."""

import signal
from dataclasses import replace

import pytest
from builders import EITHER, two_by_two
from commands import FAST, Answer
from hypothesis import settings

from synth import cli
from synth.document import write_problem
from tests.runtime_pool import Pool

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")  # the first example may wait for a compiler


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heard():
    """A shell starts jobs in the background deaf to Ctrl-C, and so would be all that tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(capsys):
    """Run ``pipesynth`` in this process."""

    def run_command(*words):
        capsys.readouterr()
        code = cli.main(list(map(str, words)))
        return Answer(code, capsys.readouterr())

    return run_command


@pytest.fixture
def folder(tmp_path):
    """A folder to write into, in which no temporary file is left."""
    yield tmp_path
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.fixture
def problem_file(folder):
    """Two ranks, two microbatches: solved to the proved optimum at once."""
    path = folder / "problem.json"
    path.write_text(write_problem(replace(two_by_two(EITHER), name="two-ranks")))
    return path


@pytest.fixture
def schedule_file(run, problem_file):
    path = problem_file.parent / "schedule.json"
    assert run("synthesize", problem_file, "-o", path, *FAST).code == 0
    return path


@pytest.fixture(scope="session")
def pool():
    """Four processes in which the runtime's tests run their ranks; they start when first used."""
    pool = Pool(4)
    yield pool
    pool.close()
