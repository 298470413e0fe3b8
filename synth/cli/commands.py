"""The commands: each reads, calls one public function, and prints; each returns its exit code."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from synth.baselines import BASELINES, baseline_orders
from synth.bounds import best_bound, lower_bounds
from synth.certificate import Certificate, Provenance
from synth.chunks import merge_into_ranks
from synth.cli.loading import load_problem, load_problems
from synth.cli.streams import Printer, check_output, complain, print_json
from synth.cpsat import SolveParams
from synth.document import ScheduleDocument, read_schedule, write_schedule
from synth.errors import BaselineUndefinedError, InputError
from synth.files import read_text, write_whole
from synth.free_maps import open_placements
from synth.instances import instance_names, load_instance
from synth.memory import feasible_placements
from synth.problem import Problem
from synth.report import (
    Row,
    bound_table,
    comparison_table,
    first_steps,
    memory_table,
    other_objective,
    reasons,
)
from synth.schedule import Metrics, Schedule, fits, measure
from synth.search.robust import Robustness
from synth.search.synthesizer import Progress, Result, synthesize
from synth.simulate import replay, replay_with_jitter
from synth.timing import schedule_orders
from synth.verify import verify_schedule

DONE, NO_SCHEDULE, WRONG_INPUT = 0, 1, 2
"""Exit codes of the commands (FORMATS.md)."""


def run_synthesize(options: argparse.Namespace) -> int:
    """Find the best schedule for a problem and prove how far from optimal it can be."""
    _check_output(options)
    problems = load_problems(options)
    result = _search(problems, options, options.robust)
    document = ScheduleDocument.of(result.schedule, result.certificate, result.provenance)
    if options.output is not None:
        write_whole(options.output, write_schedule(document))
    rows = [Row("synthesized", result.metrics, result.certificate), one_f_one_b_row(problems[0])]
    if options.json:
        print_json(_result_json(result, rows, options.output))
        return DONE
    _show(result.schedule.problem, rows, result.schedule, options)
    printer = Printer(options.output)
    printer.line(f"{result.status}, found by {result.provenance.method}")
    printer.line(f"bound: {result.certificate.bound_from}")
    for line in _robustness_lines(result.robustness):
        printer.line(line)
    printer.line(f"also: {other_objective(result.metrics, result.certificate.objective)}")
    if options.output is not None and options.output != "-":
        printer.line(f"written: {options.output}")
    return DONE


def _check_output(options: argparse.Namespace) -> None:
    if options.json and options.output == "-":
        raise InputError("--json and -o - both write to standard output: give -o a file")
    check_output(options.output)


def _show(problem: Problem, rows: Sequence[Row], drawn: Schedule, options: argparse.Namespace) -> None:
    """Draw a schedule where it is small enough, and set it beside others."""
    printer = Printer(options.output)
    grid = first_steps(drawn, printer.columns)
    if grid:
        printer.line(grid)
    printer.table(comparison_table(problem, rows))
    printer.table(memory_table(problem, rows))


def _search(problems: Sequence[Problem], options: argparse.Namespace, robust: float | None = None) -> Result:
    return synthesize(
        problems[0],
        alternatives=problems[1:],
        robust=robust,
        time_limit=options.time_limit,
        workers=options.workers,
        seed=options.seed,
        on_progress=_print_progress,
        solver=options.solver,
    )


def _print_progress(progress: Progress) -> None:
    value = "-" if progress.value is None else str(progress.value)
    gap = "-" if progress.gap is None else f"{progress.gap:.2%}"
    line = (
        f"{progress.elapsed_s:6.1f} s  best {value}  bound {progress.lower_bound}  gap {gap}  {progress.step}"
    )
    print(line, file=sys.stderr, flush=True)


def one_f_one_b_row(problem: Problem) -> Row:
    """1F1B of the same total model, one chunk per rank, for comparison."""
    merged = merge_into_ranks(problem)
    metrics = measure(schedule_orders(merged, baseline_orders("1f1b", merged)))
    bound = best_bound(merged)
    value = metrics.value(problem.objective)
    certificate = Certificate(
        objective=problem.objective, value=value, lower_bound=bound.ticks, bound_from=bound.argument
    )
    return Row("1f1b", metrics, certificate)


def _robustness_lines(robustness: Robustness | None) -> list[str]:
    """What noise does to the schedule with the best value and to the one chosen, where that was asked."""
    if robustness is None:
        return []
    lines = [
        f"robust: chosen under {robustness.sigma:.1%} noise among {robustness.compared} schedules within "
        f"1% of the best value, {robustness.samples} samples each"
    ]
    for name, schedule in (("best value", robustness.best), ("chosen", robustness.chosen)):
        noisy = ", ".join(f"{ticks} under {sigma:.1%}" for sigma, ticks in schedule.p95.items())
        lines.append(f"  {name}: {schedule.value} ticks, 95th percentile {noisy}; {schedule.method}")
    return lines


def _result_json(result: Result, rows: Sequence[Row], output: str | None) -> dict[str, Any]:
    problem = result.schedule.problem
    limits = problem.memory_limit_bytes
    return {
        "name": problem.name,
        "objective": problem.objective.value,
        "value": result.value,
        "bubble_ratio": result.metrics.bubble_ratio,
        "lower_bound": result.lower_bound,
        "gap": result.gap,
        "status": result.status.value,
        "bound_from": result.certificate.bound_from,
        "peak_memory_bytes": list(result.metrics.peak_memory_bytes),
        "memory_limit_bytes": None if limits is None else list(limits),
        "metrics": asdict(result.metrics),
        "provenance": asdict(result.provenance),
        "robustness": asdict(result.robustness) if result.robustness else None,
        "baseline_1f1b": asdict(rows[1].metrics) if rows[1].metrics else None,
        "output": output,
    }


def run_instances(options: argparse.Namespace) -> int:
    """List the published instances that ship, with their sources."""
    problems = [load_instance(name) for name in instance_names()]
    if options.json:
        print_json([{**_summary(problem), "source": problem.source} for problem in problems])
        return DONE
    for problem in problems:
        summary = _summary(problem)
        print("{name:<18} p={num_ranks:<3} m={num_microbatches:<4} ".format(**summary), problem.source)
    return DONE


def _summary(problem: Problem) -> dict[str, Any]:
    counts = {"num_ranks": problem.num_ranks, "num_microbatches": problem.num_microbatches}
    return {"name": problem.name, **counts}


def run_baseline(options: argparse.Namespace) -> int:
    """Put a published schedule on a problem's costs."""
    _check_output(options)
    problem = load_problem(options)
    begun = time.monotonic()
    schedule = _placed_baseline(problem, options.name)
    problem, metrics = schedule.problem, measure(schedule)
    bound = best_bound(problem)
    value = metrics.value(problem.objective)
    certificate = Certificate(
        objective=problem.objective,
        value=value,
        lower_bound=min(value, bound.ticks),
        bound_from=f"{bound.name}: {bound.argument}",
    )
    provenance = Provenance(
        method=options.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("pipesynth"),
        wall_seconds=round(time.monotonic() - begun, 3),
    )
    if options.output is not None:
        write_whole(options.output, write_schedule(ScheduleDocument.of(schedule, certificate, provenance)))
    row = Row(options.name, metrics, certificate)
    if options.json:
        print_json([_row_json(problem, row)])
    else:
        _show(problem, [row], schedule, options)
    return DONE if fits(problem, metrics.peak_memory_bytes) else _over_limit(problem, options.name, metrics)


