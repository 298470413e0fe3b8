"""The example end to end: the loss goes down, a run resumes as if it had never stopped, timelines."""

import re
import socket
import subprocess
import sys
from itertools import pairwise

import pytest

from runtime.train import main
from synth.baselines import baseline_orders
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, read_timeline, write_schedule
from synth.placement import PlacementKind
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.runtime_cases import Case, timeline_of_a_step, train, train_without_measuring

FEW = ["--microbatch-size", "2", "--positions", "16", "--hidden", "32", "--vocabulary", "32"]


def schedule(name, num_ranks, chunks=1, kind=PlacementKind.LOOP):
    problem = uniform_problem(num_ranks, 4, EITHER, chunks=chunks, kind=kind, transfer_ticks=1)
    return schedule_orders(problem, baseline_orders(name, problem))


@pytest.fixture
def written(tmp_path):
    """Write a schedule document; its path."""

    def write(name, num_ranks, **options):
        made = schedule(name, num_ranks, **options)
        claim = Certificate(objective=made.problem.objective, value=made.value, lower_bound=0, bound_from="")
        origin = Provenance(method=name, created="2026-01-01", tool_version="0")
        path = tmp_path / f"{name}-{num_ranks}.json"
        path.write_text(write_schedule(ScheduleDocument.of(made, claim, origin)))
        return str(path)

    return write


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run(pool, count, *arguments):
    """The losses of a run, in print."""
    answers = pool.run(count, train, free_port(), [*arguments, *FEW])
    assert [code for code, _, _ in answers] == [0] * count, answers
    return re.findall(r"loss ([\d.]+)", "".join(out for _, out, _ in answers))


def test_loss_goes_down(pool, written):
    losses = [float(loss) for loss in run(pool, 2, "--schedule", written("zb-h1", 2), "--steps", "25")]
    assert losses[0] > 3.4, "about the logarithm of 32 tokens"
    assert losses[-1] < losses[0] - 0.7


def test_schedules_divisions_and_replicas_give_the_same_losses(pool, written):
    one = run(pool, 2, "--schedule", written("1f1b", 2), "--steps", "4", "--layers", "4")
    native = run(
        pool, 2, "--schedule", written("zb-h1", 2), "--steps", "4", "--layers", "4", "--division", "native"
    )
    assert native == one
    halves = run(pool, 4, "--schedule", written("zb-h1", 2), "--steps", "4", "--layers", "4")
    assert len(halves) == 4
    assert halves != one, "twice the batch"


def test_run_resumes_with_the_same_losses(pool, written, tmp_path):
    """Even on other ranks: a checkpoint is by stage."""
    folder = str(tmp_path / "checkpoints")
    two, four = written("v-half", 2, chunks=2, kind=PlacementKind.V), written("zb-h2", 4)
    whole = run(pool, 2, "--schedule", two, "--steps", "6")
    first = run(pool, 2, "--schedule", two, "--steps", "3", "--checkpoints", folder)
    rest = run(pool, 4, "--schedule", four, "--steps", "3", "--resume", folder)
    assert first + rest == whole
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-3"]


def test_resuming_without_a_checkpoint_is_refused_on_all_ranks(pool, written, tmp_path):
    arguments = ["--schedule", written("zb-h1", 2), "--steps", "1", "--resume", str(tmp_path)]
    answers = pool.run(2, train, free_port(), arguments)
    assert [code for code, _, _ in answers] == [2, 2]
    assert all("holds no checkpoint: name the folder" in err for _, _, err in answers)


def test_shares_and_recomputation_change_no_loss(pool, written):
    """Two replicas of two ranks."""
    arguments = ["--schedule", written("zb-h1", 2), "--steps", "3"]
    plain = run(pool, 4, *arguments)
    assert len(plain) == 3
    assert run(pool, 4, *arguments, "--gradients", "reduce-scatter", "--recompute") == plain


def test_sharing_a_gpu_is_refused_where_none_is_to_share(pool, written):
    ((code, _, err),) = pool.run(1, train, free_port(), ["--schedule", written("zb-h1", 2), "--share-gpu"])
    assert code == 2
    assert err.startswith("rank 0: a GPU is to be shared and ")


def test_checkpoint_of_another_model_is_refused(pool, written, tmp_path):
    folder, path = str(tmp_path / "checkpoints"), written("zb-h1", 2)
    run(pool, 2, "--schedule", path, "--steps", "1", "--checkpoints", folder)
    answers = pool.run(2, train, free_port(), ["--schedule", path, "--resume", folder, "--hidden", "64"])
    assert [code for code, _, _ in answers] == [2, 2]
    assert all("is of another model than this run" in err for _, _, err in answers)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of it", b"hello"])
