"""The pictures of the study, from the rows."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
from config import MEMORIES, SEARCHED, SPEEDS, STEP

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = {
    "gpipe": "#8c8c8c",
    "1f1b": "#1f1f1f",
    "chimera": "#d1495b",
    "chimera-asymmetric": "#edae49",
    "hanayo": "#00798c",
    "hanayo, 2 waves": "#30bced",
}
OTHERS = {
    "interleaved-1f1b": "#6a4c93",
    "zb-h1": "#2e7d32",
    "zb-h2": "#8bc34a",
    "v-half": "#b5651d",
    "v-zb": "#e07a1f",
}
NAMES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "chimera": "Chimera",
    "chimera-asymmetric": "Chimera, asymmetric",
    "hanayo": "Hanayo, 1 wave",
    "hanayo, 2 waves": "Hanayo, 2 waves",
    "interleaved-1f1b": "interleaved 1F1B",
    "zb-h1": "ZB-H1",
    "zb-h2": "ZB-H2",
    "v-half": "V-Half",
    "v-zb": "ZB-V",
    "v-min": "V-Min",
    "seq1f1b": "Seq1F1B",
    "dualpipe": "DualPipe",
    "2bp-gpipe": "2BP GPipe",
    "2bp-1f1b": "2BP 1F1B",
    "2bp-interleaved-1f1b": "2BP interl.",
    "group-interleaved-1f1b": "group-interl.",
    "interleaved-zero-bubble": "interl. ZB",
    "dualpipe-v": "DualPipeV",
    "1f1b-v": "1F1B-V",
    "looped-bfs": "looped BFS",
}
DPI = 130


def draw_all(levels: pd.DataFrame, gains: pd.DataFrame, folder: Path) -> None:
    """All pictures as PNG."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    grid = levels[levels.step == STEP]
    _machines(grid, folder / "machines.png")
    _batches(grid, gains, folder / "batches.png")
    _ranking(grid, folder / "ranking.png")
    _gains(gains, folder / "gains.png")


def _shown(rows: pd.DataFrame, wanted: dict[str, str]) -> list[str]:
    present = set(rows.schedule)
    return [name for name in wanted if name in present]


def _machines(grid: pd.DataFrame, path: Path) -> None:
    """At eight ranks and eight microbatches, the paper's schedules on every machine, beside 1F1B."""
    part = grid[(grid.depth == 8) & (grid.batch == 8) & (grid.transfers == "overlapped")]
    names = [name for name in _shown(part, COLOURS) if name != "1f1b"]
    figure, all_axes = plt.subplots(3, 3, figsize=(9, 6.6), sharex=True, sharey=True)
    for axes_row, compute in zip(all_axes, SPEEDS, strict=True):
        for axes, network in zip(axes_row, SPEEDS, strict=True):
            here = part[(part.compute == compute) & (part.network == network)].set_index("schedule")
            saved = [100 * (here.seconds[name] / here.seconds["1f1b"] - 1) for name in names]
            bars = axes.barh([NAMES[name] for name in names], saved, color=[COLOURS[name] for name in names])
            axes.bar_label(bars, fmt="%+.1f", padding=2, fontsize=8)
            axes.axvline(0, color="#1f1f1f", linewidth=1)
            axes.set_title(f"{compute} compute, {network} network", fontsize=9)
            axes.margins(x=0.28)
    all_axes[0][0].invert_yaxis()
    figure.supxlabel("time of a step beside 1F1B's, % (p = 8, m = 8, transfers overlapped)", fontsize=9)
    _save(figure, path)


