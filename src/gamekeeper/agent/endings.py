"""How an attempt ended, in the closed vocabulary of `EndReason`, from what was seen of its process."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pydantic import JsonValue

from gamekeeper.core.jobs import EndReason

DETAIL_LETTERS = 1800
_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True, slots=True)
class Exit:
    """What is known of an ended process.

    `cause` is the warden's word ("exited", "stopped", "deadline", "time-limit", "cannot-start"), or "vanished"
    when the warden died without one. `receipt` is the decoded receipt or `None`; `errors` the end of its
    standard error; `short_of_disk` whether free space was below the least allowed when it ended.
    """

    cause: str
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    receipt: JsonValue = None
    errors: str = ""
    short_of_disk: bool = False
    process_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """What is reported for an attempt. `process_s`: seconds its process has been running."""

    reason: EndReason
    detail: str = ""
    exit_code: int | None = None
    receipt: JsonValue = None
    process_s: float = 0.0


def judge(seen: Exit, ordered: EndReason | None) -> Ending:
    """Name the reason an attempt ended. `ordered` is why this agent had told it to stop, if it had.

    Exit code 0 with a receipt is a finish, however it came about: a job that was asked to stop and handed in
    what it had has worked. Exit code 0 without one is reported as it is; the coordinator judges receipts.
    """
    reason = _reason(seen, ordered)
    failed = reason is not EndReason.FINISHED
    parts = [
        "the node had less disk space than it must keep free" if reason is EndReason.SPOOL_FULL else "",
        seen.detail,
        f"exit code {seen.exit_code}" if failed and seen.exit_code else "",
        f"signal {_signal_name(seen.signal)}" if failed and seen.signal else "",
        f"stderr ends: {seen.errors}" if failed and seen.errors else "",
    ]
    detail = "; ".join(part for part in parts if part)
    return Ending(reason, detail[:DETAIL_LETTERS], seen.exit_code, seen.receipt, seen.process_s)


def _reason(seen: Exit, ordered: EndReason | None) -> EndReason:
    if seen.cause == "cannot-start":
        return EndReason.CANNOT_START
    if seen.exit_code == 0 and seen.receipt is not None:
        return EndReason.FINISHED
    if seen.cause == "deadline":
        return EndReason.LEASE_EXPIRED
    if seen.cause == "time-limit":
        return EndReason.TIME_LIMIT
    if ordered is not None:
        return ordered
    if seen.cause == "stopped":  # told by an agent that did not live to report it
        return EndReason.NODE_GOING_AWAY
    if seen.cause == "vanished":
        return EndReason.KILLED
    if seen.exit_code == 0:
        return EndReason.FINISHED
    if seen.short_of_disk:
        return EndReason.SPOOL_FULL
    return EndReason.KILLED if seen.signal in _OUTSIDE else EndReason.OWN_ERROR


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
