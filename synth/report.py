"""Tables for people: what a schedule achieves, beside others and beside its limits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from synth.bounds import Bound
from synth.certificate import Certificate
from synth.comparison import Comparison, Times
from synth.explain.idle import RankIdle, Wait
from synth.explain.what_if import Answer
from synth.grid import render_grid
from synth.levels import FormulaLevel, Levels, Standing
from synth.problem import Objective, Problem
from synth.schedule import Metrics, Schedule, fits
from synth.simulate import ChannelUse
from synth.stage_names import how_stages_read, shape_words

GRID_SLOTS = 18
"""How many slots of a schedule are shown."""

LARGEST_GRID = 8
"""Schedules of more ranks are not drawn."""

MOST_CHANNELS = 12
"""Rows of a table of channels."""

NARROWEST_SENTENCE = 24
"""Columns that a sentence in a table has at least."""


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule in a comparison; without metrics, the reason why there is none.

    ``note`` says what else is to know of it: that it is of another problem than the others, say.
    """

    name: str
    metrics: Metrics | None
    certificate: Certificate | None = None
    reason: str = ""
    note: str = ""


def comparison_table(problem: Problem, rows: Sequence[Row]) -> Table:
    """One row for each schedule: objective, bubble, peak memory, fits or not, bound and gap."""
    table = empty_table(_title(problem))
    table.add_column("schedule", no_wrap=True)
    for heading in ("ticks", "seconds", "bubble", "peak bytes", "fits", "bound", "gap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, *_cells(problem, row))
    return with_whole_numbers(table)


def print_table(console: Console, table: Table) -> None:
    """Print a table, wider than the console rather than with a number cut off or a column left out."""
    endless = console.options.update(width=sys.maxsize)
    least = Measurement.get(console, endless, table).minimum
    if least > console.width:
        table.width = least
    console.print(table, crop=False)


def remarks(rows: Sequence[Row]) -> list[str]:
    """Why some rows have no schedule, and what else is to know of others, one line each."""
    said = [(row.name, row.reason if row.metrics is None else row.note) for row in rows]
    return [f"{name}: {remark}" for name, remark in said if remark]


def memory_table(problem: Problem, rows: Sequence[Row]) -> Table:
    """Peak memory per rank against the limit, a column for each schedule."""
    table = empty_table("Peak memory in bytes")
    shown = [row for row in rows if row.metrics is not None]
    for heading in ("rank", "limit", *(row.name for row in shown)):
        table.add_column(heading, justify="right", no_wrap=True)
    limits = problem.memory_limit_bytes
    for rank in range(problem.num_ranks):
        peaks = [str(row.metrics.peak_memory_bytes[rank]) for row in shown if row.metrics]
        table.add_row(str(rank), "none" if limits is None else str(limits[rank]), *peaks)
    return with_whole_numbers(table)


def bound_table(problem: Problem, bounds: Sequence[Bound]) -> Table:
    """The lower bounds with their arguments, the strongest first."""
    table = empty_table(_title(problem))
    table.add_column("bound", no_wrap=True)
    table.add_column(f"{problem.objective} ticks", justify="right", no_wrap=True)
    table.add_column("bubble at least", justify="right", no_wrap=True)
    table.add_column("because", min_width=NARROWEST_SENTENCE)
    for bound in bounds:
        bubble = max(0.0, 1 - problem.work_ticks / bound.ticks)
        table.add_row(bound.name, str(bound.ticks), f"{bubble:.4f}", Text(bound.argument))
    return with_whole_numbers(table)


def idle_table(ranks: Sequence[RankIdle]) -> Table:
    """What every rank waits for, in ticks; causes that no rank has are left out."""
    table = empty_table("What the ranks wait for, in ticks")
    shown = [wait for wait in Wait if any(rank.waits_ticks[wait] for rank in ranks)]
    for heading in ("rank", "work", *shown, "idle", "of its time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, rank in enumerate(ranks):
        waits = [str(rank.waits_ticks[wait]) for wait in shown]
        share = rank.idle_ticks / (rank.work_ticks + rank.idle_ticks)
        table.add_row(str(number), str(rank.work_ticks), *waits, str(rank.idle_ticks), f"{share:.2%}")
    return with_whole_numbers(table)


def answers_table(answers: Sequence[Answer]) -> Table:
    """What changes would do to the value; a bound where a search proved one."""
    table = empty_table("What would shorten it")
    table.add_column("change", min_width=NARROWEST_SENTENCE)
    for heading in ("ticks", "instead of", "gain", "bound"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("how", no_wrap=True)
    for answer in answers:
        value, before = map(_part_ticks, (answer.value, answer.before))
        bound = "" if answer.lower_bound is None else str(answer.lower_bound)
        table.add_row(answer.change, value, before, f"{answer.gain:.2%}", bound, answer.how)
    return with_whole_numbers(table)


def _part_ticks(ticks: Fraction) -> str:
    """Whole ticks as they are, others to a tenth."""
    whole, tenths = divmod(round(10 * ticks), 10)
    return str(whole) if ticks.denominator == 1 else f"{whole}.{tenths}"


def channel_table(uses: Sequence[ChannelUse]) -> Table:
    """How busy the channels of a network were, as many as :data:`MOST_CHANNELS`."""
    rows = [
        (use.channel, str(use.transfers), f"{use.busy_share:.1%}", str(use.waited_ticks))
        for use in uses[:MOST_CHANNELS]
    ]
    title = f"{len(rows)} of {len(uses)} links, most contended first"
    return plain_table(title, ("link", "transfers", "busy", "waited"), rows)


def levels_table(
    problem: Problem, rows: Sequence[Levels], standings: Sequence[Standing], *, plain: bool
) -> Table:
    """Schedules at three levels, the best of the last first; behind a rank, how far it rose or fell.

    Parameters
    ----------
    problem
        What they are schedules of.
    rows, standings
        One each for every schedule.
    plain
        Whether to mark with ASCII.
    """
    table = empty_table(f"{_title(problem)}: formulas (1), slot table (2), simulation (3)")
    table.add_column("schedule", no_wrap=True)
    first, second = ("1 idle", "1 peak", "copies", "1 rank"), ("2 slots", "2 idle", "2 peak", "2 rank")
    third = ("3 seconds", "3 idle", "3 peak bytes", "fits", "3 rank")
    for heading in (*first, *second, *third):
        table.add_column(heading, justify="right", no_wrap=True)
    by_time = sorted(zip(rows, standings, strict=True), key=lambda pair: pair[0].simulation.seconds)
    for row, standing in by_time:
        table.add_row(row.name, *_level_cells(row, standing, plain))
    return with_whole_numbers(table)


def _level_cells(row: Levels, standing: Standing, plain: bool) -> list[str]:
    slots, simulation = row.slots, row.simulation
    return [
        *_formula_cells(row.formula),
        "-" if standing.places[0] is None else str(standing.places[0]),
        f"{float(slots.slots):g}",
        f"{slots.idle_share:.1%}",
        _short(slots.peak_activations),
        _change(standing.rises[0], plain) + str(standing.places[1]),
        f"{float(simulation.seconds):.4g}",
        f"{simulation.idle_share:.1%}",
        str(round(simulation.peak_bytes)),
        "yes" if simulation.fits else "no",
        _change(standing.rises[1], plain) + str(standing.places[2]),
    ]


def _formula_cells(formula: FormulaLevel | None) -> list[str]:
    if formula is None:
        return ["-", "-", "-"]
    idle, peak = formula.idle_share, formula.peak_activations
    return [
        "-" if idle is None else f"{float(idle):.1%}",
        "-" if peak is None else _short(peak),
        "-" if formula.weight_copies is None else str(formula.weight_copies),
    ]


def _short(number: Fraction) -> str:
    return f"{float(number):.2f}".rstrip("0").rstrip(".")


def _change(rises: int | None, plain: bool) -> str:
    """By how many places a schedule rose or fell, nothing where it kept its place."""
    if not rises:
        return ""
    up, down = ("+", "-") if plain else ("▲", "▼")
    return f"{up if rises > 0 else down}{abs(rises)} "


def plain_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of short cells, none of them cut off."""
    table = empty_table(title)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return with_whole_numbers(table)


def timeline_tables(comparison: Comparison) -> list[Table]:
    """Plan and reality: in total and by rank, then by stage and kind of op; peak memory where measured."""
    spans = _times_table("Plan and reality, seconds", "of")
    spans.add_row("makespan", *_times_cells(comparison.makespan))
    spans.add_row("rank_span", *_times_cells(comparison.rank_span))
    for row in comparison.ranks:
        spans.add_row(f"rank {row.rank}, span", *_times_cells(row.span))
        spans.add_row(f"rank {row.rank}, busy", *_times_cells(row.busy))
    ops = _times_table("Seconds of an op with the time before it, mean over microbatches", "op")
    for op in comparison.ops:
        ops.add_row(f"{op.stage}{op.kind}", *_times_cells(op.times))
    peaks = _times_table("Peak memory, bytes", "of")
    for row in comparison.ranks:
        if row.measured_peak_bytes is not None:
            peaks.add_row(f"rank {row.rank}", *_peak_cells(row.planned_peak_bytes, row.measured_peak_bytes))
    return [with_whole_numbers(table) for table in (spans, ops, peaks) if table.row_count]


def _times_table(title: str, heading: str) -> Table:
    table = empty_table(title)
    table.add_column(heading, no_wrap=True)
    for column in ("planned", "measured", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _times_cells(times: Times) -> list[str]:
    return [f"{times.planned_s:.4g}", f"{times.measured_s:.4g}", f"{times.error:+z.1%}"]


def _peak_cells(planned: int, measured: int) -> list[str]:
    return [str(planned), str(measured), f"{planned / measured - 1:+z.1%}" if measured else "-"]


def first_steps(schedule: Schedule, columns: int) -> str | None:
    """The first steps of a schedule as a grid, for few ranks; a slot is the shortest op.

    Slots that do not fit into so many columns are left out.
    """
    if schedule.problem.num_ranks > LARGEST_GRID:
        return None
    slot = min(timed.end - timed.start for rank in schedule.ranks for timed in rank)
    grid = render_grid(schedule, slot_ticks=slot, last_slot=GRID_SLOTS, columns=columns)
    reading = how_stages_read(schedule.problem)
    return f"{grid}\n{reading}" if reading else grid


def empty_table(title: str) -> Table:
    """A table without columns so far."""
    # A name may hold what rich takes for markup.
    return Table(
        box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", padding=(0, 1, 0, 0), pad_edge=False
    )


def with_whole_numbers(table: Table) -> Table:
    """Hold every column that does not wrap at its full width, where rich would cut numbers off."""
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(len(str(cell)) for cell in (column.header, *column.cells))
    return table


def _title(problem: Problem) -> str:
    name = problem.name or "problem"
    return (
        f"{name}: {problem.num_ranks} ranks, {shape_words(problem)} ({problem.placement.kind}), "
        f"{problem.num_microbatches} microbatches, {problem.objective}"
    )


def _cells(problem: Problem, row: Row) -> list[str]:
    metrics = row.metrics
    if metrics is None:
        return ["undefined", "", "", "", "", "", ""]
    value = metrics.value(problem.objective)
    certificate = row.certificate
    return [
        str(value),
        f"{value * problem.tick_seconds:.4g}",
        f"{metrics.bubble_ratio:.4f}",
        str(max(metrics.peak_memory_bytes)),
        "yes" if fits(problem, metrics.peak_memory_bytes) else "no",
        "" if certificate is None else str(certificate.lower_bound),
        "" if certificate is None else f"{certificate.gap:.2%}",
    ]


def other_objective(metrics: Metrics, objective: Objective) -> str:
    """The objective that was not asked for, in words."""
    other = Objective.RANK_SPAN if objective is Objective.MAKESPAN else Objective.MAKESPAN
    return f"{other} {metrics.value(other)} ticks, bubble {1 - metrics.work / metrics.value(other):.4f}"
