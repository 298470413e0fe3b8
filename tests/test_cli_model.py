"""``pipesynth model`` as typed: tables, documents, and what wrong input gets."""

import json
import os
import subprocess
import sys

import pytest
from models import CONFIGS

from synth import cli
from synth.document import read_problem

LLAMA = ["model", str(CONFIGS / "llama-3-70b.json"), "--gpu", "h100", "--pp", "8", "--tp", "8"]
WORK = ["--microbatch", "1", "--seq", "8192", "--microbatches", "64"]
SMALL = ["--gpu", "a100-80", "--pp", "2", "--microbatch", "1", "--seq", "512", "--microbatches", "4"]


@pytest.fixture
def run(capsys):
    """Run ``pipesynth`` in this process: exit code, standard output, standard error."""

    def run_command(*words):
        capsys.readouterr()
        code = cli.main(list(map(str, words)))
        return code, *capsys.readouterr()

    return run_command


def test_the_example(run, tmp_path):
    """What fits: seven microbatches on the ends, eight between; 1F1B lacks 90 MiB on the first rank."""
    path = tmp_path / "problem.json"
    code, out, err = run(*LLAMA, *WORK, "-o", path)
    assert (code, err) == (0, "")
    assert "70.55B parameters" in out
    assert "model.embed_tokens … model.layers.9" in out
    assert out.count("76.00      fits") == 7
    assert out.count("76.00  too much") == 1
    assert "1F1B does not fit." in out
    assert "with --sequence-parallel: 1f1b fits" in out
    problem = read_problem(path.read_text())
    assert (problem.num_ranks, problem.num_microbatches, problem.num_stages) == (8, 64, 8)
    assert problem.source.startswith("analytic: llama-3-70b, 70553706496 parameters")


def test_the_problem_is_synthesized(run, tmp_path):
    """A small model, end to end."""
    problem, schedule = tmp_path / "problem.json", tmp_path / "schedule.json"
    assert run("model", CONFIGS / "gpt2.json", *SMALL, "-o", problem)[0] == 0
    assert run("synthesize", problem, "-o", schedule, "--time-limit", "1")[0] == 0
    assert run("verify", schedule)[0] == 0


def test_1f1b_is_the_one_that_synthesize_compares_with(run, tmp_path):
    """In a V too, where 1F1B still has one stage per rank."""
    problem, schedule = tmp_path / "problem.json", tmp_path / "schedule.json"
    _, out, _ = run("model", CONFIGS / "gpt2.json", *SMALL, "--chunks", "2", "--json", "-o", problem)
    said = [rank["one_f_one_b_bytes"] for rank in json.loads(out)["ranks"]]
    _, out, _ = run("synthesize", problem, "-o", schedule, "--time-limit", "0.5", "--json")
    assert json.loads(out)["baseline_1f1b"]["peak_memory_bytes"] == said


def test_transfers_that_ticks_lose_are_said(run, tmp_path):
    """At 0.4 ms a tick Llama's transfers round to nothing: all of them is lost."""
    path = tmp_path / "problem.json"
    words = ["--gpu", "h100", "--pp", "4", "--microbatch", "1", "--seq", "4096", "--microbatches", "8"]
    code, _, err = run("model", CONFIGS / "llama-3-8b.json", *words, "--tick-seconds", "0.0004", "-o", path)
    assert code == 0
    assert "rounding changes a transfer by up to 100.0%: give a shorter --tick-seconds" in err
    problem = read_problem(path.read_text())
    assert not any(map(any, problem.transfer_ticks))
    assert "100% of a transfer" in problem.source


def test_chunks_go_down_and_up(run, tmp_path):
    path = tmp_path / "problem.json"
    for flags in (["--chunks", "2"], ["--stages", "16"]):
        assert run(*LLAMA, *WORK, *flags, "-o", path)[0] == 0
        assert read_problem(path.read_text()).stage_to_rank == (*range(8), *reversed(range(8)))
    assert run(*LLAMA, *WORK, "--chunks", "2", "--placement", "loop", "-o", path)[0] == 0
    assert read_problem(path.read_text()).stage_to_rank == (*range(8), *range(8))


