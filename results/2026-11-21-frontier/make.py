"""Best bubble against memory: two frontiers in the times of a published profile, one in unit times.

Writes ``<name>.csv``, ``<name>.png`` and ``<name>.svg`` for each. The schedules go into ``points/<name>/``,
from where a broken study goes on: remove that folder to begin anew.

    python results/2026-11-21-frontier/make.py [NAME ...]
"""

from __future__ import annotations

import csv
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

from synth import (
    Objective,
    OpCost,
    OpKind,
    PlacementKind,
    Problem,
    Schedule,
    ScheduleDocument,
    StageCosts,
    load_instance,
    uniform_problem,
)
from synth.chunks import cut_every_way
from synth.files import write_whole
from synth.frontier import (
    Folder,
    Frontier,
    Point,
    PublishedPoint,
    choose_limits,
    csv_text,
    published_points,
    read_range,
    sweep,
)
from synth.frontier.picture import png_bytes, svg_text

HERE = Path(__file__).parent
FIRST, LAST, WORKERS, SEED = "0.4x", "1.1x", 2, 0
CHUNK_ACTIVATIONS_OF_1F1B = 16
"""1F1B on eight ranks holds eight microbatches, each of two chunks."""

STUDY_OF_PUBLISHED = {"zb-1.5b-v-held": "zb-1.5b-v"}
"""The published searches ran with activations held until W; both profiles are set beside them."""


def profile() -> Problem:
    """The 1.5B profile in a V of two chunks, in half microseconds so that nothing is rounded."""
    (problem,) = cut_every_way(load_instance("zb-1.5b-m24"), PlacementKind.V).problems
    return replace(
        problem, objective=Objective.RANK_SPAN, name="1.5B profile, p = 8, m = 24, V of two chunks"
    )


def profile_held() -> Problem:
    """The same, each chunk's activations held whole until its W."""
    problem = profile()
    stages = tuple(
        StageCosts(
            F=replace(costs.F, alloc_bytes=1),
            B=replace(costs.cost(OpKind.B), free_bytes=0),
            W=replace(costs.cost(OpKind.W), free_bytes=1),
            BW=replace(costs.cost(OpKind.BW), free_bytes=1),
        )
        for costs in problem.stages
    )
    return replace(problem, stages=stages, name=f"{problem.name}, held until W")


def unit() -> Problem:
    """F = B = W = 1 per chunk, no transfers, activations held until W."""
    stage = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), B=OpCost(ticks=1), W=OpCost(ticks=1, free_bytes=1))
    return uniform_problem(
        8,
        16,
        stage,
        chunks=2,
        kind=PlacementKind.V,
        objective=Objective.RANK_SPAN,
        name="unit times, p = 8, m = 16, V of two chunks",
    )


STUDIES: dict[str, tuple[Callable[[], Problem], float]] = {
    "zb-1.5b-v-held": (profile_held, 60.0),
    "zb-1.5b-v": (profile, 60.0),
    "unit-v-p8": (unit, 150.0),
}
"""What is stated, and the seconds for each limit."""


def make(name: str) -> None:
    """Sweep one frontier, or what is missing of it, and write its table and pictures."""
    state, seconds = STUDIES[name]
    problem = state()
    axis, first, last = read_range(FIRST, LAST, [problem], 1)
    limits = choose_limits(axis, first, last)
    (HERE / "points").mkdir(exist_ok=True)
    folder = Folder(str(HERE / "points" / name), [problem], axis, SEED)

    def note(point: Point) -> None:
        folder.save(point)
        print(f"{name} {point.limit_bytes}: {point.status} {point.value} {point.lower_bound}", flush=True)

    swept = sweep(
        [problem],
        axis,
        limits,
        time_limit=seconds,
        workers=WORKERS,
        seed=SEED,
        known=(*folder.read().points, *_also_valid(name, problem)),
        on_point=note,
    )
    if swept.interrupted:
        sys.exit(f"interrupted: {name} goes on from its points when this is run again")
    baselines = published_points([problem], axis)
    searches = [
        _published(row, problem, axis.unit_bytes)
        for row in csv.DictReader((HERE / "published.csv").open())
        if row["study"] == STUDY_OF_PUBLISHED.get(name, name)
    ]
    frontier = Frontier(problem=problem, axis=axis, points=swept.points, published=(*baselines, *searches))
    write_whole(str(HERE / f"{name}.csv"), csv_text(frontier))
    write_whole(str(HERE / f"{name}.png"), png_bytes(frontier))
    write_whole(str(HERE / f"{name}.svg"), svg_text(frontier))


def _also_valid(name: str, problem: Problem) -> list[Point]:
    """What was found with activations held until W is valid, at twice the bytes, where some go before."""
    if name != "zb-1.5b-v":
        return []
    held = profile_held()
    axis, _, _ = read_range(FIRST, LAST, [held], 1)
    points = Folder(str(HERE / "points" / "zb-1.5b-v-held"), [held], axis, SEED).read().points
    return [_moved(point, problem) for point in points]


def _moved(point: Point, problem: Problem) -> Point:
    """A point on the problem with twice the bytes; its bound does not hold there, the work's does."""
    document, limit_bytes = point.document, 2 * point.limit_bytes
    assert document is not None
    schedule = Schedule(problem.with_memory_limit(limit_bytes), document.schedule.ranks)
    certificate = replace(document.certificate, lower_bound=problem.work_ticks, bound_from="work")
    moved = ScheduleDocument.of(schedule, certificate, document.provenance)
    return Point.found(limit_bytes, moved, 0.0)


def _published(row: dict[str, str], problem: Problem, unit_bytes: int) -> PublishedPoint:
    """A published bubble, given to four decimals, as a point."""
    bubble = float(row["bubble_ratio"])
    return PublishedPoint(
        name=row["name"],
        memory_bytes=int(row["chunk_activations"]) * unit_bytes // CHUNK_ACTIVATIONS_OF_1F1B,
        value=round(problem.work_ticks / (1 - bubble)),
        bubble_ratio=bubble,
        source=row["source"],
    )


def versions() -> dict[str, object]:
    """What it was made with."""
    packages = ("pipesynth", "ortools", "highspy", "numpy", "numba", "matplotlib")
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, 2 shared cores",
        "seconds_per_limit": {name: seconds for name, (_, seconds) in STUDIES.items()},
        "workers": WORKERS,
        "seed": SEED,
        **{name: version(name) for name in packages},
    }


def main() -> None:
    """Make the studies named, or all."""
    for name in sys.argv[1:] or STUDIES:
        make(name)
    write_whole(str(HERE / "versions.json"), json.dumps(versions(), indent=2) + "\n")


if __name__ == "__main__":
    main()
