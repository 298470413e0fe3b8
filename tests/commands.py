"""Commands run in this process, and what they answer."""

from __future__ import annotations

import json

FAST = ["--time-limit", "1", "--workers", "1"]
"""For searches whose result is not looked at."""


class Answer:
    """What a command returned and printed."""

    def __init__(self, code, captured):
        self.code, self.out, self.err = code, captured.out, captured.err

    @property
    def json(self):
        return json.loads(self.out)


def check_refused(answer, pattern):
    """Exit code 2 and one sentence on standard error."""
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("pipesynth: ")
    assert pattern in answer.err
