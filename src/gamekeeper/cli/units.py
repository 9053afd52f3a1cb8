"""Numbers, times and sizes as people read and write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gamekeeper.core.errors import UsageError

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
UNKNOWN = "?"


def parse_duration(text: str) -> float:
    """Seconds of "90s", "15m", "2h", "1h30m", "7d". Raises `UsageError` for anything else."""
    stripped = text.strip().lower()
    parts = list(_DURATION.finditer(stripped))
    if not parts or "".join(part.group(0) for part in parts) != stripped:
        raise UsageError(
            f"{text!r:.60} is not a duration", remedy="write a number and a unit: 90s, 15m, 2h, 1h30m or 7d"
        )
    return sum(float(part.group(1)) * _SECONDS[part.group(2)] for part in parts)


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units: "41 min", "2 h 05 min", "0.4 s"."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0:
        return "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def ago(at: float | None, now: float) -> str:
    """How long ago `at` was; "never" when it is not known."""
    return "never" if at is None else f"{duration(max(0.0, now - at))} ago"


def clock_time(at: float) -> str:
    """A point in time, UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def count(number: int | None) -> str:
    """A whole number with thousands separated by commas."""
    return UNKNOWN if number is None else f"{number:,}"


def promotions(amount: int) -> str:
    """ "1 promotion", "3 promotions"."""
    return f"{count(amount)} promotion{'' if amount == 1 else 's'}"


def size(amount: int | None) -> str:
    """Bytes in powers of 1000: "34.2 MB"."""
    if amount is None:
        return UNKNOWN
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the loop always returns")


def percent(share: float | None) -> str:
    """A share of one as a percentage."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


def signed(value: float | None, digits: int = 0) -> str:
    """A number that always shows its sign; the sign of a rounded zero is plus."""
    if value is None:
        return UNKNOWN
    rounded = round(value, digits) + 0.0
    return f"{rounded:+,.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval: "[+540, +701]"."""
    if low is None or high is None:
        return ""
    return f"[{signed(low)}, {signed(high)}]"


def number(value: object) -> str:
    """Any JSON scalar for a person: floats to four significant digits, nothing for nothing."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return str(value)
