"""A frontier's folder: its schedules, and how long each was searched, so that a sweep can go on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from synth.document import read_schedule, write_schedule
from synth.errors import DocumentError, InputError
from synth.files import read_text, write_whole
from synth.frontier.axis import Axis
from synth.frontier.points import Point
from synth.placement import PlacementKind
from synth.problem import Problem
from synth.verify import verify_schedule

POINTS = "points"
"""The folder of the schedule documents, each of the name of its limit in bytes."""

SEARCHED = "searched.json"
"""In there: for every limit the seconds it was given, the seed, and where its schedule came from."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a folder holds of an earlier sweep: its points, and a sentence for every file that is no use."""

    points: tuple[Point, ...]
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Searched:
    """How long a limit was searched with which seed, and where its schedule came from."""

    time_limit_s: float = 0.0
    seed: int | None = None
    taken_from_bytes: int | None = None


class Folder:
    """The folder of one frontier.

    Parameters
    ----------
    path
        The folder; it is made where its parent exists.
    problems, axis, seed
        What the sweep is of. Points of another seed are searched again, and help all the same.

    Raises
    ------
    InputError
        When no such folder can be made, or nothing may be written into it.
    """

    def __init__(self, path: str, problems: Sequence[Problem], axis: Axis, seed: int) -> None:
        self.path = Path(path)
        self._problems, self._axis, self._seed = problems, axis, seed
        self._searched: dict[str, _Searched] = {}
        _make(self.path)
        _make(self.path / POINTS)

    def file(self, name: str) -> str:
        """The path of a file in the folder."""
        return str(self.path / name)

    def point_file(self, limit_bytes: int) -> str:
        """The path of a limit's schedule document."""
        return self.file(f"{POINTS}/{limit_bytes}.json")

    def read(self) -> Kept:
        """Every point that is there and whole.

        Raises
        ------
        InputError
            When a document is of another problem: the folder is that one's.
        """
        complaints = self._read_searched()
        points = []
        names = os.listdir(self.path / POINTS)
        for limit in sorted(int(name[:-5]) for name in names if re.fullmatch(r"(0|[1-9]\d*)\.json", name)):
            try:
                points.append(self._read_point(limit))
            except DocumentError as error:
                complaints.append(f"{error}; that limit is searched again")
        return Kept(tuple(points), tuple(complaints))

    def save(self, point: Point) -> None:
        """Write a point's schedule, if it has one, and then that it was searched."""
        if point.document is None:
            return
        write_whole(self.point_file(point.limit_bytes), write_schedule(point.document))
        self._read_searched()  # another sweep may have added to it
        self._searched[str(point.limit_bytes)] = _Searched(
            time_limit_s=point.time_limit_s, seed=self._seed, taken_from_bytes=point.taken_from_bytes
        )
        tree = {limit: asdict(entry) for limit, entry in self._searched.items()}
        write_whole(self.file(f"{POINTS}/{SEARCHED}"), json.dumps(tree, indent=2) + "\n")

    def _read_searched(self) -> list[str]:
        path = self.file(f"{POINTS}/{SEARCHED}")
        if not os.path.exists(path):
            return []
        try:
            tree = json.loads(read_text(path))
            self._searched = {
                limit: _Searched(
                    time_limit_s=float(entry["time_limit_s"]),
                    seed=int(entry["seed"]),
                    taken_from_bytes=_whole_or_none(entry["taken_from_bytes"]),
                )
                for limit, entry in tree.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            return [f"{path} is damaged: every limit is searched again, beginning with what is there"]
        return []

    def _read_point(self, limit_bytes: int) -> Point:
        path = self.point_file(limit_bytes)
        document = read_schedule(read_text(path), path)
        self._check_problem(document.schedule.problem, limit_bytes, path)
        violations = verify_schedule(
            document.schedule,
            metrics=document.metrics,
            certificate=document.certificate,
            stated_gap=document.stated_gap,
            stated_status=document.stated_status,
        )
        if violations:
            raise DocumentError("$", "no valid schedule", f"pipesynth verify {path} says what is wrong", path)
        entry = self._searched.get(str(limit_bytes), _Searched())
        had = entry.time_limit_s if entry.seed == self._seed else 0.0
        return replace(Point.found(limit_bytes, document, had), taken_from_bytes=entry.taken_from_bytes)

    def _check_problem(self, found: Problem, limit_bytes: int, path: str) -> None:
        if not any(_is_placed(self._axis.under(stated, limit_bytes), found) for stated in self._problems):
            raise InputError(
                f"{path} is a schedule of another problem, {found.name or 'one without a name'} with "
                f"{found.num_microbatches} microbatches under {found.objective}: name another folder, "
                "or remove that one"
            )


def _is_placed(stated: Problem, found: Problem) -> bool:
    """Whether a problem is another one with its placement resolved."""
    is_open = stated.placement.kind is PlacementKind.AUTO
    if not is_open and stated.stage_to_rank != found.stage_to_rank:
        return False
    return replace(stated, placement=found.placement) == found if _same_length(stated, found) else False


def _same_length(stated: Problem, found: Problem) -> bool:
    return (stated.num_ranks, stated.num_stages) == (found.num_ranks, found.num_stages)


def _whole_or_none(value: object) -> int | None:
    return None if value is None else int(str(value))


def _make(folder: Path) -> None:
    if folder.is_dir():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(
                f"{folder} cannot be written into: change its permissions, or name another folder"
            )
        return
    if folder.exists():
        raise InputError(f"{folder} is a file: name a folder for the frontier")
    try:
        folder.mkdir()
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} cannot be made: there is no folder {folder.parent}; create it first"
        ) from error
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise InputError(f"{folder} cannot be made: {reason}; name another folder") from error
