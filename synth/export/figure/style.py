"""Colours and sizes of figures.

Every kind of op has a hue of its own and, for the eye that sees none and for grey print, a lightness of its
own: from light to dark F, B, BW, W. A rank's chunks are shades of it, from light to dark, nowhere as dark as
the lightest shade of the next kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from synth.ops import OpKind

Colour = tuple[float, float, float]
"""Red, green and blue, from 0 to 1."""

SHADES: Mapping[OpKind, tuple[str, str]] = MappingProxyType(
    {
        OpKind.F: ("#D9EEFF", "#A3D1F7"),
        OpKind.B: ("#F5A949", "#E1892C"),
        OpKind.BW: ("#AD68B1", "#914E9E"),
        OpKind.W: ("#0D5B43", "#003F2F"),
        OpKind.R: ("#9A9A9A", "#7E7E7E"),
    }
)
"""The shades of a rank's first and last chunk."""

LIGHT_TEXT = frozenset({OpKind.BW, OpKind.W})
"""The kinds so dark that text on them is white."""

INK = "#1A1A1A"
MUTED = "#5A5A5A"
IDLE = "#ECECEC"
MEMORY = "#9A9A9A"
LIMIT = "#B2182B"

WIDTH_INCHES = 7.16
"""Two columns of a paper."""
DOTS_PER_INCH = 250
LEFT_INCHES, RIGHT_INCHES = 0.52, 0.08
PEAKS_INCHES, BLOCK_INCHES = 0.60, 1.75
"""What is to the right of a schedule: the ranks' peaks, and the building block."""
LEGEND_INCHES, AXIS_INCHES = 0.20, 0.30
TITLE_INCHES, LINE_INCHES = 0.20, 0.14
ABOVE_PANEL_INCHES, BELOW_PANEL_INCHES = 0.09, 0.08
TALLEST_ROW_INCHES, LOWEST_ROW_INCHES, PANEL_INCHES = 0.32, 0.13, 2.7
"""A rank's row; a panel of many ranks is as tall as this while its rows are not too low."""

TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 8.0, 6.5, 5.5
LARGEST_NUMBER_POINTS, SMALLEST_NUMBER_POINTS = 6.5, 4.0
DIGIT_WIDTH = 0.64
"""The width of a digit as a share of the size of its font."""

OPS_TOP, OPS_BOTTOM = 0.04, 0.60
"""Where in its row, from 0 above to 1 below, a rank's ops are drawn."""
STRIP_TOP, STRIP_BOTTOM = 0.66, 0.94
"""Where in its row a rank's memory is drawn."""


def shade(kind: OpKind, chunk: int, num_chunks: int) -> Colour:
    """The colour of a kind of op on one of a rank's chunks."""
    first, last = map(_colour, SHADES[kind])
    share = chunk / (num_chunks - 1) if num_chunks > 1 else 0.0
    red, green, blue = (a + share * (b - a) for a, b in zip(first, last, strict=True))
    return red, green, blue


def row_inches(num_ranks: int) -> float:
    """How tall a rank's row is."""
    return min(TALLEST_ROW_INCHES, max(LOWEST_ROW_INCHES, PANEL_INCHES / num_ranks))


def _colour(text: str) -> Colour:
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
