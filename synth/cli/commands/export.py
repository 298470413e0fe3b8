"""``export``: schedules in the forms that other programs read and papers show."""

from __future__ import annotations

import argparse
from dataclasses import replace

from synth.cli.exit_codes import DONE
from synth.cli.streams import check_output
from synth.document import read_schedule_or_timeline
from synth.errors import InputError
from synth.explain.critical_path import critical_path, in_words
from synth.export import TARGETS, Shown, Target, check_count, export, export_files, find_target
from synth.files import STANDARD_STREAM, read_text, write_all, write_whole
from synth.measured import Timeline

PAGE = "html"
"""The target that shows the critical path."""

CRITICAL = "each marked op waits for the one before it, so that together they make the value"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``export`` takes."""
    add = parser.add_argument
    add(
        "schedules",
        metavar="SCHEDULE",
        nargs="+",
        help="a schedule or timeline document, or - for standard input",
    )
    targets = "; ".join(f"{target.name}: {target.what}" for target in TARGETS.values())
    add("--to", metavar="TARGET", required=True, help=targets)
    add("-o", "--output", metavar="PATH", help="the file to write, - for standard output")
    add(
        "--title",
        metavar="TEXT",
        action="append",
        default=[],
        help="instead of the problem's name and the method; once for each schedule",
    )


def run(options: argparse.Namespace) -> int:
    """Write schedules as figures, traces and other programs' input."""
    target = find_target(options.to)
    _check(options, target)
    shown = _shown(options)
    if target.files is None:
        write_whole(options.output, export(target.name, shown))
    else:
        write_all(export_files(target.name, shown[0].schedule, options.output))
    return DONE


def _check(options: argparse.Namespace, target: Target) -> None:
    """Refuse what cannot be done before anything is read."""
    if options.output is None:
        example = f"schedule{target.suffix}"
        raise InputError(
            f"export needs -o: name the file to write, such as {example}, or - for standard output"
        )
    check_count(target, len(options.schedules))
    if options.schedules.count(STANDARD_STREAM) > 1:
        raise InputError("- is given more than once: standard input holds one schedule; name files")
    if options.title and len(options.title) != len(options.schedules):
        raise InputError(
            f"--title is given {len(options.title)} times for {len(options.schedules)} schedules: "
            "give it once for each, or leave it out"
        )
    check_output(options.output)


def _shown(options: argparse.Namespace) -> list[Shown]:
    titles = options.title or [None] * len(options.schedules)
    shown = [_read(path, title) for path, title in zip(options.schedules, titles, strict=True)]
    return list(map(_explained, shown)) if options.to == PAGE else shown


def _read(path: str, title: str | None) -> Shown:
    """A schedule or a measured timeline, under its own name where no other is given."""
    document = read_schedule_or_timeline(read_text(path), path)
    name = document.schedule.problem.name or "schedule"
    if isinstance(document, Timeline):
        return Shown(title=title or f"{name}: measured", schedule=document.schedule)
    title = title or f"{name}: {document.provenance.method}"
    return Shown(title=title, schedule=document.schedule, certificate=document.certificate)


def _explained(shown: Shown) -> Shown:
    """With its critical path marked, and told in words."""
    path = critical_path(shown.schedule)
    return replace(shown, marked=path.ops, notes=(f"Critical path: {CRITICAL}", *in_words(path)))
