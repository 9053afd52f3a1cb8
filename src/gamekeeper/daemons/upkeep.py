"""Duties that decide nothing: operations on many jobs go on batch by batch, finished jobs go after a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from gamekeeper.core.clock import Clock
from gamekeeper.core.decisions import Decision
from gamekeeper.daemons.duty import Duty
from gamekeeper.runtime.daemon import Hint, Tally, pause_after
from gamekeeper.runtime.executor import check_role
from gamekeeper.store import bulk, retention
from gamekeeper.store.session import Writing
from gamekeeper.store.submission import OverQuota, Terms

BULK_EVERY_S = 5.0
RETENTION_EVERY_S = 600.0
REST_S = 0.05


@dataclass(slots=True)
class Chore:
    """Work in small pieces. `work` does one piece and answers whether there is more to do at once."""

    name: str
    every_s: float
    work: Callable[[], Awaitable[bool]]
    rest_s: float = REST_S
    hint: Hint = field(default_factory=Hint)
    tally: Tally = field(default_factory=Tally)
    more: bool = False

    async def cycle(self, now: float) -> Decision | None:
        """Do one piece."""
        self.more = await self.work()
        self.tally.cycles += 1
        self.tally.failures_in_row = 0
        self.tally.last_cycle_at = now
        return None

    def note_failure(self, error: Exception) -> float:
        """Count a failed piece; returns the seconds to wait before the next."""
        return pause_after(self.tally, error)

    async def sleep(self, clock: Clock) -> None:
        """Breathe between two pieces, so that others come to write; wait for a hint or the timer when all is done."""
        await clock.sleep(self.rest_s)
        if not self.more:
            await self.hint.wait(clock, max(0.0, self.every_s - self.rest_s))


def bulk_operations(duty: Duty, role: str, terms: Terms, changed: Callable[[], None]) -> Chore:
    """Goes on with the operations on many jobs, one batch of each in turn; `changed` is called after a batch."""

    def step(w: Writing, bulk_id: int) -> bool:
        check_role(w, role, duty.epoch)
        try:
            with w.savepoint():
                return bulk.step(w, bulk_id, terms)
        except OverQuota:
            # There is no room for what would be retried: it goes on when some has started.
            return False

    async def work() -> bool:
        more = False
        for bulk_id in await duty.store.aread(bulk.running):
            more |= await duty.store.awrite(partial(step, bulk_id=bulk_id))
            changed()
        return more

    return Chore("bulk_operations", BULK_EVERY_S, work)


def job_retention(duty: Duty, role: str, limits: retention.Limits) -> Chore:
    """Removes finished jobs that are too old or too many, a window at a time."""
    cursor = 0

    def remove(w: Writing, ids: tuple[int, ...]) -> int:
        check_role(w, role, duty.epoch)
        return retention.remove(w, ids, role)

    async def work() -> bool:
        nonlocal cursor
        found = await duty.store.aread(lambda r: retention.look(r, cursor, limits))
        for start in range(0, len(found.ids), retention.BATCH):
            part = found.ids[start : start + retention.BATCH]
            await duty.store.awrite(partial(remove, ids=part))
        cursor = found.cursor or 0
        return found.cursor is not None

    return Chore("job_retention", RETENTION_EVERY_S, work)
