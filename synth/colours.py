"""Colours of the ops: a hue for each kind, a shade for each chunk, told apart by colour-blind readers too."""

from __future__ import annotations

from typing import NamedTuple

from synth.ops import OpKind

RAMPS = {
    OpKind.F: ("#166991", "#89d4ec"),
    OpKind.B: ("#991638", "#fa9886"),
    OpKind.W: ("#8d7401", "#ede361"),
    OpKind.BW: ("#4f10a4", "#a788ff"),
    OpKind.R: ("#7a7a7a", "#d2d2d2"),
}
"""The shades of a kind's last and first chunk.

Found by a search for the largest least distance between kinds, as seen by normal, protan, deutan and tritan
eyes (Machado et al. 2009, DOI 10.1109/TVCG.2009.113, severity 1); then that of R among the greys, which is
told by its letter too.
"""

DARK_TEXT, LIGHT_TEXT = "#000000", "#ffffff"


class Shade(NamedTuple):
    """A fill and the text that can be read on it, as ``#rrggbb``."""

    fill: str
    text: str


def shade(kind: OpKind, chunk: int, num_chunks: int) -> Shade:
    """The colour of a kind's op: light for the first chunk, dark for the last, the middle for the only one.

    >>> shade(OpKind.F, 0, 2)
    Shade(fill='#89d4ec', text='#000000')
    """
    share = chunk / (num_chunks - 1) if num_chunks > 1 else 0.5
    last, first = map(_channels, RAMPS[kind])
    mixed = [round(a + (b - a) * share) for a, b in zip(first, last, strict=True)]
    fill = "#" + "".join(f"{channel:02x}" for channel in mixed)
    return Shade(fill, max(DARK_TEXT, LIGHT_TEXT, key=lambda text: contrast(fill, text)))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2, 1 to 21)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    """Undo the gamma of sRGB (IEC 61966-2-1)."""
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
