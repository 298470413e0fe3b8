"""``pipesynth plan`` as typed: tables, documents, folders, and what wrong input gets."""

import json

import pytest
from models import CONFIGS
from plan_cases import Broken

from synth.document import read_schedule
from synth.planner.sweeping import sweep
from synth.verify import verify_schedule

SMALL = [
    *("--layers", "4", "--hidden", "256", "--heads", "4", "--vocab", "512", "--style", "gpt"),
    *("--cluster", "4xa100-40", "--batch", "8", "--seq", "256", "--workers", "1"),
]
QUICK = [*SMALL, "--synthesize", "0"]


def test_the_table(run):
    answer = run("plan", *QUICK, "--keep", "3")
    assert answer.code == 0
    assert "gpt, 4 layers of 256 on 4xa100-40: 8 sequences of 256 tokens per update" in answer.out
    for text in ("pp", "microbatch", "sequences/s", "at least s", "configurations judged in", "best by when"):
        assert text in answer.out
    blocks, held = (answer.out.split(said)[1].split("\n")[0] for said in ("by stage: ", "by rank, GiB: "))
    assert sum(map(int, blocks.split())) == 4
    assert all(0 < float(gib) <= 40 for gib in held.replace(", of", "").split())
    assert sum(line.split()[:1] == [str(n)] for n in (1, 2, 3) for line in answer.out.splitlines()) == 3


def test_json_and_document(run, folder):
    """The document is that of the first plan, and the plans are in order."""
    path = folder / "best.json"
    answer = run("plan", *QUICK, "--weights", "flush", "--pp", "4", "--json", "-o", path)
    told = json.loads(answer.out)
    steps = [plan["step_seconds"] for plan in told["plans"]]
    assert steps == sorted(steps)
    best = told["plans"][0]
    assert best["tokens_per_second"] == pytest.approx(8 * 256 / best["step_seconds"])
    assert best["at_least_seconds"] <= best["step_seconds"]
    document = read_schedule(path.read_text())
    assert not verify_schedule(document.schedule)
    peaks = list(document.metrics.peak_memory_bytes)
    assert max(peaks) == best["peak_memory_bytes"]
    assert told["best"]["peak_memory_bytes_by_rank"] == peaks
    stages = told["best"]["stages"]
    assert [stage["rank"] for stage in stages] == list(document.schedule.problem.stage_to_rank)
    assert sum(len(stage["layers"]) for stage in stages) == len({n for s in stages for n in s["layers"]})
    assert document.metrics.makespan * 1e-6 == pytest.approx(best["step_seconds"])
    judged = told["judged"]
    assert judged["laid_out"] + judged["too_large"] <= judged["configurations"]


@pytest.mark.parametrize(("room", "batches"), [(1, 0), (2, 2), (9, 3)])
def test_double_buffering_is_written_over_several_batches(run, folder, monkeypatch, room, batches):
    """With room for one alone nothing is: the file would not show what happens between batches."""
    path = folder / "best.json"
    monkeypatch.setattr("synth.planner.documents.MOST_OPS", room * 3 * 2 * 8)
    words = ["--weights", "2bw", "--pp", "2", "--dp", "1", "--microbatch", "1", "-o", path]
    answer = run("plan", *QUICK, *words)
    assert "pipedream-2bw" in answer.out
    assert path.exists() == bool(batches)
    if batches:
        problem = read_schedule(path.read_text()).schedule.problem
        assert (answer.code, problem.num_microbatches) == (0, 8 * batches)
        assert f"{batches} batches of 8 microbatches, not flushed between them" in problem.source
    else:
        assert answer.code == 2
        assert "8 microbatches are too many to write two batches of the best plan" in answer.err


def test_the_synthesizer_takes_part(run, folder):
    path = folder / "best.json"
    words = ["--pp", "2", "--dp", "1", "--tp", "2", "--weights", "flush", "--synthesize", "1"]
    answer = run("plan", *SMALL, *words, "--time-limit", "1", "-o", path, "--json")
    assert json.loads(answer.out)["judged"]["synthesized"] == 1
    assert not verify_schedule(read_schedule(path.read_text()).schedule)


