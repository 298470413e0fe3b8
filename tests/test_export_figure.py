"""Figures: what the schedules hold is drawn, in colours that can be told apart, the same every time."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure

from synth.baselines import baseline_orders
from synth.export import Shown, export
from synth.export.figure import style
from synth.export.figure.page import SETTINGS, draw
from synth.ops import PASSES, Op, OpKind
from synth.placement import PlacementKind
from synth.problem import OpCost, StageCosts, uniform_problem
from synth.schedule import measure
from synth.timing import schedule_orders
from tests.builders import DIVIDED, good_schedule, schedule_of, two_by_two

WHITE = (1.0, 1.0, 1.0)


def baseline(name="v-half", ranks=4, microbatches=16, chunks=2, **more):
    kind = PlacementKind.V if chunks == 2 else PlacementKind.LOOP
    problem = uniform_problem(ranks, microbatches, DIVIDED, chunks=chunks, kind=kind, **more)
    return Shown(title=name, schedule=schedule_orders(problem, baseline_orders(name, problem)))


def drawn(*shown) -> Figure:
    with matplotlib.style.context(["default", SETTINGS]):
        figure = draw(shown)
        figure.canvas.draw()
    return figure


def panels(figure):
    """The axes of the schedules, and those of the blocks."""
    blocks = [axes for axes in figure.axes if axes.get_title(loc="left")]
    return [axes for axes in figure.axes if axes not in blocks], blocks


def boxes(axes, name):
    """The outlines in the collections whose name begins so."""
    found = [c for c in axes.collections if (c.get_gid() or "").startswith(name)]
    return [path.vertices for collection in found for path in collection.get_paths()]


def texts(axes):
    return [text.get_text() for text in axes.texts]


# What is drawn.


@pytest.mark.parametrize("name", ["v-half", "v-min", "v-zb"])
def test_every_op_is_a_box_at_its_time_on_its_rank(name):
    shown = baseline(name)
    (axes,), _ = panels(drawn(shown))
    found = sorted(
        (round(x.min()), round(x.max()), int(y.min())) for x, y in (b.T for b in boxes(axes, "ops"))
    )
    ranks = shown.schedule.ranks
    assert found == sorted((op.start, op.end, rank) for rank, row in enumerate(ranks) for op in row)


def test_numbers_are_the_microbatches_where_they_fit():
    shown = baseline("1f1b", chunks=1, microbatches=4)
    (axes,), _ = panels(drawn(shown))
    peaks = [str(peak) for peak in measure(shown.schedule).peak_memory_bytes]
    ops = [str(timed.op.microbatch) for rank in shown.schedule.ranks for timed in rank]
    assert sorted(texts(axes)) == sorted(ops + peaks)
    (axes,), _ = panels(drawn(baseline("v-half", ranks=2, microbatches=200)))
    assert len(texts(axes)) == 2, "nothing but the peaks"


def test_numbers_stay_within_their_boxes():
    shown = baseline(microbatches=8)
    figure = drawn(shown)
    (axes,), _ = panels(figure)
    found = boxes(axes, "ops")
    numbers = [text for text in axes.texts if text.get_color() != style.MUTED]
    assert numbers
    for text in numbers:
        x, y = text.get_position()
        (box,) = [b for b in found if b[:, 0].min() < x < b[:, 0].max() and b[:, 1].min() < y < b[:, 1].max()]
        left, right = axes.transData.transform([(box[:, 0].min(), y), (box[:, 0].max(), y)])[:, 0]
        extent = text.get_window_extent()
        assert left <= extent.x0
        assert extent.x1 <= right


def test_several_schedules_share_their_axes():
    shown = [baseline("v-half"), baseline("1f1b", chunks=1), baseline("v-min", ranks=3, microbatches=5)]
    schedules, blocks = panels(drawn(*shown))
    assert len({axes.get_xlim() for axes in schedules}) == 1
    assert len({axes.get_xlim() for axes in blocks}) == 1
    assert schedules[0].get_xlim() == (0, max(measure(one.schedule).makespan for one in shown))
    assert len({axes.get_position().x0 for axes in schedules}) == 1
    assert [axes.get_xlabel() for axes in schedules] == ["", "", "time (ticks)"]


def test_memory_is_drawn_below_its_limit_on_one_scale():
    limited = baseline(memory_limit_bytes=24)
    (axes, _), _ = panels(drawn(limited, baseline("v-min")))
    strip = style.STRIP_BOTTOM - style.STRIP_TOP
    heights = [
        rank + style.STRIP_BOTTOM - y.min() for rank, y in enumerate(b[:, 1] for b in boxes(axes, "memory"))
    ]
    peaks = measure(limited.schedule).peak_memory_bytes
    assert heights == pytest.approx([strip * peak / 24 for peak in peaks])
    (limits,) = [c for c in axes.collections if c.get_gid() == "limits"]
    assert [line[0, 1] for line in limits.get_segments()] == pytest.approx(
        [r + style.STRIP_TOP for r in range(4)]
    )


def test_without_a_limit_none_is_drawn():
    (axes,), _ = panels(drawn(baseline()))
    assert not [c for c in axes.collections if c.get_gid() == "limits"]


def test_marked_ops_get_a_frame():
    shown = replace(baseline(), marked=(Op(OpKind.F, 0, 0), Op(OpKind.W, 7, 15)))
    (axes,), _ = panels(drawn(shown))
    assert len(boxes(axes, "marked")) == 2


def test_notes_stand_below_the_numbers():
    figure = drawn(replace(baseline(), notes=("Measured on four ranks.",)))
    assert "Measured on four ranks." in [text.get_text() for text in figure.texts]


def test_titles_and_notes_of_any_length_stay_on_the_page():
    figure = drawn(replace(baseline(), title="Synthesized in half the memory " * 9, notes=("word " * 200,)))
    for text in figure.texts:
        assert text.get_window_extent().x1 <= figure.bbox.x1


# The building block.


def test_the_block_is_one_microbatch_of_the_steady_state_with_its_lifespans():
    shown = baseline("1f1b", chunks=1)
    _, (axes,) = panels(drawn(shown))
    assert axes.get_title(loc="left") == "building block"
    assert len(boxes(axes, "ops")) == 4 * 3
    # Rank r holds a microbatch for p - r periods: the time of an F and a backward each.
    spans = sorted(b[:, 0].max() - b[:, 0].min() for b in boxes(axes, "lifespans"))
    assert spans == pytest.approx([5, 10, 15, 20])
    assert "T = 5 ticks" in texts(axes)


def test_without_a_steady_state_there_is_no_block():
    (axes,), blocks = panels(drawn(baseline("gpipe", chunks=1, microbatches=9)))
    assert not blocks
    (narrower,), _ = panels(drawn(baseline("1f1b", chunks=1, microbatches=9)))
    assert axes.get_position().width > narrower.get_position().width


def test_beside_a_steady_state_the_middle_microbatch_is_shown_and_called_so():
    shown = [baseline(name, chunks=1, microbatches=9) for name in ("1f1b", "gpipe")]
    _, (_, axes) = panels(drawn(*shown))
    assert axes.get_title(loc="left") == "microbatch 4 (no steady state)"
    assert not [text for text in texts(axes) if text.startswith("T")]


def test_a_block_of_several_microbatches_says_so():
    stage = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    problem = uniform_problem(3, 24, stage, chunks=2)
    schedule = schedule_orders(problem, baseline_orders("interleaved-1f1b", problem))
    _, (axes,) = panels(drawn(Shown(title="", schedule=schedule)))
    assert axes.get_title(loc="left") == "building block of 3 microbatches"
    assert len(boxes(axes, "ops")) == 3 * 6 * 2


# Any schedule, any number of ranks.


@pytest.mark.parametrize(
    "schedule",
    [
        good_schedule(),
        schedule_of(
            two_by_two(num_microbatches=1), "0F0@-7_-7 0B0@5_900 0W0@900_901", "1F0@0_1 1B0@1_2 1W0@2_2"
        ),
        baseline("1f1b", ranks=1, microbatches=1, chunks=1).schedule,
        baseline("v-half", ranks=32, microbatches=40).schedule,
    ],
    ids=["small", "arbitrary times", "one rank", "32 ranks"],
)
def test_any_schedule_can_be_drawn(schedule):
    assert export("png", [Shown(title="a $title_$ with % and 管", schedule=schedule)]).startswith(b"\x89PNG")


def test_every_rank_has_its_row_and_names_do_not_collide():
    (axes,), _ = panels(drawn(baseline("v-half", ranks=32, microbatches=8)))
    assert axes.get_ylim() == (32, 0), "rank 0 is on top"
    names = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert len(names) == 16
    assert all(a.y0 >= b.y1 for a, b in pairwise(names))


@pytest.mark.parametrize("target", ["svg", "png", "pdf"])
def test_the_same_schedules_give_the_same_bytes(target, monkeypatch):
    shown = [baseline(ranks=2, microbatches=6), baseline("1f1b", ranks=2, chunks=1, microbatches=6)]
    first = export(target, shown)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert export(target, shown) == first


def test_drawing_leaves_no_trace_in_matplotlib():
    before = dict(matplotlib.rcParams)
    export("svg", [baseline(microbatches=4)])
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_not_imported_before_a_figure_is_drawn():
    code = "import sys, synth, synth.cli, synth.export; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Colours.

DEFICIENCIES = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""What is seen of linear red, green and blue (Machado et al. 2009, table 1, severity 1)."""


