"""Targets of several files that lie beside one another; the path that is asked for is that of the CSV."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from synth.export.automodel import automodel_files
from synth.export.torch_files import torch_csv_files
from synth.export.torchtitan import torchtitan_files
from synth.files import STANDARD_STREAM
from synth.schedule import Schedule

FILE_SETS: Mapping[str, Callable[[Schedule, str], dict[str, str]]] = MappingProxyType(
    {"torch-csv": torch_csv_files, "torchtitan": torchtitan_files, "automodel": automodel_files}
)
"""By target: from a schedule and the name of the CSV to texts by file name."""


def export_files(target: str, schedule: Schedule, path: str) -> dict[str, str]:
    """The files of an export, to be written by :func:`synth.files.write_all`.

    Parameters
    ----------
    target
        One of :data:`FILE_SETS`.
    schedule
        What is exported.
    path
        Where the CSV goes; the other files go beside it. To standard output, ``-``, goes the CSV alone.

    Returns
    -------
    Texts by path, the CSV first.

    Raises
    ------
    InputError
        Naming what the target cannot express.
    InvalidOrdersError
        When the schedule does not hold exactly its problem's ops, or its ranks wait for one another.
    """
    folder, csv_name = os.path.split(path)
    if path == STANDARD_STREAM:
        return {path: FILE_SETS[target](schedule, path)[path]}
    return {os.path.join(folder, name): text for name, text in FILE_SETS[target](schedule, csv_name).items()}