def test_a_folder_is_gone_on_from(run, folder):
    kept = folder / "sweep"
    first = run("plan", *QUICK, "--folder", kept, "--json")
    lines = (kept / "judged.jsonl").read_text().splitlines()
    second = run("plan", *QUICK, "--folder", kept, "--json")
    assert json.loads(first.out)["plans"] == json.loads(second.out)["plans"]
    assert (kept / "judged.jsonl").read_text().splitlines() == lines
    other = run("plan", *QUICK, "--batch", "16", "--folder", kept)
    assert other.code == 2
    assert "is of another model, cluster or batch" in other.err


@pytest.mark.parametrize(("answers", "code"), [(20, 0), (0, 130)])
def test_interrupted(run, monkeypatch, answers, code):
    """The best so far is shown; with nothing to show, the exit code says so."""
    monkeypatch.setattr("synth.cli.commands.plan.executor_of", lambda _: Broken(answers))
    answer = run("plan", *SMALL)
    assert answer.code == code
    assert "interrupted: this is the best so far; with --folder it could go on" in answer.err
    assert ("sequences/s" in answer.out) == (code == 0)
    assert "are still open" in answer.out
    assert "cannot be among the best" not in answer.out


def test_interrupted_while_synthesizing(run, monkeypatch):
    """Nothing is open behind a whole sweep."""
    swept = Broken(10**6)

    def broken_after(*given, **named):
        standing = sweep(*given, **named)
        swept.answers = 0
        return standing

    monkeypatch.setattr("synth.cli.commands.plan.executor_of", lambda _: swept)
    monkeypatch.setattr("synth.cli.commands.plan.sweep", broken_after)
    answer = run("plan", *SMALL, "--time-limit", "1")
    assert answer.code == 0
    assert "interrupted: this is the best so far" in answer.err
    assert "cannot be among the best by bounds" in answer.out
    assert "are still open" not in answer.out


def test_what_heads_do_not_allow_is_counted(run):
    """Four heads on three GPUs: not for want of memory."""
    words = [
        "--cluster",
        "3xa100-40",
        "--tp",
        "3",
        "--batch",
        "1",
        "--recompute",
        "none",
        "--weights",
        "flush",
    ]
    answer = run("plan", *QUICK, *words)
    assert "1 configurations judged in" in answer.out
    assert "1 cannot be trained so or cannot fit, 0 cannot be among the best" in answer.out
    assert "4 attention heads" in answer.err


def test_fixed_degrees(run):
    words = ["--dp", "2", "--recompute", "full", "--schedule", "1f1b,gpipe", "--neighbours", "stages"]
    plans = json.loads(run("plan", *QUICK, *words, "--json").out)["plans"]
    assert {plan["dp"] for plan in plans} == {2}
    assert {plan["recompute"] for plan in plans} == {"full"}
    assert {plan["schedule"] for plan in plans} <= {"1f1b", "gpipe"}


def test_pipedreams_planner(run):
    """Its stages take all layers and GPUs, and the rate is that of its slowest stage."""
    answer = run("plan", *SMALL, "--planner", "pipedream", "--microbatch", "1,2", "--json")
    told = json.loads(answer.out)
    assert {plan["minibatch"] for plan in told["plans"]} == {1, 2}
    for plan in told["plans"]:
        assert sum(stage["layers"] for stage in plan["stages"]) == 4 + 4  # and embedding, norm, head, loss
        assert sum(stage["replicas"] for stage in plan["stages"]) == 4
        assert plan["batch_seconds"] == pytest.approx(8 / plan["sequences_per_second"])
        assert plan["fits"] == (plan["peak_memory_bytes"] <= plan["memory_limit_bytes"])
    table = run("plan", *SMALL, "--planner", "pipedream")
    assert table.code == 0
    assert "PipeDream's planner: gpt, 4 layers of 256 on 4xa100-40" in table.out


