"""The example without flushes, end to end."""

import re

import pytest

from synth.baselines import baseline_schedule
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, write_schedule
from synth.problem import uniform_problem
from tests.builders import EITHER
from tests.runtime_cases import train
from tests.test_runtime_train import FEW, free_port


@pytest.fixture
def document(tmp_path):
    """A document of two batches of three microbatches on two ranks; its path."""
    problem = uniform_problem(2, 6, EITHER, transfer_ticks=1)
    made = baseline_schedule("pipedream-2bw", problem)
    claim = Certificate(objective=problem.objective, value=made.value, lower_bound=0, bound_from="")
    origin = Provenance(method="pipedream-2bw", created="2026-01-01", tool_version="0")
    path = tmp_path / "unflushed.json"
    path.write_text(write_schedule(ScheduleDocument.of(made, claim, origin)))
    return str(path)


def answers(pool, *arguments):
    return pool.run(2, train, free_port(), [*arguments, *FEW])


def losses(pool, *arguments):
    """The losses of a run, in print."""
    found = answers(pool, *arguments, "--batch-microbatches", "3")
    assert [code for code, _, _ in found] == [0, 0], found
    return re.findall(r"loss ([\d.]+)", "".join(out for _, out, _ in found))


@pytest.mark.parametrize("weights", ["2bw", "stash"])
def test_loss_goes_down(pool, document, weights):
    found = [float(x) for x in losses(pool, "--schedule", document, "--steps", "25", "--weights", weights)]
    assert len(found) == 25
    assert found[-1] < found[0] - 0.5


def test_first_steps_differ_where_the_definitions_do(pool, document):
    """2BW's batches 0 and 1 use the first weights, a flush's batch 1 the second; then all differ."""
    flush = losses(pool, "--schedule", document, "--steps", "4")
    two = losses(pool, "--schedule", document, "--steps", "4", "--weights", "2bw")
    stash = losses(pool, "--schedule", document, "--steps", "4", "--weights", "stash")
    assert flush[0] == two[0] != stash[0]
    assert flush[1] != two[1]
    assert len({flush[3], two[3], stash[3]}) == 3
    later = losses(pool, "--schedule", document, "--steps", "4", "--weights", "2bw", "--flush-steps", "2")
    assert later[:3] == flush[:3]
    assert later[3] not in (flush[3], two[3])


def test_run_resumes_with_the_same_losses(pool, document, tmp_path):
    folder, run = str(tmp_path / "checkpoints"), ["--schedule", document, "--weights", "2bw"]
    whole = losses(pool, *run, "--steps", "6")
    first = losses(pool, *run, "--steps", "3", "--checkpoints", folder)
    rest = losses(pool, *run, "--steps", "3", "--resume", folder)
    assert first + rest == whole
    flushed = losses(pool, "--schedule", document, "--steps", "1", "--resume", folder)
    assert flushed != whole[3:4], "a flush goes on with the newest weights, 2BW with those before"


def test_ranks_that_train_another_way_are_told(pool, document):
    """With versions of their own each, they would run on and give wrong gradients."""
    arguments = ["--schedule", document, "--weights", "2bw", "--batch-microbatches", "3", *FEW]
    (code, _, told), (own_code, _, own) = pool.run(2, train, free_port(), arguments, ["--weights", "stash"])
    assert (own_code, code) == (2, 1)
    assert "rank 1 is given --weights stash and rank 0 2bw: give all ranks the same" in own
    assert "rank 1 failed in training: rank 1 is given --weights stash" in told
    arguments = ["--schedule", document, *FEW]
    (_, _, told), (_, _, own) = pool.run(2, train, free_port(), arguments, ["--batch-microbatches", "3"])
    assert "rank 1 is given batch_microbatches 3 and rank 0 None" in own
    assert "rank 1 is given batch_microbatches 3 and rank 0 None" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "2bw"], "--weights 2bw trains by a schedule of several batches: give --batch-mic"),
        (["--weights", "2bw", "--batch-microbatches", "0"], "--batch-microbatches is 0: give an integer ≥ 1"),
        (["--batch-microbatches", "3", "--timeline", "t.json"], "--timeline writes a whole schedule: leave"),
        (["--flush-steps", "9", "--steps", "8"], "--flush-steps is 9: give 0 to --steps, 8"),
        (["--weights", "2bw", "--batch-microbatches", "6"], "6 microbatches, which is not two or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(pool, document, arguments, message):
    for code, _, err in answers(pool, "--schedule", document, *arguments):
        assert (code, message in err) == (2, True), err
