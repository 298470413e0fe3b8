"""The interactive page: what it embeds against the schedule, and how it behaves in a headless Chromium."""

import base64
import html.parser
import json
import math
import os
import re
import shutil
from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from synth.baselines import baseline_orders
from synth.certificate import Certificate
from synth.colours import contrast, shade
from synth.errors import InputError
from synth.export.html import render_html
from synth.export.shown import Shown
from synth.flows import Direction, with_directions
from synth.instances import load_instance
from synth.memory import serial_orders
from synth.ops import Op, OpKind, TimedOp
from synth.placement import PlacementKind
from synth.problem import Objective, OpCost, StageCosts, uniform_problem
from synth.schedule import Schedule, measure
from synth.timeline import memory_steps, transfers
from synth.timing import schedule_orders
from tests.builders import UNDIVIDED, good_schedule, schedule_of, two_by_two

TYPES = {"u1": "<u1", "u2": "<u2", "i4": "<i4", "f8": "<f8"}
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def timed(problem, name):
    return schedule_orders(problem, baseline_orders(name, problem))


def limited():
    """The hand-made schedule, its first rank's peak at the limit, its second's below."""
    return good_schedule(two_by_two(memory_limit_bytes=(4, 4)))


def two_chunks(num_ranks=4, num_microbatches=8):
    """V-ZB in unit times."""
    stage = StageCosts(
        F=OpCost(ticks=10, alloc_bytes=2), B=OpCost(ticks=10, free_bytes=1), W=OpCost(ticks=10, free_bytes=1)
    )
    return timed(uniform_problem(num_ranks, num_microbatches, stage, chunks=2, kind=PlacementKind.V), "v-zb")


def embedded(page):
    """What a page holds, read without a browser."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def column(data):
    return np.frombuffer(base64.b64decode(data["data"]), TYPES[data["type"]]).astype(object).tolist()


def rows(group, *names):
    """The rows of a group of columns, numbers as integers."""
    return list(zip(*(map(int, column(group[name])) for name in names), strict=True))


# ---- the file


def test_page_loads_nothing():
    whole = render_html([Shown(title="zb-h1", schedule=timed(load_instance("zb-1.5b-m24"), "zb-h1"))])
    page = whole.replace(json.dumps(embedded(whole), separators=(",", ":")), "")
    assert len(page) < len(whole)
    assert not re.findall(r"https?:|//\w|\bsrc\s*=|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\s", page)
    assert re.findall(r"href=\S+", page) == ['href="data:,">']
    assert "default-src 'none'" in page
    assert whole.isascii()


def test_same_input_gives_same_bytes():
    assert render_html([Shown(title="a", schedule=two_chunks())]) == render_html(
        [Shown(title="a", schedule=two_chunks())]
    )


WICKED = "</script><script>alert(1)</script><!-- <b title=\"x\">&amp; 'q' $title µ \u2028"


class Tags(html.parser.HTMLParser):
    """The tags of a page, and the text of its title."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.title = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if self.tags[-1:] == ["title"] and not self.title:
            self.title = data


def test_names_stay_names():
    problem = replace(two_by_two(), name=WICKED, source=WICKED)
    page = render_html([Shown(title=WICKED, schedule=good_schedule(problem), notes=(WICKED,))])
    parsed = Tags(page)
    assert parsed.tags.count("script") == 2
    assert parsed.title == WICKED
    (data,) = embedded(page)
    assert [data["title"], data["name"], data["source"], *data["notes"]] == [WICKED] * 4


def shifted(schedule, *, factor=1, later=0):
    """The same orders at other times, as a measurement may give them."""
    return Schedule(
        schedule.problem,
        tuple(
            tuple(TimedOp(t.op, later + factor * t.start, later + factor * t.end) for t in rank)
            for rank in schedule.ranks
        ),
    )