def test_pipedreams_planner_takes_equal_nodes(run):
    answer = run("plan", *SMALL, "--planner", "pipedream", "--cluster", "12xa100-40")
    assert answer.code == 2
    assert "12 GPUs are given in nodes of 8" in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ["--pp", "2"],
        ["--dp", "2"],
        ["--tp", "2"],
        ["--chunks", "2"],
        ["--weights", "flush"],
        ["--neighbours", "stages"],
        ["--schedule", "1f1b"],
        ["--sequence-parallel"],
        ["--zero", "1"],
        ["--synthesize", "0"],
        ["--time-limit", "1"],
        ["--folder", "kept"],
        ["--ray"],
        ["-o", "best.json"],
    ],
    ids=" ".join,
)
def test_what_pipedreams_planner_has_no_use_for(run, words):
    answer = run("plan", *SMALL, "--planner", "pipedream", *words)
    assert answer.code == 2
    assert f"{words[0]} is given with --planner pipedream, which has no use for it" in answer.err


def test_a_choice_given_twice_is_one(run):
    """In the count of configurations and everywhere else."""
    once, twice = (
        json.loads(run("plan", *QUICK, "--json", *words).out)["judged"]["configurations"]
        for words in (
            ["--chunks", "2", "--pp", "2", "--weights", "flush", "--schedule", "1f1b"],
            ["--chunks", "2,2", "--pp", "2,2", "--weights", "flush,flush", "--schedule", "1f1b,1f1b"],
        )
    )
    assert once == twice > 0


def test_pipedreams_plan_may_not_fit(run):
    config = CONFIGS / "llama-3-8b.json"
    words = ["--cluster", "2xa100-40", "--batch", "4", "--seq", "512", "--planner", "pipedream"]
    answer = run("plan", config, *words)
    assert answer.code == 1
    assert "no plan of PipeDream's fits" in answer.err


def test_what_the_gpu_does_not_have_is_wrong_input(run):
    """Not a plan that does not fit."""
    answer = run("plan", *QUICK, "--cluster", "4xv100")
    assert (answer.code, answer.out) == (2, "")
    assert "which it does not have: give --dtype fp16" in answer.err


def test_nothing_fits(run):
    config = CONFIGS / "llama-3-70b.json"
    words = ["--cluster", "4xa100-40", "--batch", "4", "--seq", "2048", "--workers", "1"]
    answer = run("plan", config, *words)
    assert answer.code == 1
    assert "ways fits: static bytes and one microbatch take" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cluster", "many"], "many does not exist"),
        (["--cluster", "4xq100"], "'q100' is no GPU"),
        (["--batch", "0"], "'0' is given; give an integer"),
        (["--pp", "2,x"], "'x' is given; give an integer"),
        (["--recompute", "some"], "'some' is none of none, selective, full"),
        (["--schedule", "2f2b"], "'2f2b' is no schedule of a plan"),
        (["--schedule", "chimera"], "'chimera' is no schedule of a plan"),
        (["--json", "-o", "-"], "--json and -o - both write"),
        (["--pp", "3"], "no plan has these degrees: pp · dp · tp must be the GPUs"),
        (["--weights", "2bw", "--pp", "4", "--batch", "2"], "at least as many microbatches as ranks: give"),
        (["--weights", "2bw", "--pp", "4", "--chunks", "2"], "--weights 2bw takes one stage per rank"),
        (["--weights", "2bw", "--schedule", "1f1b"], "none of these schedules exists for them"),
        (["--planner", "pipedream"], "--synthesize is given with --planner pipedream"),
        (["--ray", "10.0.0.1:1x", "--workers", "2"], "'10.0.0.1:1x' is no address of a Ray cluster"),
    ],
)
def test_wrong_input(run, words, said):
    answer = run("plan", *QUICK, *words)
    assert answer.code in (1, 2)
    assert said in answer.err
    assert "Traceback" not in answer.err
