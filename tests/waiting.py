"""The one bounded poll of the tests, for facts that only a real process can bring about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(fact: Callable[[], T | None], within_s: float = 20.0, every_s: float = 0.02) -> T:
    """What `fact` returns as soon as that is true; fails with its last answer after `within_s` seconds."""
    end = time.monotonic() + within_s
    while True:
        answer = fact()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"did not come about within {within_s} s; last answer: {answer!r}")
        time.sleep(every_s)
