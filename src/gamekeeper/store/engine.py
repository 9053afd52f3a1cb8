"""The store: `read` and `write` take a function and run it on a snapshot or in the one write transaction.

`Store.open(place, clock)` is SQLite in a file, or PostgreSQL: one writer thread with group commit, readers on
connections of their own. `Store.inline(clock)` has the same meaning in the calling thread and in memory, without any
thread: for simulations.
"""

from __future__ import annotations

import asyncio
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from gamekeeper.core.clock import Clock, unseeded
from gamekeeper.core.errors import Refused
from gamekeeper.store.migration import check_ours, load_fresh, migrate, migrate_server
from gamekeeper.store.places import is_server, need_driver
from gamekeeper.store.session import Link, Reading, Writing, worded
from gamekeeper.store.sqlite import SqliteLink, check_folder
from gamekeeper.store.writer import Committer, Request, Writer, closed

if TYPE_CHECKING:
    from gamekeeper.store.postgres import StoreTime

S = TypeVar("S")
T = TypeVar("T")

READERS_KEPT = 4
IDLE_S = 5.0


class OpenLink(Link, Protocol):
    """A connection that can be ended, and says whether it is of use for another transaction."""

    @property
    def usable(self) -> bool: ...

    def close(self) -> None: ...


class Store(ABC):
    """Where the state is kept. Close it, or use it in a `with` block."""

    @staticmethod
    def open(
        place: str | Path,
        clock: Clock,
        rng: random.Random | None = None,
        *,
        idle_s: float = IDLE_S,
        passfile: str = "",
    ) -> Store:
        """Open the store at `place`: a file, made if there is none; "postgresql://…"; ":memory:" is `inline`.

        On PostgreSQL all times are those of the database's clock, and a transaction in which this process falls silent
        for `idle_s` seconds is undone by the server, so that a paused process holds nothing up for longer. `passfile`
        is a file with passwords as libpq reads it.

        Raises `Refused` for another program's or a later version's database, `Corrupt` for a damaged one, `UsageError`
        when it cannot be opened, `Busy` when another process holds it or the server does not answer, `NotAllowed` when
        the server lets us not in.
        """
        if str(place) == ":memory:":
            return Store.inline(clock, rng)
        if isinstance(place, str) and is_server(place):
            return PostgresStore(place, clock, rng, idle_s=idle_s, passfile=passfile)
        return FileStore(Path(place), clock, rng)

    @staticmethod
    def inline(clock: Clock, rng: random.Random | None = None) -> Store:
        """A store in memory that runs everything in the calling thread; with a seeded `rng` it is deterministic."""
        return InlineStore(clock, rng)

    @abstractmethod
    def read(self, function: Callable[[Reading], T]) -> T:
        """Run `function` on one snapshot of the committed state; an attempt to write in it is an error."""

    @abstractmethod
    def write(self, function: Callable[[Writing], T]) -> T:
        """Run `function` in a transaction and return its result after the commit.

        An error undoes all it did and is raised here. `function` may run in another thread and must not block; it
        may be undone without being run again. Raises `StorageFull`, `Busy` or `Corrupt` when the database fails.
        """

    @abstractmethod
    async def aread(self, function: Callable[[Reading], T]) -> T:
        """`read` without blocking the event loop."""

    @abstractmethod
    async def awrite(self, function: Callable[[Writing], T]) -> T:
        """`write` without blocking the event loop. A caller cancelled before its turn has written nothing."""

    def listen(self, hear: Callable[[], None]) -> None:  # noqa: B027 - nothing to hear is an answer
        """Call `hear` (in a thread of the store's) when another process has committed work, or room for it.

        A hint and no more: some may be lost, as on PostgreSQL while the connection is, and an SQLite file has no other
        process to hear of.
        """

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """A clock that shows the store's time: for whatever is compared with what the store holds."""

    @abstractmethod
    def join(self, joint: Callable[[Writing, Sequence[S]], Sequence[T | BaseException]], item: S) -> T:
        """As `write`, but all callers who wait with the same `joint` are served by one call of it.

        `joint` gets their items, in the order in which they asked, and returns one answer each; an exception among the
        answers is raised in its caller. Should `joint` itself raise, each item is tried alone, so that an error in one
        harms no other. It runs after all other writes of its commit that were asked for before the last of its items.
        """

    @abstractmethod
    async def ajoin(self, joint: Callable[[Writing, Sequence[S]], Sequence[T | BaseException]], item: S) -> T:
        """`join` without blocking the event loop. A caller cancelled before its turn has written nothing."""

    @abstractmethod
    def close(self) -> None:
        """Serve what waits and close all connections. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServedStore(Store):
    """One writer thread, and readers on connections of their own."""

    def __init__(self, link: OpenLink, clock: Clock, rng: random.Random | None) -> None:
        self._path = link.path
        self._clock = clock
        self._idle: list[OpenLink] = []
        self._gate = threading.Lock()
        self._closed = False
        self._open_link = link
        self._committer = Committer(link, clock, rng or unseeded())
        self._writer = Writer(self._committer)
        self._pool = ThreadPoolExecutor(READERS_KEPT, thread_name_prefix="store-reader")

    @abstractmethod
    def _reading_link(self) -> OpenLink:
        """A further connection, for reading."""

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def commits(self) -> int:
        """How many commits were made: with many callers at once, fewer than writes."""
        return self._committer.commits

    def waiting(self) -> int:
        """How many writes wait for their turn."""
        return self._writer.waiting()

    def read(self, function: Callable[[Reading], T]) -> T:
        with self._reader() as link, worded(link):
            now = link.begin_reading()
            try:
                return function(Reading(link, self._clock.now() if now is None else now))
            finally:
                link.rollback()

    def write(self, function: Callable[[Writing], T]) -> T:
        result: T = self._submit(function).result()
        return result

    async def aread(self, function: Callable[[Reading], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.read, function)

    async def awrite(self, function: Callable[[Writing], T]) -> T:
        result: T = await self._awaited(Request(function))
        return result

    def join(self, joint: Callable[[Writing, Sequence[S]], Sequence[T | BaseException]], item: S) -> T:
        result: T = self._queued(Request(None, joint=joint, item=item)).result()
        return result

    async def ajoin(self, joint: Callable[[Writing, Sequence[S]], Sequence[T | BaseException]], item: S) -> T:
        result: T = await self._awaited(Request(None, joint=joint, item=item))
        return result

    def close(self) -> None:
        with self._gate:
            self._closed = True
        self._writer.close()
        self._pool.shutdown()
        with self._gate:
            while self._idle:
                self._idle.pop().close()
        self._open_link.close()

    def _submit(self, function: Callable[[Writing], T]) -> Future[T]:
        return self._queued(Request(function))

    def _queued(self, request: Request) -> Future[Any]:
        if self._writer.is_current_thread():
            raise RuntimeError("a write inside a write would wait for itself: use the transaction at hand")
        return self._writer.submit(request)

    async def _awaited(self, request: Request) -> Any:
        request.waiter = asyncio.get_running_loop().create_future()
        future = self._queued(request)
        try:
            return await request.waiter
        finally:
            future.cancel()

    @contextmanager
    def _reader(self) -> Iterator[OpenLink]:
        with self._gate:
            if self._closed:
                raise closed(self._path)
            link = self._idle.pop() if self._idle else None
        if link is None:
            link = self._reading_link()
        try:
            yield link
        finally:
            with self._gate:
                kept = link.usable and not self._closed and len(self._idle) < READERS_KEPT
                if kept:
                    self._idle.append(link)
            if not kept:
                link.close()


class FileStore(ServedStore):
    """SQLite in a file, write-ahead log, every commit flushed."""

    def __init__(self, path: Path, clock: Clock, rng: random.Random | None) -> None:
        check_folder(path)
        self._link = _open_writer(str(path))
        super().__init__(self._link, clock, rng)

    def _reading_link(self) -> SqliteLink:
        link = SqliteLink(self._path, read_only=True)
        with worded(link):
            link.prepare()
        return link


class PostgresStore(ServedStore):
    """PostgreSQL. The server flushes every commit; a lost connection is made again when it is next needed."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        rng: random.Random | None = None,
        *,
        idle_s: float = IDLE_S,
        passfile: str = "",
        time: StoreTime | None = None,
    ) -> None:
        need_driver()
        from gamekeeper.store.hints import HintListener
        from gamekeeper.store.postgres import PostgresLink, Server

        self._server = Server.named(url, clock, idle_s=idle_s, passfile=passfile, time=time)
        self._listener: HintListener | None = None
        self._make_listener = HintListener
        self._link = PostgresLink(self._server)
        ready = False
        try:
            with worded(self._link):
                migrate_server(self._link)
            ready = True
        finally:
            if not ready:
                self._link.close()
        super().__init__(self._link, clock, rng)

    @property
    def clock(self) -> Clock:
        return self._server

    def listen(self, hear: Callable[[], None]) -> None:
        self._listener = self._make_listener(self._server, lambda: self._link.backend, hear)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        super().close()

    def _reading_link(self) -> OpenLink:
        from gamekeeper.store.postgres import PostgresLink

        return PostgresLink(self._server, read_only=True)


