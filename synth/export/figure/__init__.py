"""Figures for papers: every rank a row, time to the right, memory below its ops, the building block beside.

Matplotlib is imported when a figure is drawn and not before.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth.export.shown import Shown


def render_svg(shown: Sequence[Shown]) -> bytes:
    """Draw schedules below one another as SVG."""
    return _render(shown, "svg")


def render_png(shown: Sequence[Shown]) -> bytes:
    """Draw schedules below one another as PNG."""
    return _render(shown, "png")


def render_pdf(shown: Sequence[Shown]) -> bytes:
    """Draw schedules below one another as PDF."""
    return _render(shown, "pdf")


def _render(shown: Sequence[Shown], suffix: str) -> bytes:
    from synth.export.figure.page import render

    return render(shown, suffix)
