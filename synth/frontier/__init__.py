"""The best value against the memory limit, with bounds, and published schedules as points beside it.

``axis`` says what a limit means and chooses which to try; ``sweeps`` searches at all of them side by side, in
the processes of ``worker``; ``points`` lets them help one another; ``published`` sets the baselines beside
them; ``table`` and ``picture`` are the answer, and ``folder`` is what a broken sweep goes on from.
"""

from synth.frontier.axis import Axis, choose_limits, read_range
from synth.frontier.folder import Folder
from synth.frontier.points import Point, PointStatus
from synth.frontier.published import PublishedPoint, above_curve, published_points
from synth.frontier.sweeps import Sweep, sweep
from synth.frontier.table import COLUMNS, Frontier, csv_text, rows

__all__ = [
    "COLUMNS",
    "Axis",
    "Folder",
    "Frontier",
    "Point",
    "PointStatus",
    "PublishedPoint",
    "Sweep",
    "above_curve",
    "choose_limits",
    "csv_text",
    "published_points",
    "read_range",
    "rows",
    "sweep",
]