def test_nothing_fits(run, tmp_path):
    """The document is written all the same, and says the limit; no cut fits: exit code 1."""
    path = tmp_path / "problem.json"
    code, out, err = run(*LLAMA, *WORK, "--memory-limit", "24GiB", "-o", path)
    assert code == 1
    assert "No cut that fits was found" in out
    assert "with --sequence-parallel: one microbatch at a time fits" in out
    assert (
        err == "pipesynth: no cut that fits was found: one microbatch is too much "
        "for rank 0, 1, 2, 3, 4, 5, 6, 7\n"
    )
    assert read_problem(path.read_text()).memory_limit_bytes == (24 * 2**30,) * 8


def test_json(run):
    code, out, _ = run(*LLAMA, *WORK, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["parameters"] == 70_553_706_496
    assert [rank["microbatches_that_fit"] for rank in answer["ranks"]] == [7, 8, 8, 8, 8, 8, 8, 7]
    assert answer["stages"][0][0] == "model.embed_tokens"
    assert {"change": "--sequence-parallel", "fits": "1f1b"} in answer["remedies"]


def test_document_on_standard_output(run):
    """Tables then go to standard error."""
    _, out, err = run("model", CONFIGS / "gpt2.json", *SMALL, "-o", "-")
    assert read_problem(out).name == "gpt2"
    assert "1F1B fits on every rank." in err


def test_configuration_from_standard_input():
    text = (CONFIGS / "gpt2.json").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "synth.cli", "model", "-", *SMALL],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parents[1])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.12B parameters" in done.stdout


def test_model_from_flags(run):
    numbers = ["--layers", "12", "--hidden", "768", "--heads", "12", "--vocab", "50257", "--style", "gpt"]
    code, out, _ = run("model", *numbers, *SMALL, "--json")
    assert code == 0
    # 124,439,808 with 1024 positions; here there are 512.
    assert json.loads(out)["parameters"] == 124_439_808 - 512 * 768


def test_coarse_ticks_are_said(run):
    code, _, err = run("model", CONFIGS / "gpt2.json", *SMALL, "--tick-seconds", "0.001")
    assert code == 0
    assert "rounding changes an op by up to" in err
    assert "give a shorter --tick-seconds" in err


def test_flags_reach_the_problem(run, tmp_path):
    path = tmp_path / "problem.json"
    words = [
        *("--sequence-parallel", "--recompute", "full", "--dp", "4", "--zero", "2", "--no-split"),
        *("--dtype", "fp16", "--gradient-bytes", "2", "--attention", "core", "--link", "nvlink"),
        *("--efficiency", "matmul=0.7", "--efficiency", "memory=0.6", "--objective", "rank_span"),
        *("--first", "9", "--last", "8", "--latency", "2e-4"),
    ]
    assert run(*LLAMA, *WORK, *words, "-o", path)[0] == 0
    problem = read_problem(path.read_text())
    assert problem.stages[0].B is None
    assert problem.objective == "rank_span"
    for said in (
        *("sequence parallel", "full recomputation", "ZeRO-2", "fp16 with gradients of 2 bytes"),
        *("core attention", "matmul 0.7", "memory 0.6", "over nvlink4 (200 us)", "blocks per stage: 9"),
    ):
        assert said in problem.source


CONFIG = str(CONFIGS / "gpt2.json")


@pytest.mark.parametrize(
    ("flags", "among"),
    [
        ("--memory-limit 60GiB", "--chunks 2 --placement v"),
        ("--memory-limit 60GiB --stages 8", "--stages 16 --placement v"),
        ("--memory-limit 75GiB --stages 16", "--pp 16 --stages 32"),
        ("--memory-limit 75GiB --chunks 2 --dp 2", "--zero 1"),
        ("--memory-limit 77GiB --attention core --recompute selective", "--attention flash --recompute none"),
        ("--attention core --no-split", "--recompute full"),
    ],
)
def test_suggestions_can_be_typed_and_hold(run, flags, among):
    found = json.loads(run(*LLAMA, *WORK, *flags.split(), "--json")[1])["remedies"]
    assert among in [remedy["change"] for remedy in found]
    for remedy in found:
        code, out, _ = run(*LLAMA, *WORK, *flags.split(), *remedy["change"].split(), "--json")
        assert code == 0
        ranks = json.loads(out)["ranks"]
        if remedy["fits"] == "1f1b":
            assert all(rank["one_f_one_b_bytes"] <= rank["limit_bytes"] for rank in ranks)