def _placed_baseline(problem: Problem, name: str) -> Schedule:
    """A baseline under the first placement that the problem leaves open and it is defined for."""
    for placed in problem.placements[:-1]:
        with suppress(BaselineUndefinedError):
            return schedule_orders(placed, baseline_orders(name, placed))
    placed = problem.placements[-1]
    return schedule_orders(placed, baseline_orders(name, placed))


def _over_limit(problem: Problem, name: str, metrics: Metrics) -> int:
    """Say which rank of a baseline holds more than its limit."""
    for rank, (peak, limit) in enumerate(
        zip(metrics.peak_memory_bytes, problem.memory_limit_bytes or (), strict=True)
    ):
        if peak > limit:
            complain(f"{name} holds {peak} bytes on rank {rank}, limit {limit}")
    return NO_SCHEDULE


def _row_json(problem: Problem, row: Row) -> dict[str, Any]:
    if row.metrics is None:
        return {"name": row.name, "defined": False, "reason": row.reason}
    answer = {
        "name": row.name,
        "defined": True,
        "fits": fits(problem, row.metrics.peak_memory_bytes),
        "value": row.metrics.value(problem.objective),
        **asdict(row.metrics),
    }
    if row.certificate:
        answer |= {
            "lower_bound": row.certificate.lower_bound,
            "gap": row.certificate.gap,
            "status": row.certificate.status.value,
        }
    return answer