def linear(colour):
    colour = np.asarray(colour)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def lightness(colour):
    """L* of CIELAB, from 0 to 100."""
    luminance = linear(colour) @ (0.2126, 0.7152, 0.0722)
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


def lab(rgb):
    """CIELAB of linear red, green and blue."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / (0.9505, 1.0, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_kinds_differ_in_grey_print():
    bands = [sorted(lightness(style.shade(kind, chunk, 2)) for chunk in (0, 1)) for kind in PASSES]
    bands.sort(reverse=True)
    assert all(above[0] - below[1] >= 6 for above, below in pairwise(bands))
    assert all(band[1] - band[0] >= 8 for band in bands), "a rank's two chunks"


@pytest.mark.parametrize("matrix", DEFICIENCIES.values(), ids=DEFICIENCIES)
def test_kinds_differ_for_colour_blind_eyes(matrix):
    shades = [(kind, style.shade(kind, chunk, 2)) for kind in OpKind for chunk in (0, 1)]
    for (kind, one), (other, two) in combinations(shades, 2):
        if kind is not other:
            seen = [lab(np.array(matrix) @ linear(colour)) for colour in (one, two)]
            assert np.linalg.norm(seen[0] - seen[1]) >= 10, (kind, other)


@pytest.mark.parametrize("kind", OpKind)
@pytest.mark.parametrize("chunk", [0, 1])
def test_numbers_stand_out_from_their_boxes(kind, chunk):
    box = lightness(style.shade(kind, chunk, 2))
    text = 100 if kind in style.LIGHT_TEXT else lightness((0x1A / 255,) * 3)
    assert abs(box - text) >= 40


def test_more_chunks_are_shades_between():
    assert style.shade(OpKind.F, 0, 1) == style.shade(OpKind.F, 0, 4)
    assert style.shade(OpKind.F, 3, 4) == style.shade(OpKind.F, 1, 2)
    levels = [lightness(style.shade(OpKind.F, chunk, 4)) for chunk in range(4)]
    assert levels == sorted(levels, reverse=True)
    assert baseline().schedule.problem.chunk_by_stage == (0, 0, 0, 0, 1, 1, 1, 1)
