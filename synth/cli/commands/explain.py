"""``explain``: why a schedule takes as long as it does, and what would shorten it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from synth.cli.arguments import add_json_argument, add_schedule_argument, add_search_arguments
from synth.cli.exit_codes import DONE
from synth.cli.searching import shown_progress
from synth.cli.streams import Printer, complain, print_json
from synth.document import read_schedule_or_timeline
from synth.errors import InfeasibleError, NoScheduleFoundError
from synth.explain.critical_path import CriticalPath, critical_path, in_words
from synth.explain.idle import WAIT_MEANS, RankIdle, Wait, idle_times
from synth.explain.what_if import Answer, retimed_answers, search_questions, searched_anew, searched_answer
from synth.files import read_text
from synth.measured import Timeline
from synth.measured_costs import measured_problem, with_time_before
from synth.problem import Problem
from synth.report import answers_table, idle_table
from synth.schedule import Schedule, measure
from synth.search.synthesizer import Result, synthesize
from synth.stage_names import how_stages_read

SAME_ORDERS = "same orders: every op as early as the changed costs allow, instead of the unchanged ones"
SEARCHED_ANEW = "searched anew: the best found under the change, instead of the best found without it"
"""What the table of answers compares."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``explain`` takes."""
    add_schedule_argument(parser)
    add_search_arguments(parser, time_limit=5.0)
    parser.add_argument(
        "--no-search",
        action="store_true",
        help="leave out the questions that take a search, of --time-limit seconds each",
    )
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Tell a schedule's critical path, what its ranks wait for, and what would shorten it."""
    schedule = _read(options.schedule)
    path, idle = critical_path(schedule), idle_times(schedule)
    if not options.json:
        _print_time(schedule, path, idle)
    answers = retimed_answers(schedule)
    if not options.no_search:
        answers += _searched(schedule, options)
    if options.json:
        print_json(_as_json(path, idle, answers))
    else:
        _print_answers(answers)
    return DONE


def _read(path: str) -> Schedule:
    """A schedule, or a measured timeline with the costs that it shows."""
    document = read_schedule_or_timeline(read_text(path), path)
    if isinstance(document, Timeline):
        return replace(with_time_before(document).schedule, problem=measured_problem(document))
    return document.schedule


def _searched(schedule: Schedule, options: argparse.Namespace) -> Iterator[Answer]:
    """The answers that take a search; an interrupt leaves out those still to come, and says so."""

    def ask(change: str, problem: Problem) -> Result:
        print(f"searching {options.time_limit:g} s at most: {change}", file=sys.stderr, flush=True)
        with shown_progress(options.time_limit, only_bars=True) as show:
            return synthesize(problem, options.time_limit, options.workers, options.seed, show)

    questions = search_questions(schedule.problem)
    try:
        result = ask("nothing changed", schedule.problem)
    except (InfeasibleError, NoScheduleFoundError) as error:
        complain(f"no question is searched, as the schedule's own limits leave none: {error}")
        return
    unchanged = searched_anew(schedule, result)
    if not result.interrupted:
        yield unchanged
    for number, question in enumerate(questions):
        if result.interrupted:
            complain(f"interrupted: {len(questions) - number} of {len(questions)} questions are left out")
            return
        result = ask(question.change, question.problem)
        if not result.interrupted:
            yield searched_answer(question, result, unchanged)


def _print_time(schedule: Schedule, path: CriticalPath, idle: Sequence[RankIdle]) -> None:
    """What the value is made of, and what every rank waits for."""
    printer = Printer()
    problem, metrics = schedule.problem, measure(schedule)
    printer.line(
        f"{problem.name or 'problem'}: {problem.objective} {metrics.value(problem.objective)} ticks, "
        f"bubble {metrics.bubble_ratio:.4f}"
    )
    if reading := how_stages_read(problem):
        printer.line(reading)
    printer.line("\nCritical path")
    for line in in_words(path):
        printer.line(f"  {line}")
    printer.line("")
    printer.table(idle_table(idle))
    for wait in Wait:
        if any(rank.waits_ticks[wait] for rank in idle):
            printer.line(f"{wait}: {WAIT_MEANS[wait]}")
    sys.stdout.flush()  # the searches take a while


def _print_answers(answers: Sequence[Answer]) -> None:
    printer = Printer()
    printer.line("")
    printer.table(answers_table(answers))
    printer.line(SAME_ORDERS)
    if any(answer.lower_bound is not None for answer in answers):
        printer.line(SEARCHED_ANEW)


def _as_json(path: CriticalPath, idle: Sequence[RankIdle], answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "objective": path.objective.value,
        "value": path.end - path.start,
        "critical_path": [
            {
                "op": str(step.timed.op),
                "rank": step.rank,
                "start": step.timed.start,
                "end": step.timed.end,
                "cause": step.cause.value,
                "wait_ticks": step.wait_ticks,
            }
            for step in path.steps
        ],
        "ranks": [
            {
                "work_ticks": rank.work_ticks,
                "idle_ticks": rank.idle_ticks,
                **{wait.value: rank.waits_ticks[wait] for wait in Wait},
            }
            for rank in idle
        ],
        "answers": [
            {
                **asdict(answer),
                "value": float(answer.value),
                "before": float(answer.before),
                "gain": answer.gain,
                "how": answer.how,
            }
            for answer in answers
        ],
    }