class InlineStore(Store):
    """SQLite in memory, in the calling thread; a lock keeps callers of several threads apart."""

    def __init__(self, clock: Clock, rng: random.Random | None) -> None:
        self._clock = clock
        self._gate = threading.RLock()
        self._inside = False
        self._closed = False
        self._link = SqliteLink(":memory:")
        load_fresh(self._link)
        self._link.prepare()
        self._committer = Committer(self._link, clock, rng or random.Random(0))

    @property
    def commits(self) -> int:
        """How many commits were made."""
        return self._committer.commits

    def read(self, function: Callable[[Reading], T]) -> T:
        with self._turn(), worded(self._link):
            self._link.raw.execute("PRAGMA query_only = ON")
            try:
                return function(Reading(self._link, self._clock.now()))
            finally:
                self._link.raw.execute("PRAGMA query_only = OFF")

    def write(self, function: Callable[[Writing], T]) -> T:
        result: T = self._served(Request(function))
        return result

    def join(self, joint: Callable[[Writing, Sequence[S]], Sequence[T | BaseException]], item: S) -> T:
        result: T = self._served(Request(None, joint=joint, item=item))
        return result

    def _served(self, request: Request) -> Any:
        with self._turn():
            self._committer.run([request])
        if request.error is not None:
            raise request.error
        return request.result

    async def aread(self, function: Callable[[Reading], T]) -> T:
        return self.read(function)

    async def awrite(self, function: Callable[[Writing], T]) -> T:
        return self.write(function)

    async def ajoin(self, joint: Callable[[Writing, Sequence[S]], Sequence[T | BaseException]], item: S) -> T:
        return self.join(joint, item)

    @property
    def clock(self) -> Clock:
        return self._clock

    def close(self) -> None:
        with self._gate:
            self._closed = True
            self._link.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._gate:
            if self._closed:
                raise closed(":memory:")
            if self._inside:
                raise RuntimeError("a read or write inside another would mix two transactions")
            self._inside = True
            try:
                yield
            finally:
                self._inside = False


def _open_writer(path: str) -> SqliteLink:
    link = SqliteLink(path)
    ready = False
    try:
        with worded(link):
            check_ours(link)
            mode = link.raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise Refused(
                    f"the file system of {path} cannot hold a write-ahead log (got {mode!r})",
                    remedy="put the data folder on a local disk",
                )
            link.prepare()
            migrate(link)
        ready = True
        return link
    finally:
        if not ready:
            link.close()
