"""What a command's exit code says (FORMATS.md)."""

DONE = 0
NO_SCHEDULE = 1
"""No schedule exists, or the schedule has violations."""

WRONG_INPUT = 2
OUR_BUG = 70
"""A solver or a search broke a promise, as sysexits has it."""

INTERRUPTED = 130
"""After Ctrl-C with nothing to show for it, as shells have it."""
