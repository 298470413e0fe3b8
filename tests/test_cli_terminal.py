"""What commands show in a window, and what a pipe or NO_COLOR makes of it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from commands import FAST

COLOURED = "\x1b[38;2;"
BAR = "━"
OVERRIDES = ("NO_COLOR", "FORCE_COLOR", "LINES", "COLUMNS")
"""What would overrule the window."""


def in_a_window(words, lines=40, columns=100, **environment):
    """What a command writes to a terminal of this size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
    process = subprocess.Popen(
        [sys.executable, "-m", "synth.cli", *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**plain, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # what Linux answers when the other side has closed
            piece = b""
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return written.decode()


@pytest.mark.parametrize("command", ["synthesize", "compare"])
def test_a_window_shows_strips_and_a_bar(problem_file, command):
    seen = in_a_window([command, problem_file, *FAST])
    assert COLOURED in seen
    assert " idle" in seen
    assert BAR in seen
    assert "gap" in seen


def test_compare_draws_several_schedules_on_one_axis(problem_file):
    seen = in_a_window(["compare", problem_file, *FAST])
    assert seen.count("rank 0 ") > 2


def test_a_low_window_gets_the_grid(problem_file):
    seen = in_a_window(["synthesize", problem_file, *FAST], lines=7)
    assert COLOURED not in seen.split("\x1b[?25h")[-1]
    assert " rank 0  0" in seen or " rank 0  F0" in seen


def test_no_color_is_respected(problem_file):
    seen = in_a_window(["synthesize", problem_file, *FAST], NO_COLOR="1")
    assert "\x1b[38" not in seen
    assert "\x1b[48" not in seen
    assert " idle" not in seen
    assert " rank 0  0" in seen or " rank 0  F0" in seen


def test_a_pipe_gets_plain_text(run, problem_file):
    answer = run("synthesize", problem_file, *FAST)
    assert "\x1b" not in answer.out + answer.err
    assert BAR not in answer.err
    assert "best" in answer.err
