"""The figures of the summary, from the rows."""

from __future__ import annotations

import pandas as pd
from config import CELLS, PAPER, SPEEDS, STEP, TWO_WAVES

AT = ["step", "transfers", "depth", "batch", "compute", "network"]


def findings_table(levels: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """One line per figure: which finding, what is measured, and the value."""
    grid = levels[levels.step == STEP]
    rows = [
        *_gpipe_and_1f1b(grid),
        *_against(grid, "chimera", "1f1b", "Chimera"),
        *_hanayo(levels),
        *_asymmetric(grid),
        *_ranking(grid),
        *_gains(gains),
    ]
    return pd.DataFrame(rows, columns=["finding", "measure", "value"])


WAYS = ("overlapped", "blocking", "summed")
"""Transfers under compute; instead of compute; and with the gradients of replicas summed in the end."""

Line = tuple[str, str, str]


def _beside(rows: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Two schedules side by side, and by how much longer the first takes."""
    both = rows[rows.schedule == one].merge(rows[rows.schedule == other], on=AT, suffixes=("", "_other"))
    return both.assign(longer=both.seconds / both.seconds_other - 1)


def _range(values: pd.Series) -> str:
    values = values.dropna()
    return "no rows" if values.empty else f"{values.min():+.1%} to {values.max():+.1%}"


def _gpipe_and_1f1b(grid: pd.DataFrame) -> list[Line]:
    both = _beside(grid, "1f1b", "gpipe")
    lines = []
    for way in WAYS:
        for network in SPEEDS:
            part = both[(both.transfers == way) & (both.network == network)]
            what = f"time of 1F1B over GPipe, {network} network, {way}"
            lines.append(("GPipe and 1F1B equal", what, _range(part.longer)))
    peak = (both.peak_gib / both.peak_gib_other)[both.batch > both.depth]
    lines.append(
        ("GPipe and 1F1B equal", "slots", "equal" if (both.slots == both.slots_other).all() else "differ")
    )
    lines.append(
        ("1F1B lower in memory", "peak of 1F1B over GPipe, m > p", f"{peak.min():.2f} to {peak.max():.2f}")
    )
    return lines


def _against(grid: pd.DataFrame, one: str, other: str, title: str) -> list[Line]:
    """At eight ranks, over the machines of each network."""
    both = _beside(grid[grid.depth == 8], one, other)
    lines = []
    for way in WAYS:
        for network in SPEEDS:
            for batch in sorted(both.batch.unique()):
                part = both[(both.transfers == way) & (both.network == network) & (both.batch == batch)]
                what = f"time of {one} over {other}, p = 8, m = {batch}, {network} network, {way}"
                lines.append((title, what, _range(part.longer)))
    return lines


def _hanayo(levels: pd.DataFrame) -> list[Line]:
    point = levels[(levels.depth == 8) & (levels.batch == 8)]
    lines = []
    for step in sorted(point.step.unique()):
        for way in WAYS:
            part = point[(point.step == step) & (point.transfers == way)]
            for waves in ("hanayo", TWO_WAVES):
                for other in ("chimera", "1f1b"):
                    both = _beside(part, waves, other)
                    fast = both[both.network != "slow"].longer
                    worst = both[(both.network == "slow") & (both.compute == "fast")].longer
                    where = f"p = m = 8, slow is 1/{step:g}, {way}"
                    what = f"time of {waves} over {other}"
                    lines.append(("Hanayo", f"{what}, fast and medium network, {where}", _range(fast)))
                    lines.append(("Hanayo", f"{what}, slow network, fast compute, {where}", _range(worst)))
    return lines


def _asymmetric(grid: pd.DataFrame) -> list[Line]:
    both = _beside(grid, "chimera-asymmetric", "chimera")
    peak = both.peak_gib / both.peak_gib_other - 1
    lines = [("Asymmetric Chimera", "peak over Chimera's", _range(peak))]
    for depth in sorted(both.depth.unique()):
        part = both[(both.depth == depth) & (both.transfers == "overlapped")]
        lines.append(("Asymmetric Chimera", f"time over Chimera's, p = {depth}", _range(part.longer)))
    return lines


def _ranking(grid: pd.DataFrame) -> list[Line]:
    """How often the order of two schedules turns from one level to the next."""
    lines = []
    for title, part in (
        ("all", grid[grid.transfers == "overlapped"]),
        ("the paper's", grid[(grid.transfers == "overlapped") & grid.schedule.isin(PAPER)]),
    ):
        for before, after, levels in (("formula_idle", "slots", "1 to 2"), ("slots", "seconds", "2 to 3")):
            turned = pairs = machines = 0
            for _, rows in part.dropna(subset=[before]).groupby(AT):
                here = _turned(rows[before].to_numpy(), rows[after].to_numpy())
                turned, pairs, machines = turned + here[0], pairs + here[1], machines + (here[0] > 0)
            lines.append(
                (
                    "Ranking changes",
                    f"pairs of {title} schedules whose order turns, level {levels}",
                    f"{turned} of {pairs}",
                )
            )
            lines.append(
                (
                    "Ranking changes",
                    f"points where any does, {title}, level {levels}",
                    f"{machines} of {part.groupby(AT).ngroups}",
                )
            )
    return lines


def _turned(before, after) -> tuple[int, int]:
    """Pairs whose order is the opposite, of those that differ before."""
    turned = pairs = 0
    for a in range(len(before)):
        for b in range(a):
            if before[a] != before[b]:
                pairs += 1
                turned += (before[a] - before[b]) * (after[a] - after[b]) < 0
    return turned, pairs


def _gains(gains: pd.DataFrame) -> list[Line]:
    lines = []
    for (memory, depth, batch), part in gains.groupby(["memory", "depth", "batch"], sort=False):
        where = f"at {memory} memory, p = {depth}, m = {batch}"
        lines.append(("Synthesized", f"time saved over the best published, {where}", _range(part.gain)))
        lines.append(("Synthesized", f"most that can be saved, {where}", _range(part.most_possible_gain)))
        lines.append(("Synthesized", f"proved optimal, {where}", f"{(part.gap == 0).sum()} of {len(CELLS)}"))
        lines.append(
            ("Synthesized", f"time saved over the paper's best, {where}", _range(part.gain_over_paper))
        )
    return lines
