"""``verify``: every violation of every rule."""

from __future__ import annotations

import argparse

from synth.cli.arguments import add_json_argument, add_schedule_argument
from synth.cli.exit_codes import DONE, NO_SCHEDULE
from synth.cli.streams import print_json
from synth.document import read_schedule
from synth.files import read_text
from synth.verify import verify_schedule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``verify`` takes."""
    add_schedule_argument(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
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
