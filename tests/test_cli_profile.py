"""``pipesynth profile`` as typed: tables, documents, and what wrong input gets."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import check_refused

from costmodels.measured.link_costs import uniform_links, write_links
from synth.document import read_problem

MLP, MODEL = "tests.measured_models:mlp", "tests.measured_models:language_model"
QUICK = ["--repeats", "2", "--warm-up", "1", "--threads", "1", "--device", "cpu", "--tick-seconds", "1e-7"]
SHAPES = ["--shapes-only", "--gpu", "h100", "--tick-seconds", "1e-10"]
DATA = Path(__file__).parent / "data"
TRACES = ["--trace", DATA / "pp-trace-rank0.json", "--trace", DATA / "pp-trace-rank1.json"]


@pytest.fixture
def path(folder):
    return folder / "problem.json"


def test_a_model_is_measured(run, path):
    answer = run("profile", MODEL, "--ranks", 2, "--split", "both", *QUICK, "-o", path)
    assert answer.code == 0
    assert "measured on CPU, 1 thread, torch" in answer.out
    assert "times: medians of 2 by host time, after 1 to warm up" in answer.out
    assert answer.out.count("deferred") >= 4
    assert answer.out.count("native") >= 4
    problem = read_problem(path.read_text())
    assert (problem.num_ranks, problem.num_stages, problem.num_microbatches) == (2, 2, 8)
    assert [name for costs in problem.stages for name in costs.layers] == ["0", "1", "2", "3"]
    assert "backward divided: deferred" in problem.source
    assert all(costs.can_divide and not costs.must_divide for costs in problem.stages)


def test_the_problem_is_synthesized(run, path):
    schedule = path.parent / "schedule.json"
    assert run("profile", MLP, "--cut", "1,3", *SHAPES, "--memory-limit", "1MiB", "-o", path).code == 0
    assert run("synthesize", path, "-o", schedule, "--time-limit", "1", "--workers", "1").code == 0
    assert run("verify", schedule).code == 0


def test_stages_ranks_and_chunks(run, path):
    for flags, homes in (
        (["--stages", "4"], (0, 1, 2, 3)),
        (["--stages", "4", "--ranks", "2"], (0, 1, 1, 0)),
        (["--chunks", "2", "--ranks", "2", "--placement", "loop"], (0, 1, 0, 1)),
        (["--cut", "1,1,1,1", "--ranks", "2"], (0, 1, 1, 0)),
    ):
        answer = run("profile", MLP, *SHAPES, *flags, "--microbatches", 3, "-o", path)
        assert answer.code == 0
        problem = read_problem(path.read_text())
        assert (problem.stage_to_rank, problem.num_microbatches) == (homes, 3)


def test_native_division_frees_nothing_at_b(run, path):
    assert run("profile", MLP, "--cut", "1,3", *SHAPES, "--split", "native", "-o", path).code == 0
    first, second = read_problem(path.read_text()).stages
    assert (second.B.free_bytes, second.W.free_bytes) == (0, second.F.alloc_bytes + second.B.alloc_bytes)
    assert second.B.alloc_bytes > 0
    assert first.B.ticks < first.W.ticks


def test_no_split_offers_the_whole_backward_only(run, path):
    assert run("profile", MLP, "--stages", "2", *SHAPES, "--split", "none", "-o", path).code == 0
    assert not any(costs.can_divide for costs in read_problem(path.read_text()).stages)


def test_links(run, path):
    links = path.parent / "links.json"
    links.write_text(write_links(uniform_links(2, 1e-3, 1e6, "ping-pong by hand")))
    flags = ["profile", MLP, "--cut", "1,3", *SHAPES, "-o", path]
    assert run(*flags, "--links", links).code == 0
    problem = read_problem(path.read_text())
    assert problem.transfer_ticks[0][1] * problem.tick_seconds == pytest.approx(1e-3 + 4 * 6 * 12 / 1e6)
    assert "transfers: ping-pong by hand" in problem.source
    assert run(*flags, "--link", "nvlink4").code == 0
    assert "transfers: nvlink4 at 0.8 of its peak" in read_problem(path.read_text()).source
    check_refused(run(*flags, "--ranks", "1", "--links", links), "links were measured between 2 ranks, and 1")


def test_json(run):
    answer = run("profile", MLP, "--cut", "2,2", *SHAPES, "--split", "both", "--json")
    assert answer.code == 0
    deferred, native = answer.json["profiles"]
    assert (deferred["split"], native["split"]) == ("deferred", "native")
    stage = native["stages"][1]
    assert stage["layers"] == ["down", "norm"]
    assert stage["net_bytes"]["W"] == -stage["held_after_b_bytes"]
    assert stage["times"]["F"]["count"] == 1
    assert stage["optimizer_bytes"] == 2 * stage["gradients_bytes"]


def test_optimizer_copies(run):
    answer = run("profile", MLP, "--stages", "1", *SHAPES, "--optimizer-copies", "0", "--json")
    assert answer.json["profiles"][0]["stages"][0]["optimizer_bytes"] == 0


def test_coarse_rounding_is_said(run):
    answer = run("profile", MLP, "--stages", "1", "--shapes-only", "--gpu", "h100")
    assert answer.code == 0
    assert "give a shorter --tick-seconds" in answer.err


def test_traces(run, path):
    answer = run("profile", *TRACES, "-o", path)
    assert answer.code == 0
    assert "device-side PP: ranges" in answer.out
    problem = read_problem(path.read_text())
    assert [costs.F.ticks for costs in problem.stages] == [41, 52]
    again = run("profile", *TRACES, "--onto", path, "--json")
    assert again.code == 0
    assert again.json["stages"][1]["W"]["median_s"] == pytest.approx(30e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "neither FACTORY nor --trace is given: give module:function"),
        ([MLP, *TRACES], "FACTORY and --trace are both given"),
        ([MLP, "--onto", "problem.json"], "--onto is given without --trace"),
        ([*TRACES, "--onto", "p.json", "--tick-seconds", "1e-6"], "--onto and --tick-seconds are both given"),
        ([MLP], "neither --ranks nor --stages nor --cut is given"),
        ([MLP, "--stages", "3", "--ranks", "2"], "3 stages are given with --ranks 2: give a multiple of 2"),
        ([MLP, "--cut", "1,0"], "'0' is given; give an integer ≥ 1, or several with commas between"),
        ([MLP, "--cut", "1,x"], "'x' is given; give an integer"),
        ([MLP, "--cut", "1,1"], "a cut into 1,1 layers is given, and tests.measured_models:mlp returns 4"),
        ([MLP, "--stages", "2", "--chunks", "2"], "not allowed with argument"),
        ([MLP, "--stages", "2", "--shapes-only"], "--shapes-only and --gpu go together"),
        ([MLP, "--stages", "2", "--gpu", "h100"], "--shapes-only and --gpu go together"),
        ([MLP, "--stages", "2", "--shapes-only", "--gpu", "h99"], "'h99' is no GPU of the catalogue"),
        ([MLP, "--stages", "2", "--split", "half"], "'half' is none of deferred, native, both, none"),
        ([MLP, "--stages", "2", "--memory-limit", "much"], "'much' is no size"),
        (["no_such_module:f", "--stages", "2"], "there is no module no_such_module"),
        (["--trace", "no-such-file.json"], "no-such-file.json does not exist"),
    ],
)
def test_wrong_input_is_named(run, words, said):
    check_refused(run("profile", *words), said)


def test_device_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check_refused(run("profile", MLP, "--stages", "2", "--device", "cuda"), "torch sees no GPU: give cpu")


def test_wrong_input_leaves_the_file_alone(run, path):
    path.write_text("as it was")
    check_refused(
        run("profile", "tests.measured_models:raises", "--stages", "1", "-o", path), "no weights here"
    )
    assert path.read_text() == "as it was"


def test_without_torch_traces_are_read_and_measuring_says_what_it_needs(path):
    def without_torch(*words):
        code = (
            "import sys; sys.modules['torch'] = None; from synth import cli; sys.exit(cli.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, "profile", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = without_torch(MLP, "--stages", "2")
    assert refused.returncode == 2
    assert refused.stderr.startswith("pipesynth: measuring needs torch, which is not installed: pip install")
    assert without_torch(*TRACES, "-o", path).returncode == 0
