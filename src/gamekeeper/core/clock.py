"""Time. The only module that reads a clock; everything else is handed a `Clock` or a `now`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random


class Clock(Protocol):
    """What the product may know about time.

    `now` is seconds since the Unix epoch (UTC) and never runs backwards within one process;
    `monotonic` is seconds since an arbitrary start and is only good for differences.
    """

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...

    def block(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock, made immune to steps.

    The wall clock is read once; afterwards it advances with the monotonic clock. A wall clock
    that is set back or forth by an hour while the process runs can therefore neither expire every
    lease at once nor keep a dead one alive.
    """

    def __init__(self) -> None:
        self._wall_at_start = time.time()
        self._monotonic_at_start = time.monotonic()

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return self._wall_at_start + (time.monotonic() - self._monotonic_at_start)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for at least `seconds`."""
        import asyncio  # job programs import this module for the other readings; asyncio would double their start

        await asyncio.sleep(seconds)

    def block(self, seconds: float) -> None:
        """Block the calling thread for at least `seconds`; never call it on the event loop."""
        time.sleep(seconds)


def boot_seconds() -> float:
    """Seconds since this machine booted, suspended time included (`CLOCK_BOOTTIME`).

    All processes of one machine read the same value, so a deadline written to a file by one
    process can be kept by another.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def unseeded() -> random.Random:
    """A generator that the machine seeds, for jitter and names; never for secrets.

    The only source of randomness that no seed repeats: whoever must repeat a run passes a seeded generator instead.
    """
    import random  # as above: job programs have no use for it

    return random.Random()