def run_compare(options: argparse.Namespace) -> int:
    """Set every baseline that applies beside the synthesized schedule."""
    result = _search(load_problems(options), options)
    problem = result.schedule.problem  # its placement is resolved, so all rows are of one problem
    rows = [_baseline_row(problem, name) for name in BASELINES]
    rows.append(Row("synthesized", result.metrics, result.certificate))
    if options.json:
        print_json([_row_json(problem, row) for row in rows])
        return DONE
    printer = Printer()
    printer.table(comparison_table(problem, rows))
    for reason in reasons(rows):
        printer.line(reason)
    return DONE


def _baseline_row(problem: Problem, name: str) -> Row:
    try:
        orders = baseline_orders(name, problem)
    except BaselineUndefinedError as error:
        return Row(name, None, reason=error.reason)
    return Row(name, measure(schedule_orders(problem, orders)))


def run_bound(options: argparse.Namespace) -> int:
    """Print the lower bounds of a problem, each with its argument."""
    problem = load_problem(options)
    feasible_placements(open_placements(problem))
    params = SolveParams(
        time_limit_s=options.time_limit,
        work_limit=options.time_limit,
        workers=options.workers,
        seed=options.seed,
    )
    bounds = lower_bounds(problem, params)
    if options.json:
        answer = {
            "objective": problem.objective.value,
            "lower_bound": bounds[0].ticks,
            "bubble_ratio": 1 - problem.work_ticks / bounds[0].ticks,
            "bounds": [asdict(bound) for bound in bounds],
        }
        print_json(answer)
        return DONE
    Printer().table(bound_table(problem, bounds))
    return DONE


def run_verify(options: argparse.Namespace) -> int:
    """Check a schedule against every rule and print each violation."""
    document = read_schedule(read_text(options.schedule), options.schedule)
    violations = verify_schedule(
        document.schedule,
        metrics=document.metrics,
        certificate=document.certificate,
        stated_gap=document.stated_gap,
        stated_status=document.stated_status,
    )
    if options.json:
        found = [
            {
                "rule": violation.rule.value,
                "rank": violation.rank,
                "ops": [str(op) for op in violation.ops],
                "times": list(violation.times),
                "amount": violation.amount,
                "message": violation.message,
            }
            for violation in violations
        ]
        print_json({"valid": not found, "violations": found})
    elif violations:
        print(*violations, sep="\n")
    else:
        ops = sum(map(len, document.schedule.ranks))
        certificate = document.certificate
        print(
            f"valid: {ops} ops on {document.schedule.problem.num_ranks} ranks, {certificate.objective} "
            f"{certificate.value}, lower bound {certificate.lower_bound} ({certificate.status})"
        )
    return NO_SCHEDULE if violations else DONE


def run_simulate(options: argparse.Namespace) -> int:
    """Replay a schedule's orders on its problem's costs, each rank from its planned first start."""
    document = read_schedule(read_text(options.schedule), options.schedule)
    schedule = document.schedule
    replayed = replay(schedule, links=options.links)
    metrics = measure(replayed)
    objective = schedule.problem.objective
    planned = document.metrics.value(objective)
    answer: dict[str, Any] = {
        "objective": objective.value,
        "planned": planned,
        "value": metrics.value(objective),
        "links": replayed.problem.links.value,
        "agrees": replayed.ranks == schedule.ranks,
        **asdict(metrics),
    }
    if options.jitter is not None:
        noisy = replay_with_jitter(
            schedule, sigma=options.jitter, samples=options.samples, seed=options.seed, links=options.links
        )
        answer["jitter"] = {
            "sigma": options.jitter,
            "samples": options.samples,
            "seed": options.seed,
            "mean": noisy.mean,
            "p50": noisy.p50,
            "p95": noisy.p95,
            "max": noisy.max,
        }
    if options.json:
        print_json(answer)
        return DONE
    print(f"{objective} {answer['value']} ticks (planned {planned}), bubble {metrics.bubble_ratio:.4f}")
    print(
        "every op starts and ends as planned" if answer["agrees"] else "ops differ from their planned times"
    )
    if options.jitter is not None:
        jitter = answer["jitter"]
        print(
            f"under {options.jitter:.1%} noise, {options.samples} samples: mean {jitter['mean']:.0f}, "
            f"median {jitter['p50']}, 95th percentile {jitter['p95']}, worst {jitter['max']}"
        )
    return DONE
