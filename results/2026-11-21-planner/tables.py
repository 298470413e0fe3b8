"""The README's tables, in Markdown, from the CSVs beside it.

python results/2026-11-21-planner/tables.py
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
NONE = "does not fit"
Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """A CSV, no rows where there is none."""
    path = HERE / name
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def table(title: str, headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A heading and a table."""
    lines = [headings, ["---"] * len(headings), *cells]
    return "\n".join([f"**{title}**", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def choices(plan: str) -> dict[str, str]:
    """What a plan's name says."""
    return dict(part.split("=") for part in plan.split())


def shape(plan: str) -> str:
    """Depth × width, microbatch and recomputation."""
    given = choices(plan)
    again = "" if given["recompute"] == "none" else f", {given['recompute']}"
    return f"{given['pp']}×{given['dp']}, b {given['microbatch']}{again}"


def by_kind() -> dict[tuple[str, str, str], dict[str, Row]]:
    """The plans of every setting of ``gpt.csv`` by kind."""
    found: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows("gpt.csv"):
        found.setdefault((row["size"], row["gpus"], row["batch"]), {})[row["kind"]] = row
    return found


def faster(kinds: dict[str, Row], kind: str, other: str) -> float | None:
    """How many times as fast one kind's plan is as another's, None where one does not fit."""
    steps = [kinds[name]["step_s"] for name in (kind, other)]
    return float(steps[1]) / float(steps[0]) if all(steps) else None


def times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"


def gpt_table() -> str:
    """2BW's plans, and how much faster they are than the other kinds'."""
    cells = []
    for (size, gpus, batch), kinds in by_kind().items():
        ours = kinds["2bw"]
        fits = bool(ours["step_s"])
        told = [shape(ours["plan"]), f"{float(ours['sequences_per_s']):.0f}"] if fits else [NONE, "-"]
        over = [
            times(faster(kinds, "2bw", other)) for other in ("flush", "gpipe", "tensor", "tensor in nodes")
        ]
        cells.append([f"{size}, {gpus}, {batch}", *told, *over])
    return table(
        "2BW's plans and their speed-ups",
        (
            "model, GPUs, batch",
            "2BW: depth × width, microbatch, recomputation",
            "sequences/s",
            "over Flush",
            "over GPipe",
            "over tensor parallelism of up to 32",
            "over tensor parallelism of 8, replicas over nodes",
        ),
        cells,
    )


def published_table() -> str:
    """The paper's measured speed-ups beside those predicted here, from smallest to largest."""
    found = by_kind()

    def span(other: str, kind: str = "2bw", **given: str) -> str:
        ratios = [
            ratio
            for (size, gpus, batch), kinds in found.items()
            if given.items() <= {"size": size, "gpus": gpus, "batch": batch}.items()
            and (ratio := faster(kinds, kind, other)) is not None
        ]
        ends = dict.fromkeys(f"{ratio:.2f}" for ratio in (min(ratios), max(ratios))) if ratios else [NONE]
        return " to ".join(ends)

    fitting = sum(bool(kinds["gpipe"]["step_s"]) for kinds in found.values())
    cells = [
        (
            "1.3x over tensor parallelism on one node",
            f"2.2B {span('tensor', gpus='8', size='2.2B')} (Flush "
            f"{span('tensor', 'flush', gpus='8', size='2.2B')}), "
            f"3.8B {span('tensor', gpus='8', size='3.8B')} (Flush "
            f"{span('tensor', 'flush', gpus='8', size='3.8B')})",
        ),
        (
            "20x over it on 64 GPUs, 3.8B",
            f"{span('tensor', gpus='64', size='3.8B')} over 32 GPUs, "
            f"{span('tensor in nodes', gpus='64', size='3.8B')} in nodes of 8",
        ),
        (
            "up to 3.2x over GPipe, which runs out of memory at batch 64",
            f"{span('gpipe')} where GPipe fits: in {fitting} of {len(found)} settings",
        ),
        (
            "1.6x over PipeDream-Flush at a small batch",
            f"64 GPUs, batch 64: 2.2B {span('flush', gpus='64', batch='64', size='2.2B')}, "
            f"3.8B {span('flush', gpus='64', batch='64', size='3.8B')}",
        ),
        (
            "15 % over it at batch 2048",
            f"64 GPUs: 2.2B {span('flush', gpus='64', batch='2048', size='2.2B')}, "
            f"3.8B {span('flush', gpus='64', batch='2048', size='3.8B')}",
        ),
    ]
    return table("Published and predicted speed-ups of 2BW", ("arXiv 2006.09503", "here"), cells)


def added_table() -> str:
    """What synthesis saves at the memory of the best flushed plan's 1F1B."""
    cells = [
        (
            f"{row['size']}, {row['gpus']}, {row['batch']}",
            shape(row["plan"]),
            row["limit_gib"],
            f"{float(row['1f1b_s']):.3f}",
            f"{float(row['synthesized_s']):.3f}",
            f"{float(row['saved']):.1%}",
            f"{1 - float(row['at_least_s']) / float(row['1f1b_s']):.1%}",
        )
        for row in rows("added.csv")
    ]
    headings = ("model, GPUs, batch", "Flush's plan", "GiB", "1F1B s", "synthesized s", "saved", "at most")
    return table("Synthesized at the same memory", headings, cells)


def pipedream_table() -> str:
    """PipeDream's own plans."""
    cells = [
        (
            f"{row['size']}, {row['gpus']}",
            row["recompute"],
            str(len(row["stages"].split())),
            f"{float(row['sequences_per_s']):.0f}",
            row["versions"],
            f"{float(row['peak_gib']):.1f}",
            "yes" if row["fits"] == "True" else "no",
        )
        for row in rows("pipedream.csv")
    ]
    headings = ("model, GPUs", "recomputation", "stages", "sequences/s", "versions", "GiB", "fits")
    return table("PipeDream's planner", headings, cells)


FAMILIES = ("zb-h1", "interleaved", "v", "synthesized")


def hybrid_table() -> str:
    """Steps of the best plan of each family, and its throughput over that of the best 1F1B plan."""
    settings: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows("hybrid.csv") + rows("bound.csv") + rows("shared.csv"):
        settings.setdefault((row["model"], row["sequence"], row["batch"]), {})[row["family"]] = row

    def cell(families: dict[str, Row], family: str) -> str:
        row = families.get(family)
        if row is None or not row["step_s"]:
            return NONE
        step_s = float(row["step_s"])
        more = float(families["1f1b"]["step_s"]) / step_s - 1 if families["1f1b"]["step_s"] else None
        named = f" ({row['schedule']})" if family in ("interleaved", "v") else ""
        return f"{step_s:.2f}" + ("" if more is None else f", +{more:.1%}") + named

    cells = []
    for (model, sequence, batch), families in settings.items():
        one, least = families["1f1b"]["step_s"], families.get("synthesized", {}).get("at_least_s", "")
        cells.append(
            [
                f"{model}, {sequence} tokens, batch {batch}",
                f"{float(one):.2f}" if one else NONE,
                *(cell(families, family) for family in FAMILIES),
                f"{float(least):.2f}" if least else "-",
            ]
        )
    headings = ("setting", "1F1B", "ZB-H1", "interleaved", "V", "synthesized", "at least")
    return table("Hybrid search: seconds of a step, throughput over 1F1B", headings, cells)


def speed_table() -> str:
    """How long judging takes."""
    names = ("setting", "configurations", "too_large", "laid_out", "schedules", "bounds_cpu_s", "cpu_s")
    cells = [[row[name] for name in names] for row in rows("speed.csv")]
    headings = ("setting", "configurations", "too large", "laid out", "schedules", "bounds, s", "all, s")
    return table("CPU seconds of a sweep in one process", headings, cells)


def main() -> None:
    """Print all of them."""
    parts = (gpt_table, published_table, added_table, pipedream_table, hybrid_table, speed_table)
    print("\n".join(part() for part in parts))


if __name__ == "__main__":
    main()