SCHEDULES = {
    "by hand": good_schedule(),
    "undivided": timed(two_by_two(UNDIVIDED, num_microbatches=5), "1f1b"),
    "published": timed(load_instance("zb-1.5b-m24"), "zb-h2"),
    "two chunks": two_chunks(),
    "measured": shifted(good_schedule(), factor=3, later=1000),
    "long": shifted(two_chunks(), factor=2**43 // 300, later=7),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_embedded_columns_are_the_schedule(schedule):
    (data,) = embedded(render_html([Shown(title="", schedule=schedule)]))
    first = min(rank[0].start for rank in schedule.ranks)
    schedule = shifted(schedule, factor=1, later=-first)  # the page's clock begins with the first op
    found = rows(data["ops"], "kind", "stage", "microbatch", "start", "end")
    ops = [TimedOp(Op(OpKind(data["kinds"][k]), s, i), start, end) for k, s, i, start, end in found]
    starts = data["ops"]["rank_start"]
    ranks = tuple(tuple(ops[a:b]) for a, b in pairwise(starts))
    assert ranks == schedule.ranks

    steps = rows(data["memory"], "tick", "live")
    starts = data["memory"]["rank_start"]
    assert tuple(tuple(steps[a:b]) for a, b in pairwise(starts)) == memory_steps(schedule)

    assert [
        (ops[producer].op, ops[consumer].op, start, end)
        for producer, consumer, start, end in rows(data["transfers"], "producer", "consumer", "start", "end")
    ] == [(t.producer, t.consumer, t.start, t.end) for t in transfers(schedule)]


def test_numbers_on_top_are_the_metrics_and_the_certificate():
    schedule = limited()
    certificate = Certificate(objective=Objective.MAKESPAN, value=15, lower_bound=14, bound_from="chains")
    shown = Shown(title="", schedule=schedule, certificate=certificate, marked=(Op.parse("1B0"),))
    (data,) = embedded(render_html([shown]))
    metrics = measure(schedule)
    assert (data["value"], data["bubble"]) == (metrics.makespan, metrics.bubble_ratio)
    assert data["peaks"] == list(metrics.peak_memory_bytes)
    assert data["limits"] == [4, 4]
    assert data["certificate"]["lower_bound"] == 14
    assert data["certificate"]["gap"] == pytest.approx(1 / 15)
    assert column(data["marked"]) == [7]


def too_long():
    return shifted(good_schedule(), factor=2**50)


REFUSED = {
    "nothing": ([], "there is no schedule to show: give one or more"),
    "a time of 2**53": ([Shown(title="big", schedule=too_long())], r"big: an op's time in ticks reaches \d+"),
    "a limit of 2**53": (
        [Shown(title="big", schedule=good_schedule(two_by_two(memory_limit_bytes=(4, 2**53))))],
        "big: a memory limit in bytes reaches 9007199254740992, .* use a larger memory unit",
    ),
    "a claim of 2**53": (
        [
            Shown(
                title="big",
                schedule=good_schedule(),
                certificate=Certificate(
                    objective=Objective.MAKESPAN, value=2**53, lower_bound=1, bound_from=""
                ),
            )
        ],
        "big: the certificate in ticks reaches",
    ),
    "two ops at once": (
        [
            Shown(
                title="odd",
                schedule=schedule_of(
                    two_by_two(),
                    "0F0@0 0F1@1 0B0@8 0W0@10 0B1@12 0W1@14",
                    "1F0@3 1B0@5 1F1@7 1B1@9 1W0@11 1W1@12",
                ),
            )
        ],
        "odd: rank 0 starts 0F1@1 before 0F0 ends at 2",
    ),
    "an op that is missing": (
        [
            Shown(
                title="",
                schedule=schedule_of(
                    two_by_two(),
                    "0F0@0 0F1@2 0B0@8 0W0@10 0B1@12",
                    "1F0@3 1B0@5 1F1@7 1B1@9 1W0@11 1W1@12",
                ),
            )
        ],
        "no rank runs 0W1",
    ),
    "a mark on nothing": (
        [Shown(title="odd", schedule=good_schedule(), marked=(Op.parse("0F7"),))],
        "odd: marked op 0F7 is not in the schedule",
    ),
}


@pytest.mark.parametrize(("shown", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_it_cannot_show(shown, message):
    with pytest.raises(InputError, match=message):
        render_html(shown)


# ---- colours

VISION = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as seen, severity 1 (Machado et al. 2009, table 1)."""

TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab_of(fill, vision):
    """CIE L*a*b* of a colour as seen."""
    channels = np.array([int(fill[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(
        np.clip(TO_XYZ @ np.clip(np.array(vision) @ linear, 0, 1) / [0.9505, 1, 1.089], 0.008856, 1)
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("num_chunks", "least"), [(1, 30), (2, 30), (4, 20)])
@pytest.mark.parametrize("vision", VISION.values(), ids=VISION)
def test_kinds_are_told_apart_by_every_eye(vision, num_chunks, least):
    """A distance of 2.3 is just noticeable; these are told apart at a glance."""
    shades = {
        kind: [lab_of(shade(kind, c, num_chunks).fill, vision) for c in range(num_chunks)] for kind in OpKind
    }
    for one, other in combinations(OpKind, 2):
        # No colour is as far from the four of the passes as these are from one another; R is lettered too.
        apart = min(least, 15, 48 / num_chunks) if OpKind.R in (one, other) else least
        assert min(np.linalg.norm(a - b) for a, b in product(shades[one], shades[other])) > apart
    for kind in OpKind:
        assert all(np.linalg.norm(a - b) > 10 for a, b in combinations(shades[kind], 2))


@pytest.mark.parametrize("kind", OpKind)
@pytest.mark.parametrize("num_chunks", [1, 2, 3, 4, 8])
def test_names_can_be_read_on_their_colours(kind, num_chunks):
    for chunk in range(num_chunks):
        fill, text = shade(kind, chunk, num_chunks)
        assert contrast(fill, text) >= 4.5


# ---- the page in a browser


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "the page is tested in a browser, and there is no chromium on PATH; install Debian's"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open schedules as a page that must load nothing and complain about nothing."""
    contexts, troubles = [], []

    def open_them(*shown, **options):
        path = tmp_path / "page.html"
        path.write_text(render_html(shown))
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request", lambda request: troubles.append(request.url) if request.url != path.as_uri() else None
        )
        page.goto(path.as_uri())
        page.wait_for_function("performance.getEntriesByName('drawn').length > 0")
        return page

    yield open_them
    for context in contexts:
        context.close()
    # The empty icon and nothing else.
    assert [trouble for trouble in troubles if trouble != "data:,"] == []


def view(page):
    found = page.evaluate("pipesynth.view")
    return found["from"], found["to"]


def place(page, name, section=0):
    return page.evaluate("([section, name]) => pipesynth.place(section, name)", [section, name])


def point_at(page, name, section=0):
    spot = place(page, name, section)
    page.mouse.move(spot["x"], spot["y"])
    return page.inner_text("#tip").split("\n")


def settle(page):
    """Wait until what was changed is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def colours_at(page, points, layer=0):
    """The colours of the first schedule at points of the screen: of its drawing, or of the layer above."""
    settle(page)
    script = """([layer, points]) => {
      const canvas = document.querySelectorAll(".plot canvas")[layer];
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      const whole = new OffscreenCanvas(canvas.width, canvas.height);
      const copy = whole.getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const at = ([x, y]) => [(x - box.left) * scale, (y - box.top) * scale].map(Math.floor);
      return points.map((point) => [...copy.getImageData(...at(point), 1, 1).data]);
    }"""
    return page.evaluate(script, [layer, list(points)])


def colour_at(page, x, y, layer=0):
    return colours_at(page, [(x, y)], layer)[0]


def same_colour(found, fill, tolerance=4):
    wanted = [int(fill[i : i + 2], 16) for i in (1, 3, 5)] + [255]
    return all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))


def test_opens_on_the_whole_schedule_with_its_numbers(open_page):
    certificate = Certificate(objective=Objective.MAKESPAN, value=15, lower_bound=14, bound_from="chains")
    note = "rank 0 waits for <b>rank 1</b>"
    page = open_page(Shown(title=WICKED, schedule=limited(), certificate=certificate, notes=(note,)))
    assert view(page) == (0, 15)
    assert page.inner_text("h2") == WICKED
    numbers = dict(re.findall(r"(.+)\n(.+)", page.inner_text(".numbers").replace("\n\n", "\n")))
    assert numbers == {
        "makespan": "15 ticks 15 µs",
        "bubble": "33.33 % of the makespan",
        "lower bound": "14 ticks 14 µs",
        "gap": "6.67 % feasible",
        "peak memory": "4 B on rank 0, limit 4 B",
    }
    assert page.inner_text(".notes").split("\n") == ["Lower bound from: chains", note]


def test_draws_every_op_where_and_in_the_colour_it_should_be(open_page):
    schedule = two_chunks()
    page = open_page(Shown(title="", schedule=schedule))
    chunk = {stage: held.index(stage) for held in schedule.problem.stages_by_rank for stage in held}
    ops = [timed.op for rank in schedule.ranks for timed in rank]
    spots = page.evaluate("names => names.map((name) => pipesynth.place(0, name))", list(map(str, ops)))
    above_their_numbers = [(spot["x"], spot["y"] - 11) for spot in spots]
    for op, found in zip(ops, colours_at(page, above_their_numbers), strict=True):
        assert same_colour(found, shade(op.kind, chunk[op.stage], 2).fill), op


def test_far_out_a_row_piles_up_shares(open_page):
    """In the warm-up rank 0 does nothing but F on chunk 0; in the steady state it does everything."""
    page = open_page(Shown(title="", schedule=two_chunks(num_microbatches=150)))
    first, middle = place(page, "0F3"), place(page, "0F75")
    assert same_colour(colour_at(page, first["x"], first["y"]), shade(OpKind.F, 0, 2).fill)
    pile = colours_at(page, [(middle["x"], middle["y"] + step) for step in range(14, -15, -1)])
    seen = list(dict.fromkeys(map(tuple, pile)))
    shades = [shade(kind, chunk, 2).fill for kind in (OpKind.F, OpKind.B, OpKind.W) for chunk in (0, 1)]
    assert len(seen) == 6
    assert all(map(same_colour, seen, shades))


def test_pointing_at_an_op_tells_all_of_it_and_draws_its_transfers(open_page):
    page = open_page(Shown(title="", schedule=good_schedule(), marked=(Op.parse("1B0"),)))
    assert point_at(page, "1F0") == [
        "1F0: forward",
        "rank 1, stage 1, chunk 0, microbatch 0",
        "3 – 5 ticks (2 ticks)",
        "3 µs – 5 µs (2 µs)",
        "allocates 2 B, frees 0 B; rank 1 holds 2 B meanwhile",
        "from 0F0 on rank 0: leaves at 2, there at 3 (1 µs)",
    ]
    assert point_at(page, "1B0")[-2:] == ["to 0B0 on rank 0: leaves at 7, there at 8 (1 µs)", "marked"]
    tail, head = place(page, "1B0"), place(page, "0B0")
    left, right = (page.evaluate("n => pipesynth.place(0, n).x", name) for name in ("1F1", "0B0"))
    tick = (right - left) / 1  # 1F1 is in the middle of 7 to 9, 0B0 of 8 to 10
    between = colour_at(page, left - tick / 2, (tail["y"] + head["y"]) / 2 + 4, layer=1)
    assert between[3] == 255, "the arrow crosses from rank 1 to rank 0 between 7 and 8"
    point_at(page, "1W1")
    assert colour_at(page, left - tick / 2, (tail["y"] + head["y"]) / 2 + 4, layer=1)[3] == 0


def test_pointing_between_ops_tells_how_long_the_rank_is_idle(open_page):
    page = open_page(Shown(title="", schedule=good_schedule()))
    before, after, below = place(page, "0F1"), place(page, "0B0"), place(page, "1F0")
    page.mouse.move((before["x"] + after["x"]) / 2, before["y"])
    assert page.inner_text("#tip").split("\n")[:2] == ["rank 0: idle", "4 – 8 ticks (4 ticks)"]
    page.mouse.move(before["x"] - 40, below["y"])
    assert page.inner_text("#tip").startswith("rank 1: not begun")
    page.mouse.move(5, 5)
    assert page.is_hidden("#tip")


def test_memory_is_drawn_below_the_limit(open_page):
    schedule = limited()
    page = open_page(Shown(title="", schedule=schedule))
    row, next_row = place(page, "0F1"), place(page, "1F0")
    pitch = next_row["y"] - row["y"]
    top = row["y"] - 15 + 2 * pitch + 24  # of rank 0's memory: two rows of ops and a caption below its ops
    half = top + 21
    full, empty = (colour_at(page, row["x"], half), colour_at(page, place(page, "0W1")["x"], half))
    assert same_colour(full, "#6f869e")
    assert same_colour(empty, "#eef0f3")
    limit = colours_at(page, [(row["x"] + step, top + 0.5) for step in range(10)])
    assert any(same_colour(pixel, "#c8102e") for pixel in limit)
    page.mouse.move(row["x"], half)
    assert page.inner_text("#tip").split("\n")[::2] == ["rank 0: 4 B", "peak 4 B, limit 4 B"]


def test_wheel_zooms_at_the_pointer(open_page):
    page = open_page(Shown(title="", schedule=two_chunks()))
    spot = place(page, "4F2")
    page.mouse.move(spot["x"], spot["y"])
    page.mouse.wheel(0, -300)
    settle(page)
    begin, end = view(page)
    whole = page.evaluate("pipesynth.range.to - pipesynth.range.from")
    assert end - begin < 0.8 * whole
    assert place(page, "4F2")["x"] == pytest.approx(spot["x"], abs=0.5)
    assert page.evaluate("pipesynth.pointedAt") == "4F2"
    page.mouse.wheel(80, 0)
    settle(page)
    assert view(page)[0] > begin
    assert view(page)[1] - view(page)[0] == pytest.approx(end - begin)
    page.mouse.wheel(0, 30000)
    settle(page)
    for _ in range(20):
        page.mouse.wheel(0, 300)
    settle(page)
    assert view(page) == (0, whole)


def test_dragging_pans_and_clicking_sets_the_cursor(open_page):
    page = open_page(Shown(title="", schedule=two_chunks()))
    page.keyboard.press("+")
    before, spot = view(page), place(page, "4F2")
    page.mouse.move(600, spot["y"])
    page.mouse.down()
    page.mouse.move(500, spot["y"], steps=4)
    page.mouse.up()
    assert place(page, "4F2")["x"] == pytest.approx(spot["x"] - 100, abs=0.5)
    assert view(page)[1] - view(page)[0] == pytest.approx(before[1] - before[0])
    assert page.evaluate("pipesynth.cursor") is None
    spot = place(page, "0F7")
    page.mouse.click(spot["x"], spot["y"])
    start = page.evaluate("pipesynth.readings")[0][0]
    assert start["op"] == "0F7"


def test_keys_change_the_view(open_page):
    page = open_page(Shown(title="", schedule=two_chunks()))
    whole = view(page)
    page.keyboard.press("+")
    closer = view(page)
    assert closer[1] - closer[0] == pytest.approx((whole[1] - whole[0]) / 1.5)
    page.keyboard.press("ArrowRight")
    later = view(page)
    assert later[0] - closer[0] == pytest.approx(0.1 * (closer[1] - closer[0]))
    page.keyboard.press("ArrowLeft")
    assert view(page) == pytest.approx(closer)
    page.keyboard.press("-")
    assert view(page) == pytest.approx(whole)
    for key in ("0", "Home"):
        page.keyboard.press("=")
        page.keyboard.press(key)
        assert view(page) == whole
    for _ in range(16):
        page.keyboard.press("+")
    assert view(page)[1] - view(page)[0] == pytest.approx(4)
    page.keyboard.press("u")
    assert page.evaluate("pipesynth.unit") == "ticks"
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("?")
    assert page.is_hidden("#keys")


def test_keys_step_the_cursor_from_start_to_start(open_page):
    page = open_page(Shown(title="", schedule=good_schedule()))
    starts = sorted({t.start for rank in good_schedule().ranks for t in rank})
    for start in starts:
        page.keyboard.press(".")
        assert page.evaluate("pipesynth.cursor") == start
    page.keyboard.press("]")
    assert page.evaluate("pipesynth.cursor") == starts[-1]
    for start in starts[-2::-1]:
        page.keyboard.press(",")
        assert page.evaluate("pipesynth.cursor") == start
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tip").startswith("rank 1: not begun")
    page.keyboard.press("]")
    assert page.evaluate("pipesynth.cursor") == 3
    assert page.inner_text("#tip").startswith("1F0: forward")
    page.set_viewport_size({"width": 1200, "height": 240})
    page.keyboard.press("ArrowUp")
    assert 0 < place(page, "0F0")["y"] < 240, "the chosen rank is scrolled to"
    page.keyboard.press("Escape")
    assert page.evaluate("pipesynth.cursor") is None
    assert page.is_hidden("#tip")


def test_slider_sets_the_cursor_and_every_rank_says_what_it_does(open_page):
    schedule = good_schedule()
    page = open_page(Shown(title="", schedule=schedule))
    steps = memory_steps(schedule)
    for tick in (0, 2, 3, 4, 9, 12, 15):
        page.fill("#time", str(tick))
        assert page.evaluate("pipesynth.cursor") == tick
        running = [
            [str(t.op) for t in rank if t.start <= tick < t.end] or ["idle"] for rank in schedule.ranks
        ]
        live = [max((step for step in rank if step.tick <= tick), default=(0, 0))[1] for rank in steps]
        assert page.evaluate("pipesynth.readings") == [
            [{"op": op, "memory": f"{held} B"} for (op,), held in zip(running, live, strict=True)]
        ]
        settle(page)
        assert page.inner_text("#now").endswith(f"· {tick} tick{'s' * (tick != 1)}")
    page.focus("#time")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("pipesynth.cursor") == 14
    assert view(page) == (0, 15), "the slider's keys are its own"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system_until_it_is_switched(open_page, scheme):
    other = {"light": "dark", "dark": "light"}[scheme]
    page = open_page(Shown(title="", schedule=good_schedule()), color_scheme=scheme)
    background = "getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(background)

    def shows(theme):
        page.wait_for_function("theme => pipesynth.theme === theme", arg=theme)
        return True

    assert shows(scheme)
    page.emulate_media(color_scheme=other)
    assert shows(other)
    assert page.evaluate(background) != first
    page.click("#theme")
    assert shows(scheme)
    page.emulate_media(color_scheme=scheme)
    page.emulate_media(color_scheme=other)
    settle(page)
    assert shows(scheme), "chosen by hand, it stays"
    page.keyboard.press("t")
    assert shows(other)


def test_marked_ops_are_outlined_until_switched_off(open_page):
    page = open_page(Shown(title="", schedule=good_schedule(), marked=(Op.parse("0F1"),)))
    spot, neighbour = place(page, "0F1"), place(page, "0F0")
    edge = (spot["x"], spot["y"] - 14.5)
    assert same_colour(colour_at(page, *edge), "#000000")
    assert not same_colour(colour_at(page, neighbour["x"], edge[1]), "#000000")
    page.keyboard.press("c")
    assert same_colour(colour_at(page, *edge), shade(OpKind.F, 0, 1).fill)
    assert page.get_attribute("#marked", "aria-pressed") == "false"


def test_two_schedules_share_one_axis(open_page):
    plan = good_schedule()
    ops = [[t._asdict() for t in rank] for rank in plan.ranks]
    ops[0][-1]["end"] += 5
    measured = Schedule(plan.problem, tuple(tuple(TimedOp(**t) for t in rank) for rank in ops))
    page = open_page(Shown(title="plan", schedule=plan), Shown(title="measured", schedule=measured))
    assert view(page) == (0, 20)
    assert page.locator("h2").all_inner_texts()[:2] == ["plan", "measured"]
    assert place(page, "1B0")["x"] == place(page, "1B0", 1)["x"]
    assert point_at(page, "0W1", 1)[2] == "14 – 20 ticks (6 ticks)"
    page.mouse.wheel(0, -200)
    settle(page)
    assert view(page)[1] - view(page)[0] < 20
    assert place(page, "1B1")["x"] == place(page, "1B1", 1)["x"]
    page.keyboard.press("0")
    page.fill("#time", "10")
    assert [[r["op"] for r in section] for section in page.evaluate("pipesynth.readings")] == [
        ["0W0", "1B1"]
    ] * 2


def test_ticks_of_other_lengths_share_an_axis_in_seconds(open_page):
    coarse = good_schedule(replace(two_by_two(), tick_seconds=2e-6))
    page = open_page(Shown(title="fine", schedule=good_schedule()), Shown(title="coarse", schedule=coarse))
    assert view(page) == (0, 30)
    origin, scale = place(page, "0F0")["x"], place(page, "0F1")["x"] - place(page, "0F0")["x"]
    assert place(page, "0F1", 1)["x"] == pytest.approx(origin + 2.5 * scale)
    assert point_at(page, "0F1", 1)[2:4] == ["2 – 4 ticks (2 ticks)", "4 µs – 8 µs (4 µs)"]
    assert page.is_disabled("#unit")


def test_large_times_and_sizes_are_written_in_their_units(open_page):
    stage = StageCosts(
        F=OpCost(ticks=9261, alloc_bytes=3 * 2**30), BW=OpCost(ticks=13711, free_bytes=3 * 2**30)
    )
    page = open_page(Shown(title="", schedule=timed(two_by_two(stage, num_microbatches=40), "1f1b")))
    assert point_at(page, "0F0")[2:5] == [
        "0 – 9,261 ticks (9,261 ticks)",
        "0 s – 9.261 ms (9.261 ms)",
        "allocates 3 GiB, frees 0 B; rank 0 holds 3 GiB meanwhile",
    ]
    assert "peak memory\n6 GiB on rank 0, no limit" in page.inner_text(".numbers")


def test_fingers_tap_and_pinch(open_page):
    page = open_page(Shown(title="", schedule=two_chunks()), has_touch=True)
    spot = place(page, "0F3")
    page.touchscreen.tap(spot["x"], spot["y"])
    assert page.inner_text("#tip").startswith("0F3: forward")
    assert page.evaluate("pipesynth.readings")[0][0]["op"] == "0F3"
    session = page.context.new_cdp_session(page)
    begin, end = view(page)
    for kind, apart in (("touchStart", 50), ("touchMove", 75), ("touchMove", 100), ("touchEnd", None)):
        points = [] if apart is None else [{"x": 600 + side * apart, "y": spot["y"]} for side in (-1, 1)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert math.isclose((end - begin) / (view(page)[1] - view(page)[0]), 2, rel_tol=0.02)


def test_a_measured_schedule_shows_the_gap_of_its_plan(open_page):
    plan = limited()
    certificate = Certificate(objective=Objective.MAKESPAN, value=plan.value, lower_bound=14, bound_from="")
    measured = shifted(plan, factor=3, later=1000)
    measured = replace(measured, problem=replace(plan.problem, name="two ranks"))
    page = open_page(Shown(title="", schedule=measured, certificate=certificate))
    assert f"of the planned {plan.value} ticks" in page.inner_text(".numbers")
    assert page.evaluate("getComputedStyle(document.querySelector('.about bdi')).unicodeBidi") == "isolate"


# Flows.


def test_a_flows_ops_say_what_they_are_of_the_model(open_page):
    stage = replace(UNDIVIDED, R=OpCost(ticks=4))
    problem = with_directions(
        uniform_problem(2, 2, stage), [Direction((0, 1), (0,)), Direction((1, 0), (1,))]
    )
    page = open_page(Shown(title="two directions", schedule=schedule_orders(problem, serial_orders(problem))))
    assert point_at(page, "3F1")[:2] == [
        "3F1: forward",
        "rank 0, stage 3 (stage 1 of direction 1), microbatch 1",
    ]
    assert point_at(page, "2R0")[:2] == [
        "2R0: sum of weight gradients",
        "rank 1, stage 2 (stage 0 of direction 1), all microbatches",
    ]
    legend = page.inner_text(".legend")
    assert "stage 3 = stage 1 of direction 1" in legend
    assert "shade: a rank's stages" in legend
    assert "R sum of weight gradients" in legend
    assert "4 stages in 2 directions" in page.inner_text(".about")
