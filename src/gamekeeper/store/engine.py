"""The store: `read` and `write` take a function and run it on a snapshot or in the one write transaction.

`Store.open(path, clock)` is SQLite in a file: one writer thread with group commit, readers on connections of their own.
`Store.inline(clock)` has the same meaning in the calling thread and in memory, without any thread: for simulations.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy.exc import DBAPIError

from gamekeeper.core.clock import Clock, unseeded
from gamekeeper.core.errors import Refused
from gamekeeper.store.migration import check_ours, load_fresh, migrate
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.sqlite import SqliteLink, check_folder
from gamekeeper.store.writer import Committer, Request, Writer, closed, in_words

T = TypeVar("T")

READERS_KEPT = 4


class Store(ABC):
    """Where the state is kept. Close it, or use it in a `with` block."""

    @staticmethod
    def open(path: str | Path, clock: Clock, rng: random.Random | None = None) -> Store:
        """Open the store in the file `path`, making it if there is none; ":memory:" is `inline`.

        Raises `Refused` for another program's or a later version's database, `Corrupt` for a damaged one, `UsageError`
        when the file cannot be opened, `Busy` when another process holds it.
        """
        if str(path) == ":memory:":
            return Store.inline(clock, rng)
        return FileStore(Path(path), clock, rng)

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

    @abstractmethod
    def close(self) -> None:
        """Serve what waits and close all connections. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileStore(Store):
    """SQLite in a file, write-ahead log, every commit flushed."""

    def __init__(self, path: Path, clock: Clock, rng: random.Random | None) -> None:
        check_folder(path)
        self._path = str(path)
        self._clock = clock
        self._idle: list[SqliteLink] = []
        self._gate = threading.Lock()
        self._closed = False
        with _words(self._path):
            self._link = _open_writer(self._path)
        self._committer = Committer(self._link, clock, rng or unseeded())
        self._writer = Writer(self._committer)
        self._pool = ThreadPoolExecutor(READERS_KEPT, thread_name_prefix="store-reader")

    @property
    def commits(self) -> int:
        """How many commits were made: with many callers at once, fewer than writes."""
        return self._committer.commits

    def waiting(self) -> int:
        """How many writes wait for their turn."""
        return self._writer.waiting()

    def read(self, function: Callable[[Reading], T]) -> T:
        with _words(self._path), self._reader() as link:
            link.raw.execute("BEGIN")
            try:
                return function(Reading(link, self._clock.now()))
            finally:
                link.raw.execute("ROLLBACK")

    def write(self, function: Callable[[Writing], T]) -> T:
        return self._submit(function).result()

    async def aread(self, function: Callable[[Reading], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.read, function)

    async def awrite(self, function: Callable[[Writing], T]) -> T:
        return await asyncio.wrap_future(self._submit(function))

    def close(self) -> None:
        with self._gate:
            self._closed = True
        self._writer.close()
        self._pool.shutdown()
        with self._gate:
            while self._idle:
                self._idle.pop().close()
        self._link.close()

    def _submit(self, function: Callable[[Writing], T]) -> Future[T]:
        if self._writer.is_current_thread():
            raise RuntimeError("a write inside a write would wait for itself: use the transaction at hand")
        return self._writer.submit(function)

    @contextmanager
    def _reader(self) -> Iterator[SqliteLink]:
        with self._gate:
            if self._closed:
                raise closed(self._path)
            link = self._idle.pop() if self._idle else None
        if link is None:
            link = SqliteLink(self._path, read_only=True)
            link.prepare()
        kept = False
        try:
            yield link
            with self._gate:
                kept = not self._closed and len(self._idle) < READERS_KEPT
                if kept:
                    self._idle.append(link)
        finally:
            if not kept:
                link.close()


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

    def read(self, function: Callable[[Reading], T]) -> T:
        with self._turn(), _words(":memory:"):
            self._link.raw.execute("PRAGMA query_only = ON")
            try:
                return function(Reading(self._link, self._clock.now()))
            finally:
                self._link.raw.execute("PRAGMA query_only = OFF")

    def write(self, function: Callable[[Writing], T]) -> T:
        future: Future[T] = Future()
        request = Request(function, future)
        with self._turn():
            self._committer.run([request])
        if request.error is not None:
            raise request.error
        result: T = request.result
        return result

    async def aread(self, function: Callable[[Reading], T]) -> T:
        return self.read(function)

    async def awrite(self, function: Callable[[Writing], T]) -> T:
        return self.write(function)

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


@contextmanager
def _words(path: str) -> Iterator[None]:
    """Raise the driver's errors as the store's."""
    try:
        yield
    except (sqlite3.Error, DBAPIError) as error:
        meaning = in_words(error, path)
        if meaning is error:
            raise
        raise meaning from error


def _open_writer(path: str) -> SqliteLink:
    link = SqliteLink(path)
    ready = False
    try:
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
