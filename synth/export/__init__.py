"""Exports: schedules in the forms that other programs read and papers show.

An exporter is a function from schedules to the bytes of one file, entered in :data:`TARGETS`; one of several
files is a function from a schedule and the first file's name to texts by name, entered in :data:`FILE_SETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from synth.errors import InputError, InvalidOrdersError
from synth.export.figure import render_pdf, render_png, render_svg
from synth.export.file_sets import FILE_SETS, export_files
from synth.export.html import render_html
from synth.export.perfetto import render_perfetto
from synth.export.shown import Shown
from synth.files import STANDARD_STREAM
from synth.graph import build_graph, divided_in_orders
from synth.schedule import Schedule
from synth.slot_table import to_slot_table_that_fits

__all__ = ["FILE_SETS", "TARGETS", "Shown", "Target", "export", "export_files"]


@dataclass(frozen=True, slots=True)
class Target:
    """A form that schedules are exported in.

    Parameters
    ----------
    name
        As the command line takes it.
    what
        What the file is.
    most
        How many schedules one file takes.
    suffix
        How such files end.
    render
        From schedules to the file's content, or that of the first of several.
    files
        For a target of several files: from a schedule and the name of the first to texts by name.
    """

    name: str
    what: str
    most: int
    suffix: str
    render: Callable[[Sequence[Shown]], bytes]
    files: Callable[[Schedule, str], dict[str, str]] | None = None


def _file_set(name: str, what: str) -> Target:
    """A target of one schedule and several files."""
    files = FILE_SETS[name]

    def render(shown: Sequence[Shown]) -> bytes:
        return files(shown[0].schedule, STANDARD_STREAM)[STANDARD_STREAM].encode("utf-8")

    return Target(name, what, 1, ".csv", render, files)


def _render_slot_table(shown: Sequence[Shown]) -> bytes:
    return to_slot_table_that_fits(shown[0].schedule).encode("ascii")


def _render_page(shown: Sequence[Shown]) -> bytes:
    return render_html(shown).encode("ascii")


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            _file_set("torch-csv", "PyTorch's own runtime: CSV, stage map and module"),
            _file_set("torchtitan", "torchtitan: CSV and module"),
            _file_set("automodel", "NeMo Automodel: CSV and YAML"),
            Target("slot-csv", "ranks by slots, in unit times if too many", 1, ".csv", _render_slot_table),
            Target("html", "an interactive page in one file", 8, ".html", _render_page),
            Target("perfetto", "a trace for ui.perfetto.dev", 8, ".json", render_perfetto),
            Target("svg", "a figure for papers and pages", 8, ".svg", render_svg),
            Target("png", "the same in pixels", 8, ".png", render_png),
            Target("pdf", "the same for LaTeX", 8, ".pdf", render_pdf),
        )
    }
)
"""Every target by its name."""


def export(name: str, shown: Sequence[Shown]) -> bytes:
    """Write schedules in the form that a target names.

    Parameters
    ----------
    name
        One of :data:`TARGETS`.
    shown
        At least one schedule, at most as many as the target takes.

    Raises
    ------
    InputError
        When there is no such target or there are too many schedules.
    InvalidOrdersError
        When a schedule does not hold exactly its problem's ops, in order of time, or lasts no time.
    """
    target = find_target(name)
    check_count(target, len(shown))
    for one in shown:
        _check_drawable(one.title, one.schedule)
    return target.render(shown)


def find_target(name: str) -> Target:
    """The target of this name.

    Raises
    ------
    InputError
        When there is none, naming those there are.
    """
    if name not in TARGETS:
        raise InputError(f"{name!r} is no export target: use one of {', '.join(TARGETS)}")
    return TARGETS[name]


def check_count(target: Target, count: int) -> None:
    """Make sure that a target takes so many schedules.

    Raises
    ------
    InputError
        When it takes fewer, or none is given.
    """
    if not 1 <= count <= target.most:
        takes = "one schedule" if target.most == 1 else f"1 to {target.most} schedules"
        raise InputError(f"{count} schedules are given: {target.name} takes {takes} in a file")


def _check_drawable(title: str, schedule: Schedule) -> None:
    """Make sure that every op stands once, in order of time, and some last; their times may be any else."""
    problem = schedule.problem
    graph = build_graph(problem, divided_in_orders(problem, schedule.orders))
    graph.orders_to_ids(schedule.orders)
    for rank, row in enumerate(schedule.ranks):
        before = row[0]
        for timed in row:
            if timed.start < before.start or timed.end < timed.start:
                raise InvalidOrdersError(
                    f"{title}: rank {rank} lists {timed.op} from {timed.start} to {timed.end} behind "
                    f"{before}: list its ops in order of time, each with its start before its end"
                )
            before = timed
    if all(timed.start == timed.end for row in schedule.ranks for timed in row):
        raise InvalidOrdersError(f"{title}: no op lasts any time: give an op an end after its start")
