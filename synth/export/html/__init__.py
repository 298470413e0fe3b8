"""The interactive page: schedules on one time axis, in one HTML file that loads nothing.

``page.html`` is the frame, ``page.css`` the looks. The scripts stand in the order of :data:`SCRIPTS`: units,
the schedule as arrays, what is said of it, drawing, what is shown and the ways to change it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from string import Template

from synth.errors import InputError
from synth.export.html.embed import schedule_data
from synth.export.shown import Shown

SCRIPTS = (
    "units.js",
    "schedule.js",
    "words.js",
    "layout.js",
    "ops.js",
    "memory.js",
    "overlay.js",
    "section.js",
    "view.js",
    "input.js",
    "page.js",
)
"""The parts of the page's script; each uses earlier ones only."""


def render_html(shown: Sequence[Shown]) -> str:
    """Render schedules as one HTML page that needs nothing beside it.

    The page is ASCII, and the same input gives the same bytes.

    Parameters
    ----------
    shown
        One or more schedules, drawn below one another on one time axis. Their ticks may differ in length: the
        axis is then in seconds.

    Raises
    ------
    InputError
        When nothing is given to show, a schedule lacks ops or runs two at once on a rank, a marked op is not
        in its schedule, or a number is 2**53 or more, which a browser cannot hold.
    """
    if not shown:
        raise InputError("there is no schedule to show: give one or more")
    title = " and ".join(one.title for one in shown)
    page = Template(_resource("page.html")).substitute(
        title=html.escape(title).encode("ascii", "xmlcharrefreplace").decode("ascii"),
        style=_resource("page.css"),
        data=_inside_script([schedule_data(one) for one in shown]),
        script="\n".join(map(_resource, SCRIPTS)),
    )
    assert page.isascii(), "the parts of the page are ASCII"
    return page


def _resource(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8").rstrip()


def _inside_script(data: object) -> str:
    """JSON in which no name can end the script it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
