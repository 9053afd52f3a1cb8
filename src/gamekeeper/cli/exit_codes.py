"""What each exit code of the command line means; docs/reference/exit-codes.md is this table in words."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 4
REFUSED = 5
PENDING = 6
OUR_BUG = 70
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    DONE: "done",
    FAILED: "failed, or a check that is false",
    USAGE: "usage",
    UNREACHABLE: "coordinator unreachable, or not allowed",
    REFUSED: "refused by a safety rule",
    PENDING: "still pending when the waiting ended",
    OUR_BUG: "a bug of ours; a log file is named",
    INTERRUPTED: "interrupted",
}


def line(*codes: int) -> str:
    """The sentence for a command's help: its codes in order, with their meanings."""
    return "Exit codes: " + " · ".join(f"{code} {MEANINGS[code]}" for code in codes) + "."