def test_damaged_checkpoint_is_refused(pool, written, tmp_path, content):
    folder, path = tmp_path / "checkpoints", written("zb-h1", 2)
    run(pool, 2, "--schedule", path, "--steps", "1", "--checkpoints", str(folder))
    for stage in range(2):
        (folder / "step-1" / f"stage-{stage}.pt").write_bytes(content)
    answers = pool.run(2, train, free_port(), ["--schedule", path, "--resume", str(folder), *FEW])
    assert {code for code, _, _ in answers} <= {1, 2}
    assert all("is damaged or no checkpoint of a stage: resume from another" in err for *_, err in answers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps is 0: give an integer ≥ 1"),
        (["--microbatch-size", "-1"], "--microbatch-size is -1: give an integer ≥ 1"),
        (["--heads", "0"], "--heads is 0: give an integer ≥ 1"),
        (["--learning-rate", "nan"], "--learning-rate is nan: give a number above 0"),
        (["--timeout", "0"], "--timeout is 0: give a number above 0"),
        (["--schedule", "-"], "--schedule - is standard input, which reaches no rank: name a file"),
        (["--timeline-steps", "3"], "--timeline-steps is given without --timeline: name the file to write"),
        (
            ["--steps", "2", "--timeline", "t.json", "--timeline-steps", "3"],
            "--timeline-steps is 3: give 1 to --steps, 2",
        ),
        (["--timeline", f"{__file__}/t"], f"--timeline: there is no folder {__file__}: create it first"),
        (["--checkpoints", __file__], "cannot be made (File exists): name another"),
    ],
)
def test_options_are_refused_before_anything_runs(written, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("runtime.train.time.sleep", lambda _: None)
    assert main(["--schedule", written("zb-h1", 2), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_process_without_others_is_told_how_to_start_them(written, capsys, monkeypatch):
    monkeypatch.setattr("runtime.train.time.sleep", lambda _: None)
    monkeypatch.delenv("RANK", raising=False)
    assert main(["--schedule", written("zb-h1", 2)]) == 2
    assert "not set): start it with torchrun --nproc-per-node 2" in capsys.readouterr().err


def test_interrupted_process_says_so(written, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.train.time.sleep", lambda _: None)
    monkeypatch.setattr("runtime.train._join", interrupted)
    assert main(["--schedule", written("zb-h1", 2)]) == 130
    assert capsys.readouterr().err == "rank 0: interrupted\n"


def test_rank_with_another_model_is_told_on_all(pool, written):
    answers = pool.run(2, train, free_port(), ["--schedule", written("zb-h1", 2), *FEW], ["--hidden", "64"])
    (code, _, told), (own_code, _, own) = answers
    assert (own_code, code) == (2, 1)
    assert own.startswith("rank 1: stage 1 cannot take what stage 0 gives, (2, 16, 32) of float32: ")
    assert told.startswith("rank 0: rank 1 failed in starting: stage 1 cannot take what stage 0 gives")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (["--steps", "3"], "rank 1 is given --steps 3 and rank 0 1: give all ranks the same"),
        (["--learning-rate", "1"], "rank 1 is given --learning-rate 1.0 and rank 0 0.003: give all ranks"),
        (["--timeline", "-"], "rank 1 is given --timeline True and rank 0 False: give all ranks the"),
    ],
)
def test_rank_with_other_arguments_is_told_on_all(pool, written, odd, message):
    answers = pool.run(2, train, free_port(), ["--schedule", written("zb-h1", 2), "--steps", "1", *FEW], odd)
    assert [code for code, _, _ in answers] == [1, 2]
    assert all(message in err for *_, err in answers)


def test_timeline_of_a_step_has_its_orders_and_no_overlaps(pool):
    made = schedule("v-half", 2, chunks=2, kind=PlacementKind.V)
    text, nothing = pool.run(2, timeline_of_a_step, Case(schedule=made))
    assert nothing is None
    timeline = read_timeline(text)
    assert timeline.orders == made.orders
    ends = {op: end for rank in timeline.ranks for op, _, end in rank}
    for rank in timeline.ranks:
        assert all(a.end_ns <= b.start_ns for a, b in pairwise(rank))
        for op, start, end in rank:
            assert 0 <= start < end
            if op.kind == "F" and op.stage > 0:
                assert start >= ends[op._replace(stage=op.stage - 1)] - 2_000_000, "clocks within 2 ms"


def test_torchrun_trains_and_writes_a_timeline(written, tmp_path):
    """The README's command."""
    path, timeline = written("zb-h1", 2), tmp_path / "timeline.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "runtime.train", "--schedule", path, "--steps", "2", "--timeline", str(timeline), *FEW]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"step \d  loss", done.stdout)) == 2
    written_there = read_timeline(timeline.read_text())
    assert written_there.orders == schedule("zb-h1", 2).orders
    assert min(written_there.peak_memory_bytes) > 100_000, "weights, gradients and moments of AdamW alone"


def test_step_that_measures_memory_may_have_any_loss(pool, written, tmp_path):
    """A last update that ruins the weights does not undo the steps before."""
    path, timeline = written("zb-h1", 2), tmp_path / "timeline.json"
    run(pool, 2, "--schedule", path, "--steps", "1", "--learning-rate", "1e20", "--timeline", str(timeline))
    assert min(read_timeline(timeline.read_text()).peak_memory_bytes) > 100_000


def test_timeline_is_of_a_step_of_median_length(pool, written, tmp_path):
    path, timeline = written("zb-h1", 2), tmp_path / "timeline.json"
    for steps, said in (
        (("5",), "the median of the last 5 steps"),
        (("5", "--timeline-steps", "1"), "the last step"),
    ):
        run(pool, 2, "--schedule", path, "--timeline", str(timeline), "--steps", *steps)
        assert read_timeline(timeline.read_text()).source.endswith(f", {said}")


def test_failure_while_memory_is_measured_loses_no_times(pool, written, tmp_path):
    path, timeline = written("zb-h1", 2), tmp_path / "timeline.json"
    arguments = ["--schedule", path, "--steps", "1", "--timeline", str(timeline), *FEW]
    answers = pool.run(2, train_without_measuring, free_port(), arguments)
    assert [code for code, _, _ in answers] == [1, 1]
    assert "the timeline says nothing of memory: the step that measures it failed" in answers[0][2]
    assert all("the layer is broken" in err for *_, err in answers)
    kept = read_timeline(timeline.read_text())
    assert (kept.orders, kept.peak_memory_bytes, kept.held_bytes) == (schedule("zb-h1", 2).orders, None, None)


def test_torchrun_with_other_processes_than_ranks_is_refused(written):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    command += ["-m", "runtime.train", "--schedule", written("zb-h1", 2)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "1 processes are started for a schedule of 2 ranks: start 2" in done.stderr