def _batches(grid: pd.DataFrame, gains: pd.DataFrame, path: Path) -> None:
    """Time beside 1F1B's over the microbatches; stars: synthesized within 1F1B's memory."""
    part = grid[(grid.depth == 8) & (grid.transfers == "overlapped")]
    wanted = COLOURS | OTHERS
    names = [name for name in _shown(part, wanted) if name != "1f1b"]
    figure, all_axes = plt.subplots(2, 3, figsize=(10, 5.8), sharex=True, sharey=True)
    for axes_row, compute in zip(all_axes, ("medium", "fast"), strict=True):
        for axes, network in zip(axes_row, SPEEDS, strict=True):
            here = part[(part.compute == compute) & (part.network == network)]
            flushed = here[here.schedule == "1f1b"].set_index("batch").seconds
            axes.axhline(0, color=COLOURS["1f1b"], linewidth=1.2)
            for name in names:
                own = here[here.schedule == name].set_index("batch").seconds
                saved = 100 * (own / flushed.reindex(own.index) - 1)
                style = ":" if name == "chimera-asymmetric" else "-" if name in COLOURS else "--"
                axes.plot(
                    saved.index, saved, style, marker="o", markersize=3, color=wanted[name], label=NAMES[name]
                )
            found = (
                gains[(gains.compute == compute) & (gains.network == network) & (gains.memory == "1F1B's")]
                .set_index("batch")
                .synthesized_seconds
            )
            saved = 100 * (found / flushed.reindex(found.index) - 1)
            axes.plot(saved.index, saved, "*", markersize=10, color="black", label="synthesized", zorder=5)
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted(part.batch.unique()), [str(m) for m in sorted(part.batch.unique())])
            axes.minorticks_off()
            axes.set_title(f"{compute} compute, {network} network", fontsize=9)
            axes.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.supylabel("time of a step beside 1F1B's, %", fontsize=9)
    for axes in all_axes[1]:
        axes.set_xlabel("microbatches (p = 8, transfers overlapped)", fontsize=9)
    _save(figure, path)


def _ranking(grid: pd.DataFrame, path: Path) -> None:
    """Places at the three levels, on an easy and on a hard machine."""
    machines = (("medium", "fast"), ("medium", "medium"), ("fast", "slow"))
    wanted = COLOURS | OTHERS
    figure, all_axes = plt.subplots(1, 3, figsize=(10.5, 4.4))
    for axes, (compute, network) in zip(all_axes, machines, strict=True):
        rows = grid[
            (grid.depth == 8)
            & (grid.batch == 32)
            & (grid.transfers == "overlapped")
            & (grid.compute == compute)
            & (grid.network == network)
        ]
        rows = rows[rows.schedule.isin(wanted)].dropna(subset=["formula_idle"])
        _bump(axes, rows, wanted)
        axes.set_title(f"{compute} compute, {network} network", fontsize=9)
    figure.supxlabel("place among those with a formula, p = 8, m = 32, transfers overlapped", fontsize=9)
    _save(figure, path)


def _bump(axes: Axes, rows: pd.DataFrame, wanted: dict[str, str]) -> None:
    places = [rows[column].rank(method="average") for column in ("formula_idle", "slots", "seconds")]
    for index, name in rows.schedule.items():
        heights = [place[index] for place in places]
        axes.plot([0, 1, 2], heights, marker="o", markersize=4, color=wanted[name], linewidth=1.6)
        axes.text(2.07, heights[-1], NAMES[name], va="center", fontsize=8, color=wanted[name])
    axes.set_xticks([0, 1, 2], ["formula", "slot table", "simulation"])
    axes.set_yticks(range(1, len(rows) + 1))
    axes.set_xlim(-0.15, 3.35)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _gains(gains: pd.DataFrame, path: Path) -> None:
    """Time saved over the best published schedule, for every machine, memory and batch."""
    darkest = 100 * gains.gain.max()
    figure, all_axes = plt.subplots(len(SEARCHED), len(MEMORIES), figsize=(12.5, 6.6))
    for axes_row, (depth, batch) in zip(all_axes, SEARCHED, strict=True):
        for axes, memory in zip(axes_row, MEMORIES, strict=True):
            part = gains[(gains.depth == depth) & (gains.batch == batch) & (gains.memory == memory)]
            cells = part.set_index(["compute", "network"])
            values = [[100 * cells.gain[c, n] for n in SPEEDS] for c in SPEEDS]
            axes.imshow(values, cmap="Greens", vmin=0, vmax=darkest)
            for y, compute in enumerate(SPEEDS):
                for x, network in enumerate(SPEEDS):
                    cell = cells.loc[(compute, network)]
                    most = "optimal" if cell.gap == 0 else f"at most {100 * cell.most_possible_gain:.1f} %"
                    text = f"{100 * cell.gain:.1f} %\n{most}\n{NAMES.get(cell.published, cell.published)}"
                    dark = 100 * cell.gain > 0.6 * darkest
                    axes.text(
                        x, y, text, ha="center", va="center", fontsize=6.8, color="white" if dark else "black"
                    )
            axes.set_xticks(range(3), list(SPEEDS))
            axes.set_yticks(range(3), list(SPEEDS), rotation=90, va="center")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(f"p = {depth}, m = {batch}, at {memory} memory", fontsize=9)
    figure.supxlabel(
        "network; in a cell: time saved, the most that can be, and the best published schedule", fontsize=9
    )
    figure.supylabel("compute", fontsize=9)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
