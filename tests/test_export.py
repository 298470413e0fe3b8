"""The ``export`` command: targets, what it refuses, where it writes; and the units and captions it shares."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from synth import cli
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, write_schedule
from synth.errors import InputError, InvalidOrdersError
from synth.export import TARGETS, Shown, export
from synth.export.captions import caption
from synth.export.torch_names import torch_action
from synth.export.units import BytesUnit, TimeUnit, bytes_unit, significant, time_unit
from synth.ops import Op, OpKind
from synth.problem import Objective
from tests.builders import good_schedule, schedule_of, two_by_two

BEFORE = b"what was there before"
BEGINS = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF", "perfetto": b"{"}


def document_of(schedule, **provenance):
    certificate = Certificate(
        objective=schedule.problem.objective, value=15, lower_bound=12, bound_from="a guess"
    )
    made = Provenance(method="by hand", created="2026-11-21T00:00:00+00:00", tool_version="0", **provenance)
    return write_schedule(ScheduleDocument.of(schedule, certificate, made))


@pytest.fixture
def folder(tmp_path):
    """A folder to write into, in which no temporary file is left."""
    yield tmp_path
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.fixture
def schedule_file(folder):
    path = folder / "schedule.json"
    path.write_text(document_of(good_schedule()))
    return path


@pytest.fixture
def run(capsys):
    """Run ``pipesynth export`` in this process; the answer is (exit code, standard error)."""

    def run_command(*words):
        code = cli.main(["export", *map(str, words)])
        return code, capsys.readouterr().err

    return run_command


# What it writes.


@pytest.mark.parametrize("target", BEGINS)
def test_every_target_writes_its_kind_of_file(run, schedule_file, target):
    path = schedule_file.parent / f"out{TARGETS[target].suffix}"
    assert run(schedule_file, "--to", target, "-o", path) == (0, "")
    assert path.read_bytes().startswith(BEGINS[target])


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_named_in_the_help(capsys, target):
    assert cli.main(["export", "--help"]) == 0
    assert f"{target}: {TARGETS[target].what.split()[0]}" in " ".join(capsys.readouterr().out.split())


def test_standard_input_and_output(schedule_file, monkeypatch):
    class Stream(io.TextIOWrapper):
        def __init__(self, data=b""):
            super().__init__(io.BytesIO(data), encoding="utf-8")

    out = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(schedule_file.read_bytes()))
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["export", "-", "--to", "png", "-o", "-"]) == 0
    assert out.buffer.getvalue().startswith(BEGINS["png"])


def test_titles_are_the_name_and_method_or_as_given(run, folder):
    schedule = good_schedule(replace(two_by_two(), name="two-ranks"))
    (folder / "a.json").write_text(document_of(schedule))
    out = folder / "trace.json"
    for words, titles in (((), ["two-ranks: by hand"] * 2), (("--title", "A", "--title", "B"), ["A", "B"])):
        assert run(folder / "a.json", folder / "a.json", "--to", "perfetto", "-o", out, *words)[0] == 0
        schedules = json.loads(out.read_text())["otherData"]["schedules"]
        assert [schedule["title"] for schedule in schedules] == titles


# What it refuses.


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (
            ("--to", "gif", "-o", "x"),
            "'gif' is no export target: use one of torch-csv, torchtitan, automodel, slot-csv, html",
        ),
        (("--to", "svg"), "export needs -o: name the file to write, such as schedule.svg, or -"),
        (("-o", "x"), "the following arguments are required: --to"),
        (("--to", "svg", "-o", ""), "-o is given without a file name"),
        (("--to", "svg", "-o", "absent/x.svg"), "there is no folder"),
        (
            ("--to", "svg", "-o", "x", "--title", "A", "--title", "B"),
            "--title is given 2 times for 1 schedules",
        ),
    ],
)
def test_wrong_arguments(run, schedule_file, monkeypatch, words, pattern):
    monkeypatch.chdir(schedule_file.parent)
    code, said = run(schedule_file, *words)
    assert code == 2
    assert pattern in said
    assert said.count("\n") == 1


def test_too_many_schedules(run, schedule_file):
    code, said = run(*[schedule_file] * 9, "--to", "svg", "-o", schedule_file.parent / "x.svg")
    assert code == 2
    assert "9 schedules are given: svg takes 1 to 8 schedules in a file" in said


def test_standard_input_is_read_once(run):
    code, said = run("-", "-", "--to", "svg", "-o", "-")
    assert code == 2
    assert "- is given more than once" in said


def test_what_is_no_schedule_leaves_the_output_as_it_was(run, folder):
    out = folder / "x.svg"
    out.write_bytes(BEFORE)
    (folder / "bad.json").write_text("{}")
    code, said = run(folder / "bad.json", "--to", "svg", "-o", out)
    assert code == 2
    assert "$.format is missing" in said
    assert out.read_bytes() == BEFORE


def test_a_schedule_without_all_its_ops_leaves_the_output_as_it_was(run, folder):
    out = folder / "x.svg"
    out.write_bytes(BEFORE)
    schedule = good_schedule()
    less = replace(schedule, ranks=(schedule.ranks[0][:-1], schedule.ranks[1]))
    (folder / "less.json").write_text(document_of(less))
    code, said = run(folder / "less.json", "--to", "svg", "-o", out)
    assert code == 1
    assert "no rank runs 0W1" in said
    assert out.read_bytes() == BEFORE


def test_no_schedule_at_all_is_refused():
    with pytest.raises(InputError, match="0 schedules are given"):
        export("svg", [])


@pytest.mark.parametrize(
    "rank",
    ["0F0@0 0F1@2 0B0@8_7 0W0@10 0B1@12 0W1@14", "0F0@3 0F1@2 0B0@8 0W0@10 0B1@12 0W1@14"],
)
def test_times_that_go_back_are_refused(rank):
    good = good_schedule()
    backwards = schedule_of(good.problem, rank, "1F0@3 1B0@5 1F1@7 1B1@9 1W0@11 1W1@12")
    with pytest.raises(InvalidOrdersError, match="list its ops in order of time"):
        export("perfetto", [Shown(title="x", schedule=backwards)])


def test_a_schedule_that_takes_no_time_is_refused():
    nothing = schedule_of(
        two_by_two(num_microbatches=1), "0F0@0_0 0B0@1_1 0W0@1_1", "1F0@0_0 1B0@0_0 1W0@0_0"
    )
    with pytest.raises(InvalidOrdersError, match="no op lasts any time"):
        export("svg", [Shown(title="x", schedule=nothing)])


# Units, captions and names.


def test_short_schedules_are_in_ticks_and_long_ones_in_seconds():
    short = Shown(title="", schedule=good_schedule())
    assert time_unit([short]) == TimeUnit("ticks", None)
    slow = Shown(title="", schedule=good_schedule(replace(two_by_two(), tick_seconds=1.0)))
    assert time_unit([slow, short]) == TimeUnit("s", 1.0), "their ticks differ"
    long = Shown(title="", schedule=schedule_of(slow.schedule.problem, "0F0@0_2000", "1F0@0"))
    assert time_unit([long]).name == "s"


def test_values_are_written_in_the_unit_that_suits_them():
    problem = two_by_two()
    assert TimeUnit("s", 1.0).write(problem, 45_940) == "45.94 ms"
    assert TimeUnit("ticks", None).write(problem, 45_940) == "45940 ticks"


@pytest.mark.parametrize(
    ("amounts", "unit", "number"),
    [((), ("", 1), "20"), ((16, 9999), ("", 1), "20"), ((80 * 2**30, 5), ("GiB", 2**30), "80")],
)
def test_bytes_are_written_in_one_unit(amounts, unit, number):
    assert bytes_unit(amounts) == BytesUnit(*unit)
    assert bytes_unit(amounts).number(20 if unit[1] == 1 else 80 * 2**30) == number


def test_significant_digits_keep_all_before_the_point():
    assert [significant(x, 3) for x in (0.012345, 1.0, 999.4, 123456.7)] == ["0.0123", "1", "999", "123457"]


@pytest.mark.parametrize(("bound", "text"), [(12, "bound 12 ticks (gap 20.00%)"), (15, "proved optimal")])
def test_caption_states_value_bubble_bound_and_peak(bound, text):
    problem = replace(two_by_two(), memory_limit_bytes=(8, 3))
    shown = Shown(
        title="",
        schedule=good_schedule(problem),
        certificate=Certificate(objective=Objective.MAKESPAN, value=15, lower_bound=bound, bound_from=""),
    )
    line = caption(shown, TimeUnit("ticks", None), BytesUnit("", 1))
    assert line == f"makespan 15 ticks, bubble 33.33%, {text}, peak memory 3 of 3"
    large = caption(shown, TimeUnit("ticks", None), BytesUnit("KiB", 1))
    assert large.endswith("3 of 3 KiB")
    free = Shown(title="", schedule=good_schedule())
    assert caption(free, TimeUnit("ticks", None), BytesUnit("", 1)).endswith("33.33%, peak memory 4")


@pytest.mark.parametrize(("kind", "letter"), [("F", "F"), ("B", "I"), ("W", "W"), ("BW", "B")])
def test_torch_letters(kind, letter):
    assert torch_action(Op(OpKind(kind), 3, 11)) == f"3{letter}11"


def test_plan_over_measurement(capsys):
    """A timeline stands beside the schedule it was measured of."""
    golden = Path(__file__).parent / "golden" / "v1"
    words = ["export", golden / "schedule.json", golden / "timeline.json", "--to", "html", "-o", "-"]
    assert cli.main(list(map(str, words))) == 0
    page = capsys.readouterr().out
    assert ": measured" in page
    assert "Critical path" in page