REFUSED = [
    (["model", *SMALL], "neither CONFIG nor --layers is given: give a config.json, or --layers --hidden"),
    (["model", CONFIG, "--layers", "3", *SMALL], "CONFIG and --layers are both given"),
    (["model", CONFIG, "--style", "llama", *SMALL], "CONFIG and --style are both given"),
    (["model", CONFIG, "--kv-heads", "3", *SMALL], "CONFIG and --kv-heads are both given"),
    (["model", CONFIG, "--intermediate", "3", *SMALL], "CONFIG and --intermediate are both given"),
    (["model", CONFIG, *SMALL, "--zero", "1"], "--zero 1 is given with --dp 1, and one replica has none"),
    (["model", CONFIG, *SMALL, "--dtype", "fp32", "--gradient-bytes", "2"], "give --gradient-bytes 4"),
    (["model", CONFIG, *SMALL, "--microbatches", "1000000000"], "give an integer from 1 to 1048576"),
    (["model", CONFIG, *SMALL, "--gpu", "h10"], "'h10' is no GPU of the catalogue: perhaps h100 is meant"),
    (["model", CONFIG, *SMALL, "--link", "string"], "'string' is no link of the catalogue"),
    (["model", CONFIG, *SMALL, "--tp", "5"], "--tp 5 is given with 12 attention heads: give a divisor of 12"),
    (["model", CONFIG, *SMALL, "--tp", "0"], "give an integer ≥ 1"),
    (["model", CONFIG, *SMALL, "--seq", "2048"], "gpt2 knows 1024 positions: give at most 1024"),
    (["model", CONFIG, *SMALL, "--pp", "40"], "40 stages are asked of a model that can be cut into 15 parts"),
    (["model", CONFIG, *SMALL, "--stages", "5"], "--stages 5 is given with --pp 2: give a multiple of 2"),
    (["model", CONFIG, *SMALL, "--stages", "4", "--chunks", "2"], "--chunks and --stages are both given"),
    (["model", CONFIG, *SMALL, "--chunks", "3", "--placement", "v"], "v placement needs exactly two stages"),
    (["model", CONFIG, *SMALL, "--first", "13"], "no cut has the blocks asked for"),
    (["model", CONFIG, *SMALL, "--memory-limit", "0.5x"], "memory size '0.5x' is no size"),
    (["model", CONFIG, *SMALL, "--efficiency", "matmul"], "--efficiency matmul is given: give NAME=SHARE"),
    (["model", CONFIG, *SMALL, "--efficiency", "speed=1"], "give NAME=SHARE with a name of matmul"),
    (["model", CONFIG, *SMALL, "--efficiency", "memory=nan"], "the memory efficiency is nan: give a share"),
    (["model", CONFIG, *SMALL, "--recompute", "some"], "'some' is none of none, selective, full"),
    (["model", CONFIG, *SMALL, "--ep", "2"], "--ep 2 is given with --dp 1"),
    (["model", CONFIG, *SMALL, "--zero", "3"], "give an integer from 0 to 2"),
    (["model", CONFIG, *SMALL, "--tick-seconds", "0"], "'0' is no time"),
    (["model", CONFIG, *SMALL, "--json", "-o", "-"], "--json and -o - both write to standard output"),
    (["model", CONFIG, *SMALL, "--gpu", "v100"], "v100 is given with bf16, which it does not have"),
    (["model", CONFIG, *SMALL, "--recompute", "selective"], "leave it out, or give --recompute full"),
    (["model", "nothing.json", *SMALL], "nothing.json does not exist"),
]


@pytest.mark.parametrize(
    ("words", "message"), REFUSED, ids=lambda given: given if isinstance(given, str) else ""
)
def test_wrong_input_is_refused_in_a_sentence(run, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_a_refusal_leaves_the_output_alone(run, tmp_path):
    path = tmp_path / "problem.json"
    path.write_text("before")
    assert run("model", CONFIG, *SMALL, "--tp", "5", "-o", path)[0] == 2
    assert path.read_text() == "before"
