"""A daemon: a duty that looks at the state again and again, and acts on what it sees.

One cycle is gather -> decide -> record and apply. Between cycles it sleeps, at most `every_s`; a hint ends the sleep
early but carries nothing, so a lost hint costs time and never correctness. A failed cycle is counted, and the following
ones come later and later until one succeeds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import anyio

from gamekeeper.core.clock import Clock
from gamekeeper.core.decisions import Decision

View = TypeVar("View")

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 30.0


class Hint:
    """Wakes a sleeper early. Many signals before it looks count as one."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def signal(self) -> None:
        """Something may have changed."""
        self._event.set()

    async def wait(self, clock: Clock, seconds: float) -> bool:
        """Sleep until a signal or for `seconds`; returns whether a signal came. Takes the signal."""
        if not self._event.is_set():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._wake, tasks.cancel_scope)
                await clock.sleep(seconds)
                tasks.cancel_scope.cancel()
        signalled = self._event.is_set()
        if signalled:
            self._event = anyio.Event()
        return signalled

    async def _wake(self, scope: anyio.CancelScope) -> None:
        await self._event.wait()
        scope.cancel()


@dataclass(slots=True)
class Tally:
    """How a daemon has fared since it was started."""

    cycles: int = 0
    failures: int = 0
    failures_in_row: int = 0
    last_error: str = ""
    last_cycle_at: float | None = None


def pause_after(tally: Tally, error: Exception) -> float:
    """Count a failed cycle; the seconds to wait before the next, more with every failure in a row."""
    tally.failures += 1
    tally.failures_in_row += 1
    tally.last_error = f"{type(error).__name__}: {error}"[:500]
    return min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(tally.failures_in_row - 1, 16))


class Cyclic(Protocol):
    """What supervision needs of a daemon."""

    name: str
    tally: Tally

    async def cycle(self, now: float) -> Decision | None: ...

    def note_failure(self, error: Exception) -> float: ...

    async def sleep(self, clock: Clock) -> None: ...


@dataclass(slots=True)
class Daemon(Generic[View]):
    """One duty. `decide` must be pure; `apply` records the decision before its effects.

    `rest_s` is the shortest time between two cycles, however many hints arrive: it makes them come in batches.
    """

    name: str
    every_s: float
    gather: Callable[[], Awaitable[View | None]]
    decide: Callable[[View, float], Decision]
    apply: Callable[[Decision], Awaitable[None]]
    rest_s: float = 0.0
    hint: Hint = field(default_factory=Hint)
    tally: Tally = field(default_factory=Tally)

    async def cycle(self, now: float) -> Decision | None:
        """Look once and act. `None` when there was nothing to look at."""
        view = await self.gather()
        decision = None
        if view is not None:
            decision = self.decide(view, now)
            await self.apply(decision)
        self.tally.cycles += 1
        self.tally.failures_in_row = 0
        self.tally.last_cycle_at = now
        return decision

    def note_failure(self, error: Exception) -> float:
        """Count a failed cycle; returns the seconds to wait before the next."""
        return pause_after(self.tally, error)

    async def sleep(self, clock: Clock) -> None:
        """Wait for a hint or the timer."""
        await clock.sleep(self.rest_s)
        await self.hint.wait(clock, max(0.0, self.every_s - self.rest_s))
