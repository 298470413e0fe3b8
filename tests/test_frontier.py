"""Frontiers: against published values, carried between points, broken, resumed, interrupted and drawn."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from builders import EITHER, two_by_two
from frontier_searches import (
    InThisProcess,
    dying,
    failing,
    finding_nothing,
    quick,
    unit_v,
    waiting,
    worse_with_more,
)
from hypothesis import given
from hypothesis import strategies as st

from synth import cli
from synth.cli.commands import frontier as command
from synth.document import read_schedule, write_problem
from synth.errors import BackendError, InputError
from synth.frontier import (
    COLUMNS,
    Axis,
    Folder,
    Frontier,
    Point,
    PointStatus,
    above_curve,
    choose_limits,
    csv_text,
    published_points,
    read_range,
    rows,
    sweep,
)
from synth.frontier import folder as folder_module
from synth.frontier.picture import png_bytes, svg_text
from synth.frontier.points import carry, settle
from synth.frontier.sweeps import _Crew
from synth.instances import load_instance
from synth.memory import parse_limit
from synth.placement import Placement, PlacementKind, place
from synth.verify import verify_schedule

PROBLEM = unit_v()
AXIS = Axis.of([PROBLEM], adds_static=True)
SCRIPTS = Path(sys.executable).parent


def value_of(k, p=4, m=8):
    """The published frontier: idle slots of arXiv 2405.15362's released search, in its closed form."""
    return 6 * m + 3 * p - 1 - 3 * k + max(3 * p, p + 1 + 2 * ((k + 1) // 2))


def swept(search, limits=(4, 5, 6, 8), time_limit=1.0, **options):
    return sweep([PROBLEM], AXIS, limits, time_limit=time_limit, search=search, **options)


@pytest.fixture
def in_this_process(monkeypatch):
    """Sweeps without worker processes, which take a while to start."""
    monkeypatch.setattr("synth.frontier.sweeps._Crew", InThisProcess)


@pytest.fixture(scope="module")
def quick_points():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synth.frontier.sweeps._Crew", InThisProcess)
        return swept(quick, (0, 1, 2, 4, 5, 6, 8)).points


@pytest.fixture
def frontier(quick_points):
    return Frontier(
        problem=PROBLEM, axis=AXIS, points=quick_points, published=published_points([PROBLEM], AXIS)
    )


@pytest.fixture
def run(capsys, monkeypatch):
    """Run ``pipesynth frontier``, its searches replaced by a quick one, and without worker processes."""

    def run_command(*words, search=quick, crew=InThisProcess):
        monkeypatch.setattr("synth.frontier.sweeps._Crew", crew)
        monkeypatch.setattr(command, "sweep", partial(sweep, search=search))
        capsys.readouterr()
        code = cli.main(["frontier", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


@pytest.fixture
def unit_file(tmp_path):
    path = tmp_path / "unit.json"
    path.write_text(write_problem(PROBLEM))
    return path


# The frontier itself.


def test_unit_times_meet_the_published_frontier():
    points = sweep([PROBLEM], AXIS, (4, 5, 6, 7, 8), time_limit=4.0).points
    published = [value_of(point.limit_bytes) for point in points]
    assert published == [59, 56, 53, 51, 48]
    for point, value in zip(points, published, strict=True):
        assert point.lower_bound <= value <= point.value
    assert [point.value for point in points[::2]] == published[::2]  # what V-Min, V-Half and ZB-V reach too


def test_schedules_are_valid_under_exactly_their_limit(quick_points):
    assert [point.limit_bytes for point in quick_points if point.document] == [2, 4, 5, 6, 8]
    for point in quick_points[2:]:
        assert point.document.schedule.problem.memory_limit_bytes == (point.limit_bytes,) * 4
        assert not verify_schedule(point.document.schedule, certificate=point.document.certificate)
        assert max(point.document.metrics.peak_memory_bytes) <= point.limit_bytes


def test_infeasible_limits_say_what_would_do(quick_points):
    for point in quick_points[:2]:
        assert point.status is PointStatus.INFEASIBLE
        assert point.smallest_limit_bytes == 2
        assert "the smallest limit that would do is 2" in point.reason
    assert quick_points[2].document is not None


@pytest.mark.usefixtures("in_this_process")
def test_more_memory_is_never_worse():
    points = swept(worse_with_more, (4, 5, 6, 8)).points
    assert [point.value for point in points] == [value_of(4)] * 4
    assert [point.taken_from_bytes for point in points] == [None, None, 5, 5]
    for point in points[2:]:
        assert point.document.schedule.problem.memory_limit_bytes[0] == point.limit_bytes


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(50, 60), st.integers(40, 50))))
def test_carried_values_and_bounds_are_monotone(drawn):
    limits, values, bounds = (tuple(column) for column in zip(*drawn, strict=True)) if drawn else ((),) * 3
    carried = carry(limits, values, bounds)
    for own, best in enumerate(carried):
        if values[own] is not None:
            assert values[best.value] <= values[own]
        assert bounds[best.bound] >= bounds[own]
        for other in range(len(limits)):
            if limits[other] <= limits[own] and values[other] is not None:
                assert values[best.value] <= values[other]
                assert limits[best.value] <= limits[own]
            if limits[other] >= limits[own]:
                assert bounds[best.bound] >= bounds[other]
                assert limits[best.bound] >= limits[own]
        if best.value is not None and values[best.value] == values[own]:
            assert best.value == own
        if bounds[best.bound] == bounds[own]:
            assert best.bound == own


def bounded(point, ticks):
    """The point with a bound of so many ticks."""
    certificate = replace(point.document.certificate, lower_bound=ticks, bound_from="a proof")
    return Point.found(point.limit_bytes, replace(point.document, certificate=certificate), 1.0)


def test_bounds_hold_at_smaller_limits_and_say_where_from(quick_points):
    six, eight = (bounded(point, ticks) for point, ticks in zip(quick_points[-2:], (40, 45), strict=True))
    settled = settle([six, eight], AXIS, [PROBLEM])
    assert [point.lower_bound for point in settled] == [45, 45]
    assert settled[0].bound_from == "at a limit of 8 bytes, a proof"
    assert settled[1].bound_from == "a proof"


def test_bounds_stay_where_placements_are_open(quick_points):
    six, eight = (bounded(point, ticks) for point, ticks in zip(quick_points[-2:], (40, 45), strict=True))
    is_open = PROBLEM.with_placement(place(PlacementKind.AUTO, 4, 8))
    assert [point.lower_bound for point in settle([six, eight], AXIS, [is_open])] == [40, 45]


def test_a_schedule_of_another_placement_brings_its_own_bound(quick_points):
    four, five = quick_points[3], bounded(quick_points[4], 58)
    worse = replace(five, document=None, lower_bound=58)
    is_open = PROBLEM.with_placement(place(PlacementKind.AUTO, 4, 8))
    carried = settle([four, worse], AXIS, [is_open])[1]
    assert carried.value == four.value
    assert carried.lower_bound < 58
    assert carried.bound_from.startswith("of the schedule's placement alone")


def test_a_bound_above_a_value_is_our_bug(quick_points):
    with pytest.raises(BackendError, match="is above a verified value"):
        settle([bounded(quick_points[3], 1000)], AXIS, [PROBLEM])


# Limits.


def test_every_limit_that_differs_is_tried_where_they_are_few():
    assert choose_limits(AXIS, 3, 8) == (3, 4, 5, 6, 7, 8)
    assert choose_limits(AXIS, 3, 8, 40) == (3, 4, 5, 6, 7, 8)
    assert choose_limits(AXIS, 4, 4) == (4,)


def test_limits_in_a_wide_range_are_even_and_include_what_is_asked_for():
    axis = replace(AXIS, step_bytes=10)
    assert choose_limits(axis, 400, 1000, 4) == (400, 600, 800, 1000)
    assert choose_limits(axis, 400, 1000, 4, [777, 2000]) == (400, 600, 770, 800, 1000)
    assert len(choose_limits(axis, 400, 1000)) == 13


def test_a_multiple_is_what_the_memory_limit_option_means():
    problem = load_instance("zb-1.5b-m24")
    axis, first, last = read_range("0.4x", "1x", [problem], 1)
    assert axis.limits(problem, first) == parse_limit("0.4x", problem)
    assert axis.limits(problem, last) == parse_limit("1x", problem)
    assert axis.multiple(last) == 1.0


def test_static_bytes_come_on_top_of_multiples_and_are_part_of_sizes():
    stage = replace(EITHER, static_bytes=10)
    problem = two_by_two(stage, stage_to_rank=(0, 1, 1))
    multiples, first, _ = read_range("0.5x", "1x", [problem], 1)
    assert multiples.limits(problem, first) == tuple(first + static for static in (10, 20))
    sizes, first, _ = read_range("24", "40", [problem], 1)
    assert sizes.limits(problem, first) == (24, 24)
    assert sizes.multiple(20) == 0.0
    with pytest.raises(InputError, match="of two kinds"):
        read_range("0.5x", "40", [problem], 1)


def test_published_schedules_are_points_of_the_same_model(frontier):
    by_name = {point.name: point for point in frontier.published}
    assert {"gpipe", "v-min", "v-half", "v-zb", "interleaved-1f1b (loop)"} <= by_name.keys()
    assert {"1f1b (one chunk)", "zb-h1 (one chunk)", "gpipe (one chunk)"} <= by_name.keys()
    assert (by_name["1f1b (one chunk)"].memory_bytes, by_name["1f1b (one chunk)"].value) == (8, 60)
    assert (by_name["v-half"].memory_bytes, by_name["v-half"].value) == (6, value_of(6))
    assert above_curve(frontier.points, by_name["v-zb"]) == 0.0
    assert above_curve(frontier.points, by_name["1f1b (one chunk)"]) == 60 / 48 - 1
    assert above_curve(frontier.points[:2], by_name["v-min"]) is None


# Failures and interrupts.


@pytest.mark.parametrize(
    ("search", "status", "reason"),
    [
        (failing, PointStatus.FAILED, "the search failed: division by zero"),
        (finding_nothing, PointStatus.UNKNOWN, "no schedule was found within 1 s"),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_one_bad_search_does_not_lose_the_others(search, status, reason):
    told = []
    points = swept(search, (4, 6, 8), on_point=told.append).points
    check_six_is_bad(points, told, status, reason)


def test_a_killed_worker_does_not_lose_the_others():
    told = []
    points = swept(dying, (4, 6, 8), on_point=told.append, workers=1).points
    check_six_is_bad(points, told, PointStatus.FAILED, "the worker process was killed by signal 9")


def check_six_is_bad(points, told, status, reason):
    assert [point.value for point in points] == [value_of(4), value_of(4), value_of(8)]
    assert [point.reason for point in points] == ["", reason, ""]
    assert points[1].taken_from_bytes == 4
    assert {(point.limit_bytes, point.status) for point in told if point.reason} == {(6, status)}


@pytest.mark.usefixtures("in_this_process")
def test_a_bad_point_without_smaller_ones_has_no_schedule():
    (bad, good) = swept(failing, (6, 8)).points
    assert (bad.status, bad.document) == (PointStatus.FAILED, None)
    assert bad.lower_bound == good.lower_bound  # it holds at the smaller limit too
    assert good.value == value_of(8)


def test_interrupted_searches_hand_over_their_best():
    def interrupt(*_):
        raise KeyboardInterrupt

    answer = swept(waiting, (4, 5, 6, 8), on_progress=interrupt, workers=1)
    assert answer.interrupted
    assert [(point.limit_bytes, point.value) for point in answer.points] == [(4, value_of(4))]
    assert answer.points[0].time_limit_s != 1.0
    known = [replace(point, time_limit_s=0.5) for point in answer.points]
    again = swept(waiting, (2, 4, 5), on_progress=interrupt, workers=1, known=known, time_limit=2.0)
    assert [point.limit_bytes for point in again.points] == [2, 4]  # what was there is not lost


def children(pid):
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


def has_ended(pid):
    """Whether a process is gone, or only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_never_outlive_the_command(tmp_path, number):
    folder = tmp_path / "f"
    words = ["zb-6.2b-m64", "--from", "0x", "--to", "1x", "--steps", "3", "--time-limit", "600", "-o", folder]
    with subprocess.Popen(
        [SCRIPTS / "pipesynth", "frontier", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sweeping:
        assert b"0x, 0 bytes: infeasible" in sweeping.stderr.readline()
        workers = children(sweeping.pid)
        assert len(workers) >= 2
        sweeping.send_signal(number)
        _, err = sweeping.communicate(timeout=60)
    if number is signal.SIGINT:
        assert sweeping.returncode == 130
        assert b"the same command goes on from there" in err
        assert b"Traceback" not in err
        assert (folder / "frontier.csv").exists()
    for _ in range(600):  # a minute, which only a worker that stays takes
        if all(map(has_ended, workers)):
            break
        time.sleep(0.1)
    assert all(map(has_ended, workers))


# Going on.


@pytest.fixture
def kept(tmp_path, in_this_process):
    """Make a folder object, as every run of the command does."""
    return lambda seed=0, problem=PROBLEM: Folder(str(tmp_path / "f"), [problem], AXIS, seed)


def sweep_into(folder, time_limit=1.0):
    """A sweep that goes on from a folder: its points, and the limits it searched at."""
    searched = []

    def note(point):
        searched.append(point.limit_bytes)
        folder.save(point)

    known = folder.read().points
    found = sweep(
        [PROBLEM], AXIS, (4, 6), time_limit=time_limit, search=quick, known=known, on_point=note, workers=1
    )
    return found.points, searched


def test_finished_points_are_not_searched_again(kept):
    points, searched = sweep_into(kept())
    assert searched == [4, 6]
    again, searched = sweep_into(kept())
    assert searched == []
    assert [point.value for point in again] == [point.value for point in points]
    assert sweep_into(kept(), time_limit=2.0)[1] == [4, 6]  # more time than they had
    assert sweep_into(kept(), time_limit=1.5)[1] == []
    assert sweep_into(kept(seed=1), time_limit=1.5)[1] == [4, 6]


@pytest.mark.parametrize("damage", ["", "{", '{"format": "pipesynth.schedule"}', "\xff"], ids=repr)
def test_a_damaged_point_is_named_and_searched_again(kept, damage):
    sweep_into(kept())
    path = Path(kept().point_file(6))
    path.write_text(damage)
    (complaint,) = kept().read().complaints
    assert complaint.startswith(str(path))
    assert sweep_into(kept())[1] == [6]
    assert not kept().read().complaints


def test_a_point_that_breaks_a_rule_is_searched_again(kept):
    sweep_into(kept())
    path = Path(kept().point_file(6))
    path.write_text(path.read_text().replace('"start": 0,', '"start": 1,', 1))
    (complaint,) = kept().read().complaints
    assert f"pipesynth verify {path}" in complaint
    assert [point.limit_bytes for point in kept().read().points] == [4]


@pytest.mark.parametrize("damage", ["[]", "{", '{"4": {}}', '{"4": 3}'])
def test_without_a_record_of_the_times_all_is_searched_again(kept, damage):
    sweep_into(kept())
    Path(kept().file("points/searched.json")).write_text(damage)
    (complaint,) = kept().read().complaints
    assert "searched.json is damaged" in complaint
    points, searched = sweep_into(kept())
    assert searched == [4, 6]
    assert len(points) == 2


def test_a_folder_of_another_problem_is_refused(kept):
    sweep_into(kept())
    for other in (
        replace(PROBLEM, num_microbatches=9),
        unit_v(2),
        PROBLEM.with_placement(place("loop", 4, 8)),
    ):
        with pytest.raises(InputError, match="is a schedule of another problem, unit V with 8 microbatches"):
            kept(problem=other).read()


def test_an_open_placement_takes_any_map_back(kept):
    sweep_into(kept())
    is_open = PROBLEM.with_placement(place(PlacementKind.AUTO, 4, 8))
    (four, _) = kept(problem=is_open).read().points
    assert four.document.schedule.problem.placement == Placement.explicit(PROBLEM.stage_to_rank)


@pytest.mark.usefixtures("in_this_process")
def test_known_points_help_with_less_time_than_asked_for():
    better, told = swept(quick, (4,)).points[0], []
    answer = swept(worse_with_more, (6,), known=[replace(better, time_limit_s=0.0)], on_point=told.append)
    assert answer.points[0].value == better.value
    assert answer.points[0].taken_from_bytes == 4
    assert told == list(answer.points)  # so that what is saved meanwhile is never worse than it was


# Tables and pictures.


def test_csv_holds_what_the_points_hold(frontier):
    read = list(csv.DictReader(io.StringIO(csv_text(frontier))))
    assert tuple(read[0]) == COLUMNS
    assert [row["kind"] for row in read] == ["synthesized"] * 7 + ["published"] * len(frontier.published)
    for row, point in zip(read, frontier.points, strict=False):
        assert int(row["limit_bytes"]) == point.limit_bytes
        assert float(row["limit_multiple"]) == point.limit_bytes / 8
        assert row["status"] == point.status
        assert row["value_ticks"] == ("" if point.value is None else str(point.value))
        if point.document is not None:
            assert float(row["bubble_ratio"]) == point.document.metrics.bubble_ratio
            assert float(row["gap"]) == point.gap
            assert int(row["lower_bound_ticks"]) == point.lower_bound
    for row, point in zip(read[7:], frontier.published, strict=True):
        assert (row["name"], int(row["value_ticks"])) == (point.name, point.value)
    assert [tuple(row) for row in rows(frontier)] == [COLUMNS] * len(read)


def test_pictures_are_the_same_every_time(frontier):
    assert png_bytes(frontier) == png_bytes(frontier)
    assert svg_text(frontier) == svg_text(frontier)
    assert png_bytes(frontier).startswith(b"\x89PNG")
    width = int.from_bytes(png_bytes(frontier)[16:20], "big")
    assert width == 800


def test_pictures_name_what_they_show(frontier):
    text = svg_text(frontier)
    for word in (
        "v-half",
        "1f1b (one chunk)",
        "no schedule exists",
        "published schedules",
        "outside the picture",
    ):
        assert f"<!-- {word}" in text


def test_pictures_stand_without_schedules_or_published_points(frontier):
    assert png_bytes(replace(frontier, points=frontier.points[:2], published=()))
    assert png_bytes(replace(frontier, points=frontier.points[-1:], published=()))


@pytest.mark.parametrize("name", ["a $ b _{ $", "$x_1$", "long " * 100])
def test_any_name_is_only_a_title(frontier, name):
    named = replace(frontier, problem=replace(frontier.problem, name=name))
    assert len(png_bytes(named)) > 10_000


def test_published_schedules_beyond_the_last_limit_are_beside_nothing(frontier):
    points = [point for point in frontier.points if point.limit_bytes <= 5]
    beyond = [one for one in frontier.published if one.memory_bytes > 5]
    assert beyond
    assert {above_curve(points, one) for one in beyond} == {None}
    assert above_curve([], beyond[0]) is None


def test_drawing_is_imported_only_when_drawn():
    code = "import sys, synth.cli, synth.frontier; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The command.


def test_command_writes_table_pictures_and_schedules(run, unit_file, tmp_path):
    folder = tmp_path / "f"
    code, out, err = run(unit_file, "--from", "0.1x", "-o", folder, "--time-limit", 1)
    assert code == 0
    assert "no schedule exists up to 0.125x: the smallest limit that would do is 2 bytes, 0.25x" in out
    assert "1f1b (one chunk)" in out
    assert "25.00% above" in out
    assert err.count("\n") == 9  # one line for each point
    assert {path.name for path in folder.iterdir()} == {
        "frontier.csv",
        "frontier.png",
        "frontier.svg",
        "points",
    }
    document = read_schedule((folder / "points" / "6.json").read_text())
    assert document.certificate.value == value_of(6)
    before = (folder / "frontier.csv").read_bytes()
    code, _, err = run(unit_file, "--from", "0.1x", "-o", folder, "--time-limit", 1)
    assert code == 0
    assert "7 of 9 limits are in" in err  # infeasible ones are looked at again
    assert (folder / "frontier.csv").read_bytes() == before


def test_command_reports_a_failed_point_and_goes_on(run, unit_file, tmp_path):
    words = [unit_file, "--from", "6", "--to", "8", "-o", tmp_path / "f"]
    code, out, err = run(*words, search=failing)
    assert code == 0
    assert "limit 6: the search failed: division by zero" in err
    assert "0.75x: the search failed: division by zero" in out
    table = list(csv.DictReader(io.StringIO((tmp_path / "f" / "frontier.csv").read_text())))
    assert [row["status"] for row in table[:3]] == ["failed", "feasible", "optimal"]
    assert table[0]["note"] == "the search failed: division by zero"


def test_a_point_that_cannot_be_written_is_in_the_table_all_the_same(run, unit_file, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr(folder_module, "write_whole", fail)
    code, out, err = run(unit_file, "--from", "1x", "-o", tmp_path / "f", "--time-limit", 1)
    assert code == 2
    assert "the disk is full" in err
    assert "optimal" in out


def test_command_without_any_schedule_says_so(run, unit_file):
    code, out, _ = run(unit_file, "--from", "0x", "--to", "0.125x", "--json")
    assert code == 1
    answer = json.loads(out)
    assert answer["unit_bytes"] == 8
    assert [row["status"] for row in answer["points"] if row["kind"] == "synthesized"] == ["infeasible"] * 2


def test_sizes_are_in_the_bytes_of_the_problem_as_given(run):
    words = ["zb-1.5b-m24", "--chunks", "2", "--placement", "v", "--microbatches", "8", "--json"]
    code, out, err = run(*words, "--from", "16", "--to", "16")
    assert code == 0
    assert "the memory unit is now 1/2 of a byte" in err
    row = json.loads(out)["points"][0]
    assert (row["limit_bytes"], row["limit_multiple"]) == (32, 1.0)


def test_a_terminal_gets_bars(run, unit_file, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run(unit_file, "--from", "6", "--to", "8")[0] == 0
    text = terminal.getvalue()
    assert "limits" in text
    assert "\x1b[3" not in text  # no colours
    assert "0.75x, 6 bytes: best 53  bound" in text


WRONG = [
    (["PROBLEM", "--from", "much"], "memory limit 'much' is no size"),
    (["PROBLEM", "--from", "1x", "--to", "0.5x"], "go from 1x to 0.5x, which is less"),
    (["PROBLEM", "--steps", "1"], "--steps: '1' is given; give an integer from 2 to 1000"),
    (["PROBLEM", "--time-limit", "0"], "is no time"),
    (["PROBLEM", "--workers", "0"], "--workers: '0' is given"),
    (["PROBLEM", "-o", "-"], "give it the name of a folder"),
    (["PROBLEM", "-o", ""], "give it the name of a folder"),
    (["PROBLEM", "-o", "PROBLEM"], "is a file: name a folder"),
    (["PROBLEM", "-o", "FOLDER/none/f"], "create it first"),
    (["PROBLEM", "--memory-limit", "1x"], "unrecognized arguments"),
    (["nowhere"], "neither a file nor a published instance"),
    (["EMPTY"], "memory makes no difference"),
]


@pytest.mark.parametrize(("words", "pattern"), WRONG)
def test_wrong_input_is_one_sentence(run, unit_file, tmp_path, words, pattern):
    empty = tmp_path / "empty.json"
    weightless = replace(
        EITHER, **{kind: replace(cost, alloc_bytes=0, free_bytes=0) for kind, cost in EITHER.offered}
    )
    empty.write_text(write_problem(two_by_two(weightless)))
    places = {"PROBLEM": str(unit_file), "FOLDER": str(tmp_path), "EMPTY": str(empty)}
    given = [places.get(word.partition("/")[0], word.partition("/")[0]) + word[len(word.partition("/")[0]) :]
             for word in words]  # fmt: skip
    code, out, err = run(*given)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("pipesynth: ")
    assert pattern in err
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_an_interrupt_keeps_what_is_finished(run, unit_file, tmp_path):
    """By a signal to this process, as from a terminal."""

    def send(*_):
        os.kill(os.getpid(), signal.SIGINT)

    folder = tmp_path / "f"
    words = [unit_file, "--from", "0.1x", "-o", folder, "--workers", "1", "--time-limit", "100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synth.cli.sweeping._Lines.progress", send)
        code, out, err = run(*words, search=waiting, crew=_Crew)
    assert code == 130
    assert "interrupted: 3 of 9 limits have a point; the same command goes on from there" in err
    assert "quick" in out
    assert [path.name for path in sorted((folder / "points").glob("[0-9]*.json"))] == ["2.json"]
    code, _, err = run(*words)
    assert code == 0
    assert "are in" not in err  # the interrupted one had too little time
