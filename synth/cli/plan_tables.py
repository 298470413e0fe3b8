"""What ``plan`` answers, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from costmodels.plans.recipe import TICK_SECONDS
from costmodels.plans.shapes import Shape
from synth.cli.streams import Printer
from synth.planner.sweeping import Sweep
from synth.report import plain_table

GIB = 2**30
HEADINGS = (
    *("", "pp", "dp", "tp", "microbatch", "of them", "chunks", "placement", "recompute", "weights"),
    *("neighbours", "schedule", "step s", "sequences/s", "tokens/s", "GiB", "at least s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A configuration with its best schedule."""

    key: str
    shape: Shape
    num_microbatches: int
    schedule: str
    step_ticks: int
    least_ticks: int
    peak_bytes: int

    @property
    def step_s(self) -> float:
        """How long an update of the weights takes."""
        return self.step_ticks * TICK_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What the ranks of a plan have and hold.

    Parameters
    ----------
    stage_to_rank, layers, num_blocks
        For every stage its rank, its layers by name, and how many of them are blocks.
    peak_bytes
        For every rank.
    """

    stage_to_rank: tuple[int, ...]
    layers: tuple[tuple[str, ...], ...]
    num_blocks: tuple[int, ...]
    peak_bytes: tuple[int, ...]

    def lines(self, limit_bytes: int) -> list[str]:
        """The same in words."""
        by_stage = " ".join(map(str, self.num_blocks))
        by_rank = " ".join(f"{peak / GIB:.2f}" for peak in self.peak_bytes)
        return [
            f"the best plan's cut, blocks by stage: {by_stage}",
            f"its memory by rank, GiB: {by_rank}, of {limit_bytes / GIB:.2f}",
        ]

    def json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        stages = zip(self.stage_to_rank, self.layers, strict=True)
        return {
            "stages": [{"rank": rank, "layers": list(layers)} for rank, layers in stages],
            "peak_memory_bytes_by_rank": list(self.peak_bytes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a plan.

    Parameters
    ----------
    choices
        The shortest step first.
    cut
        Of the first, None where there is none.
    standing
        What was judged.
    num_synthesized, swept_s
        How many configurations the synthesizer looked at, and how long judging took.
    batch, sequence_length, limit_bytes, name
        What was asked.
    """

    choices: Sequence[Choice]
    cut: Cut | None
    standing: Sweep
    num_synthesized: int
    swept_s: float
    batch: int
    sequence_length: int
    limit_bytes: int
    name: str

    def counts(self) -> dict[str, int]:
        """How many configurations were settled how."""
        standing = self.standing
        looked_at = standing.verdicts.values()
        return {
            "configurations": len(standing.outlines),
            "too_large": sum(bool(outline.refusal) for outline in standing.outlines),
            "laid_out": len(looked_at),
            "schedules_tried": sum(len(verdict.rows) for verdict in looked_at),
            "synthesized": self.num_synthesized,
        }


def show_answer(answer: Answer, keep: int, printer: Printer) -> None:
    """Print the best plan and the runners-up."""
    rows = [_cells(number, choice, answer) for number, choice in enumerate(answer.choices[:keep], start=1)]
    title = f"{answer.name}: {answer.batch} sequences of {answer.sequence_length} tokens per update"
    if rows:
        printer.table(plain_table(title, HEADINGS, rows))
    for line in _lines(answer):
        printer.line(line)


def _cells(number: int, choice: Choice, answer: Answer) -> list[str]:
    shape = choice.shape
    rate = answer.batch / choice.step_s
    return [
        str(number),
        *map(str, (shape.pp, shape.dp, shape.tp, shape.microbatch, choice.num_microbatches, shape.chunks)),
        *map(str, (shape.placement, shape.recompute, shape.weights, shape.seats, choice.schedule)),
        f"{choice.step_s:.4g}",
        f"{rate:.4g}",
        f"{rate * answer.sequence_length:.0f}",
        f"{choice.peak_bytes / GIB:.2f}",
        f"{choice.least_ticks * TICK_SECONDS:.4g}",
    ]


def _lines(answer: Answer) -> list[str]:
    counts = answer.counts()
    others = counts["configurations"] - counts["too_large"] - counts["laid_out"]
    left_out = "cannot be among the best by bounds" if answer.standing.swept else "are still open"
    lines = [
        f"{counts['configurations']} configurations judged in {answer.swept_s:.1f} s: {counts['too_large']} "
        f"cannot be trained so or cannot fit, {others} {left_out}; {counts['laid_out']} laid out, "
        f"{counts['schedules_tried']} schedules tried, {counts['synthesized']} synthesized"
    ]
    policies = sorted({choice.shape.weights for choice in answer.choices})
    if len(policies) > 1:
        best = {p: next(c for c in answer.choices if c.shape.weights is p) for p in policies}
        words = ", ".join(f"{p} {c.step_s:.4g} s ({c.schedule})" for p, c in best.items())
        lines.append(f"best by when weights change: {words}; 2bw delays every update by one batch")
    return lines + ([] if answer.cut is None else answer.cut.lines(answer.limit_bytes))


def answer_json(answer: Answer, keep: int) -> dict[str, Any]:
    """The same as a JSON object."""
    return {
        "name": answer.name,
        "batch": answer.batch,
        "sequence_length": answer.sequence_length,
        "memory_limit_bytes": answer.limit_bytes,
        "interrupted": answer.standing.interrupted,
        "judged": answer.counts() | {"seconds": round(answer.swept_s, 3)},
        "best": None if answer.cut is None else answer.cut.json(),
        "plans": [_choice_json(choice, answer) for choice in answer.choices[:keep]],
    }


def _choice_json(choice: Choice, answer: Answer) -> dict[str, Any]:
    shape = choice.shape
    return {
        "pp": shape.pp,
        "dp": shape.dp,
        "tp": shape.tp,
        "microbatch": shape.microbatch,
        "num_microbatches": choice.num_microbatches,
        "chunks": shape.chunks,
        "placement": shape.placement,
        "recompute": shape.recompute,
        "weights": shape.weights,
        "neighbours": shape.seats,
        "schedule": choice.schedule,
        "step_seconds": choice.step_s,
        "at_least_seconds": choice.least_ticks * TICK_SECONDS,
        "sequences_per_second": answer.batch / choice.step_s,
        "tokens_per_second": answer.batch * answer.sequence_length / choice.step_s,
        "peak_memory_bytes": choice.peak_bytes,
    }
