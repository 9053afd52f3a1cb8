"""What the parts of the coordinator share: the store behind its role, the settings, the files, and the hints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread

from gamekeeper.core.artifacts import Upload
from gamekeeper.core.clock import Clock
from gamekeeper.runtime.daemon import Hint
from gamekeeper.runtime.executor import RoleLost, check_role
from gamekeeper.settings import Settings
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.submission import Quotas, Terms

S = TypeVar("S")
T = TypeVar("T")
ROLE = "coordinator"


class ArtifactFiles(Protocol):
    """The artifact store as the coordinator uses it. Its functions block; they are run by `Workers`."""

    max_bytes: int

    def path(self, digest: str) -> Path: ...

    def holds(self, digest: str, size: int) -> bool: ...

    def staged(self, upload: Upload) -> int: ...

    def append(self, upload: Upload, offset: int, chunk: bytes) -> int: ...

    def digest(self, upload: Upload) -> str: ...

    def staging_path(self, upload: Upload) -> Path: ...

    def publish(self, upload: Upload) -> None: ...

    def set_aside(self, upload: Upload, reason: Mapping[str, object]) -> None: ...

    def discard(self, upload: Upload) -> None: ...

    def discard_attempt(self, attempt: int, token: int) -> None: ...

    def sweep(self, live: frozenset[tuple[int, int]]) -> int: ...


class Workers(Protocol):
    """Runs blocking work away from the event loop."""

    def run(self, work: Callable[[], T]) -> Awaitable[T]: ...


class ThreadWorkers:
    """At most `limit` pieces of blocking work at once, each in a thread."""

    def __init__(self, limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; waits for a free one."""
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


class InlineWorkers:
    """Runs blocking work where it stands: for the simulator and for tests."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` now."""
        return work()


@dataclass(slots=True)
class Hints:
    """One hint for each duty that may want to look sooner. They carry nothing."""

    distribution: Hint = field(default_factory=Hint)
    pipeline: Hint = field(default_factory=Hint)
    promotion: Hint = field(default_factory=Hint)
    parking: Hint = field(default_factory=Hint)
    bulk: Hint = field(default_factory=Hint)


@dataclass(slots=True)
class Desk:
    """The store behind the coordinator's role, under `epoch`, with everything the request handlers need."""

    store: Store
    clock: Clock
    settings: Settings
    files: ArtifactFiles
    workers: Workers
    epoch: int
    hints: Hints = field(default_factory=Hints)
    role_lost: anyio.Event = field(default_factory=anyio.Event)
    _joints: dict[Any, Callable[[Writing, Sequence[Any]], Sequence[Any]]] = field(default_factory=dict)

    @property
    def terms(self) -> Terms:
        """On which terms jobs are taken: the kinds that are known, and how many may wait."""
        bounds = self.settings.admission
        quotas = Quotas(bounds.max_ready_per_producer, bounds.max_ready_per_kind, bounds.max_ready_in_all)
        return Terms(self.settings.kinds, quotas)

    async def read(self, look: Callable[[Reading], T]) -> T:
        """Run `look` on one snapshot of the store."""
        return await self.store.aread(look)

    async def write(self, change: Callable[[Writing], T]) -> T:
        """Run `change` in a transaction that holds only while this process has the role.

        Raises `RoleLost` otherwise: an agent must not take the coordinator's lost role for a lost attempt of its own.
        """

        def guarded(w: Writing) -> T:
            check_role(w, ROLE, self.epoch)
            return change(w)

        try:
            return await self.store.awrite(guarded)
        except RoleLost:
            self.role_lost.set()
            raise

    async def join(self, joint: Callable[[Writing, Sequence[S]], Sequence[T]], item: S) -> T:
        """As `write`, but all callers that wait with the same `joint` share one call of it."""
        guarded = self._joints.get(joint)
        if guarded is None:

            def guarded(w: Writing, items: Sequence[S]) -> Sequence[T]:
                check_role(w, ROLE, self.epoch)
                return joint(w, items)

            self._joints[joint] = guarded
        try:
            answer: T = await self.store.ajoin(guarded, item)
        except RoleLost:
            self.role_lost.set()
            raise
        return answer
