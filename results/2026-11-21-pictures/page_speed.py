"""Measure how fast the interactive page opens, pans and zooms at 32 ranks and 256 microbatches.

Writes ``page_speed.csv``. The schedule is V-ZB on a V of two chunks with the times and bytes of the
zero-bubble paper's 28.3B profile at m = 256, each halved: 49,152 ops. *Open* runs from the start of the
navigation, in a fresh browser context, to the first frame in which everything is drawn. The other rows are
times between two animation frames while every frame moves the view; the screen refreshes every 16.7 ms, so
that is the least. Beside them stands the processor time that the page's main thread spends on a frame, which
other load on the machine (column ``load``, one-minute average) hardly changes. The browser has no GPU.

    python results/2026-11-21-pictures/page_speed.py
"""

from __future__ import annotations

import csv
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from synth import (
    OpCost,
    PlacementKind,
    Schedule,
    StageCosts,
    baseline_orders,
    schedule_orders,
    uniform_problem,
)
from synth.export.html import render_html
from synth.export.shown import Shown

HERE = Path(__file__).parent
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZE = {"width": 1280, "height": 1000}
OPENINGS = 7
FRAMES = 240
ZOOM_KEYS = 14
"""So many steps of 1.5 lead from the whole schedule to single ops with their names."""

MOVE = """([key, back, turn, frames]) => new Promise((resolve) => {
  const times = [];
  let n = 0;
  const step = (now) => {
    times.push(now);
    if (times.length > frames) return resolve(times.slice(1).map((time, i) => time - times[i]));
    const forth = Math.floor(n++ / turn) % 2 === 0;
    document.dispatchEvent(new KeyboardEvent("keydown", { key: forth ? key : back, bubbles: true }));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
"""Press a key once in every frame, turning to another every so many, and return the times between frames."""


def make_schedule() -> Schedule:
    """V-ZB at 32 ranks, 256 microbatches and two chunks."""
    stage = StageCosts(
        F=OpCost(ticks=5201, alloc_bytes=227_328),
        B=OpCost(ticks=5124, free_bytes=129_024),
        W=OpCost(ticks=3849, free_bytes=98_304),
    )
    problem = uniform_problem(
        32, 256, stage, chunks=2, kind=PlacementKind.V, transfer_ticks=460,
        memory_limit_bytes=64 * 227_328, name="28.3B, two chunks",
    )  # fmt: skip
    return schedule_orders(problem, baseline_orders("v-zb", problem))


def open_page(browser: Browser, address: str) -> tuple[Page, float]:
    """Open the page in a context of its own; also the milliseconds until everything was drawn."""
    page = browser.new_context(viewport=SIZE).new_page()
    page.goto(address)
    page.wait_for_function("performance.getEntriesByName('drawn').length > 0")
    return page, page.evaluate("performance.getEntriesByName('drawn')[0].startTime")


def frame_times(page: Page) -> Iterator[tuple[str, list[float], float]]:
    """What is done, the milliseconds between frames, and the processor milliseconds for each."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def move(key: str, back: str, turn: int) -> tuple[list[float], float]:
        before = processor_seconds(session)
        times = page.evaluate(MOVE, [key, back, turn, FRAMES])
        return times, 1000 * (processor_seconds(session) - before) / FRAMES

    yield "zoom", *move("+", "-", ZOOM_KEYS)
    for name, steps in (("whole", 1), ("narrow ops", ZOOM_KEYS // 2), ("named ops", ZOOM_KEYS)):
        page.keyboard.press("0")
        for _ in range(steps):
            page.keyboard.press("+")
        yield f"pan, {name}", *move("ArrowRight", "ArrowLeft", 3)


def processor_seconds(session: CDPSession) -> float:
    """The processor time that the page's main thread has spent on tasks so far."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def row(what: str, times: list[float], processor_ms: float | None = None) -> dict[str, object]:
    """Median, 95th percentile and worst of some times, and the load of the machine just now."""
    ordered = sorted(times)
    return {
        "what": what,
        "runs": len(times),
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "worst_ms": round(ordered[-1], 1),
        "processor_ms": "" if processor_ms is None else round(processor_ms, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    begun = time.perf_counter()
    text = render_html([Shown(title="V-ZB, 32 ranks", schedule=make_schedule())])
    print(f"scheduled and rendered in {time.perf_counter() - begun:.1f} s, {len(text)} bytes")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "page.html")
        path.write_text(text)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        opened = [open_page(browser, path.as_uri()) for _ in range(OPENINGS)]
        rows = [row("open", [milliseconds for _, milliseconds in opened])]
        rows += [row(*measured) for measured in frame_times(opened[-1][0])]
        about = {
            "file_bytes": len(text),
            "date": time.strftime("%Y-%m-%d"),
            "pipesynth": version("pipesynth"),
            "playwright": version("playwright"),
            "chromium": browser.version,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        }
        browser.close()
    with (HERE / "page_speed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**one, **about} for one in rows)
    print((HERE / "page_speed.csv").read_text())


if __name__ == "__main__":
    main()
