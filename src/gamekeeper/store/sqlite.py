"""SQLite: connections set up as the store needs them, and the driver's errors in the store's words."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import StaticPool

from gamekeeper.core.errors import Busy, Corrupt, GamekeeperError, NotAllowed, StorageFull, UsageError
from gamekeeper.store.statements import SQLITE, Compiled, Value

APPLICATION_ID = 0x474B5052
BUSY_MS = 5000
# The pages that a busy writer touches again and again stay in memory.
WRITER_CACHE_KIB = 64 * 1024
# A checkpoint flushes the log and the database: after so many pages it is rare beside commits, and the log small.
CHECKPOINT_PAGES = 8000

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class HeldDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's SQLite without a say in transactions: the store alone begins and ends them on the connection."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""

    def do_commit(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""

    def do_rollback(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""

    def do_close(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""


registry.register("sqlite.held", __name__, HeldDialect.__name__)


class SqliteLink:
    """One connection. The store opens and ends every transaction itself: the driver begins none on its own."""

    dialect: Dialect = SQLITE
    errors: type[Exception] = sqlite3.Error

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        try:
            self.raw = sqlite3.connect(
                path,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
                timeout=BUSY_MS / 1000,
            )
        except sqlite3.Error as error:
            raise translated(error, path) or error from error
        self.raw.row_factory = sqlite3.Row
        self._read_only = read_only
        self._engine: Engine | None = None
        self._conn: Connection | None = None

    def prepare(self) -> None:
        """Set the durability and the checks that every connection runs with."""
        for pragma in ("foreign_keys = ON", "synchronous = FULL", "temp_store = MEMORY"):
            self.raw.execute(f"PRAGMA {pragma}")
        if self._read_only:
            self.raw.execute("PRAGMA query_only = ON")
        else:
            self.raw.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
            self.raw.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    usable = True

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open: some errors end it."""
        return self.raw.in_transaction

    def begin(self) -> None:
        """Begin the write transaction: no other connection can write until its end."""
        self.raw.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """Begin a snapshot."""
        self.raw.execute("BEGIN")

    def commit(self) -> None:
        """Make the transaction durable."""
        self.raw.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")

    def hint(self) -> None:
        """Nobody else has the file open."""

    def meaning(self, error: Exception) -> GamekeeperError | None:
        """What an error of the driver means to a person."""
        return translated(error, self.path) if isinstance(error, sqlite3.Error) else None

    def check_sound(self) -> None:
        """An error undoes its own statement alone."""

    def execute(self, words: str) -> None:
        """Run SQL without parameters and results."""
        self.raw.execute(words)

    def rows(self, words: str, values: Sequence[Value]) -> list[Any]:
        """Run a query: its rows, read by column name or place."""
        return self.raw.execute(words, values).fetchall()

    def run(self, words: str, values: Sequence[Value]) -> int:
        """Run a change: how many rows it touched."""
        return self.raw.execute(words, values).rowcount

    def run_many(self, compiled: Compiled, many: Sequence[Sequence[Value]]) -> int:
        """Run a change once for each row of values: how many rows it touched in all."""
        return self.raw.executemany(compiled.sql, many).rowcount

    @property
    def conn(self) -> Connection:
        """SQLAlchemy's connection over the same driver connection, made when it is first asked for."""
        if self._conn is None:
            self._engine = create_engine("sqlite+held://", creator=lambda: self.raw, poolclass=StaticPool)
            self._conn = self._engine.connect()
        return self._conn

    def close(self) -> None:
        """End the connection; an open transaction is rolled back."""
        if self._conn is not None and self._engine is not None:
            self._conn.close()
            self._engine.dispose()
        self.raw.close()


def translated(error: sqlite3.Error, path: str) -> GamekeeperError | None:
    """What a driver's error means to a person, or `None` when it is a fault of the program."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in _FULL:
        return StorageFull(
            f"the store {path} cannot be written: {error}",
            remedy="free disk space, then try again; nothing was written",
        )
    if primary in _LOCKED:
        return Busy(
            f"the store {path} is locked by another process",
            remedy="stop the other program that has the file open", retry_after_s=1.0,
        )  # fmt: skip
    if primary in _BROKEN:
        return Corrupt(
            f"the store {path} is damaged or no Gamekeeper store: {error}",
            remedy="restore a backup (gamekeeper store restore DIR --force), or move it away to start afresh",
        )
    if primary in _READ_ONLY:
        return NotAllowed(
            f"the store {path} may not be written: {error}",
            remedy="give this user write access to the file and folder",
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        return cannot_open(path, str(error))
    return None


def cannot_open(path: str, cause: str) -> UsageError:
    """The file cannot be opened at all."""
    return UsageError(
        f"the store {path} cannot be opened: {cause}",
        remedy="choose another data folder, or make this one writable",
    )


def check_folder(path: Path) -> None:
    """Raise `UsageError` unless a store may be made or opened at `path`."""
    if path.is_dir():
        raise cannot_open(str(path), "it is a folder")
    if not path.parent.is_dir():
        raise cannot_open(str(path), f"the folder {path.parent} does not exist")
