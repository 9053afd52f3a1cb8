"""PostgreSQL: connections set up as the store needs them, and the driver's errors in the store's words.

A link outlives its connection: one that is lost is made again by the next transaction. All times are the database's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Cursor, pq
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.array import ListDumper
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import StaticPool

from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import Busy, GamekeeperError, UsageError
from gamekeeper.store.places import shown
from gamekeeper.store.server_errors import COMMIT_CUT, CUT, GONE, said_by_server
from gamekeeper.store.statements import POSTGRESQL, Compiled, Value

StoreTime = Callable[[float], float]

CHANNEL = "gamekeeper"
CONNECT_S = 10
LOCK_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
_TIME = "SELECT extract(epoch FROM clock_timestamp())"
_PREPARED = 1000


class HeldDialect(PGDialect_psycopg):
    """SQLAlchemy's PostgreSQL without a say in transactions: the store alone begins and ends them."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""

    def do_commit(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""

    def do_rollback(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""

    def do_close(self, dbapi_connection: DBAPIConnection) -> None:
        """Leave it to the store."""


registry.register("postgresql.held", __name__, HeldDialect.__name__)


class _Number(Loader):
    """Sums of whole numbers are whole numbers again, whatever type the server gives them."""

    def load(self, data: bytes | bytearray | memoryview) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


class _Columns(tuple[Any, ...]):
    """A result row, read by column name or place."""

    __slots__ = ()
    places: dict[str, int] = {}  # noqa: RUF012 - one for each kind of row, set when that is made

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, self.places[key] if isinstance(key, str) else key)

    def keys(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.places)


@lru_cache(maxsize=1024)
def _kind_of_row(names: tuple[str, ...]) -> type[_Columns]:
    return type("Row", (_Columns,), {"__slots__": (), "places": {name: at for at, name in enumerate(names)}})


def _rows(cursor: Cursor[Any]) -> Callable[[Sequence[Any]], _Columns]:
    names = tuple(column.name for column in cursor.description or ())
    return _kind_of_row(names)


@dataclass(slots=True)
class Server:
    """A database on a server: how to reach it, and its clock. `time` turns a reading of that into the store's time."""

    conninfo: str
    path: str
    clock: Clock
    idle_s: float
    time: StoreTime | None = None
    _gate: threading.Lock = field(default_factory=threading.Lock)
    _latest: float = 0.0
    _read_at: float = 0.0

    @classmethod
    def named(
        cls, url: str, clock: Clock, *, idle_s: float, passfile: str = "", time: StoreTime | None = None
    ) -> Server:
        """The database at `url`. Raises `UsageError` when that cannot be read; no message holds its password."""
        path = shown(url)
        try:
            known = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
        except psycopg.Error:
            raise UsageError(
                f"the address of the store {path} cannot be read",
                remedy="write it as postgresql://USER@HOST:PORT/DATABASE, special characters as %XX",
            ) from None
        known.setdefault("connect_timeout", CONNECT_S)
        if passfile:
            known["passfile"] = str(Path(passfile).expanduser())
        known.setdefault("application_name", "gamekeeper")
        # Of several hosts, the one that can be written; and the end of a silent network is noticed.
        known.setdefault("target_session_attrs", "read-write")
        for name, value in (("idle", 10), ("interval", 5), ("count", 3)):
            known.setdefault(f"keepalives_{name}", value)
        known.setdefault("tcp_user_timeout", 20_000)
        return cls(make_conninfo(**known), path, clock, idle_s, time)  # type: ignore[arg-type]

    def connect(self) -> psycopg.Connection[Any]:
        """A fresh connection. Raises the driver's errors."""
        raw = psycopg.connect(
            self.conninfo, autocommit=True, row_factory=_rows, prepare_threshold=0, cursor_factory=Cursor
        )
        raw.prepared_max = _PREPARED
        raw.adapters.register_loader("numeric", _Number)
        raw.adapters.register_dumper(int, Int8Dumper)
        raw.adapters.register_dumper(tuple, ListDumper)
        limits = (
            f"idle_in_transaction_session_timeout = {int(self.idle_s * 1000)}",
            f"lock_timeout = {int(LOCK_S * 1000)}",
        )
        raw.execute("; ".join(f"SET {limit}" for limit in limits), prepare=False)
        return raw

    def read(self, shown: float) -> float:
        """The store's time when its clock showed `shown`; it never runs backwards in one process."""
        if self.time is not None:
            return self.time(shown)
        with self._gate:
            self._latest = max(self._latest, shown)
            self._read_at = self.clock.monotonic()
            return self._latest

    def now(self) -> float:
        """The store's time, as well as it can be told since it was last read."""
        if self.time is not None:
            return self.clock.now()
        with self._gate:
            return self._latest + self.clock.monotonic() - self._read_at

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, of this machine."""
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        await self.clock.sleep(seconds)

    def block(self, seconds: float) -> None:
        """Block the calling thread."""
        self.clock.block(seconds)


class PostgresLink:
    """One connection at a time. The store opens and ends every transaction itself."""

    dialect: Dialect = POSTGRESQL
    errors: type[Exception] = psycopg.Error

    def __init__(self, server: Server, *, read_only: bool = False) -> None:
        self.path = server.path
        self._server = server
        self._read_only = read_only
        self._raw: psycopg.Connection[Any] | None = None
        self._cursor: Cursor[Any] | None = None
        self._engine: Engine | None = None
        self._conn: Connection | None = None
        self._later: list[str] = []
        self._hinted = False
        self._closed = False
        self._failures = 0
        self._wait_until = 0.0

    # --- the connection

    @property
    def raw(self) -> psycopg.Connection[Any]:
        """The driver's connection, made when there is none. Raises the store's errors."""
        if self._raw is None or self._raw.closed:
            self._drop()
            self._connect()
        assert self._raw is not None  # noqa: S101 - made just now
        return self._raw

    @property
    def backend(self) -> int:
        """The server's process at the other end; 0 when there is none."""
        raw = self._raw
        return 0 if raw is None or raw.closed else raw.info.backend_pid

    @property
    def usable(self) -> bool:
        """Whether another transaction can be begun without connecting anew."""
        return self._raw is not None and not self._raw.closed and not self.in_transaction

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, one that an error has doomed included."""
        raw = self._raw
        return (
            raw is not None and not raw.closed and raw.pgconn.transaction_status != pq.TransactionStatus.IDLE
        )

    @property
    def conn(self) -> Connection:
        """SQLAlchemy's connection over the same driver connection, made when it is first asked for."""
        raw = self._ready().connection
        if self._conn is None:
            self._engine = create_engine(
                "postgresql+held://", creator=lambda: raw, poolclass=StaticPool, use_native_hstore=False
            )
            self._conn = self._engine.connect()
        return self._conn

    def close(self) -> None:
        """End the connection; an open transaction is undone."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        conn, engine, raw = self._conn, self._engine, self._raw
        self._conn = self._engine = self._raw = self._cursor = None
        self._later.clear()
        if conn is not None and engine is not None and raw is not None and not raw.closed:
            conn.close()
            engine.dispose()
        if raw is not None:
            raw.close()

    def _connect(self) -> None:
        """Connect, but not too often: callers in between are sent away at once."""
        clock = self._server.clock
        if clock.monotonic() < self._wait_until:
            raise Busy(
                f"the store {self.path} does not answer", remedy="it is tried again soon",
                retry_after_s=max(0.1, self._wait_until - clock.monotonic()),
            )  # fmt: skip
        try:
            self._raw = self._server.connect()
        except psycopg.Error as error:
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**self._failures)
            self._failures = min(self._failures + 1, 10)
            self._wait_until = clock.monotonic() + wait
            raise said_by_server(error, self.path, connecting=True) or error from error
        self._failures = 0
        self._cursor = self._raw.cursor()

    # --- transactions

    def begin(self) -> float | None:
        """Begin the write transaction: the store's time."""
        return self._begin("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")

    def begin_reading(self) -> float | None:
        """Begin a snapshot: the store's time when it was taken."""
        return self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def _begin(self, words: str) -> float:
        self._hinted = False
        self._later.clear()
        known = self.usable
        self.raw  # noqa: B018 - connects
        try:
            read = self._send(f"{words}; {_TIME}")
        except psycopg.Error:
            if not known or self.usable:
                raise
            # The connection died while it lay idle: nothing was begun on it.
            self._drop()
            self.raw  # noqa: B018 - connects
            read = self._send(f"{words}; {_TIME}")
        return self._server.read(float(read))

    def commit(self) -> None:
        """Make the transaction durable.

        Raises `Busy`, saying that it is unknown whether it was, when the connection is lost meanwhile.
        """
        if self._hinted:
            self._later.append(f"NOTIFY {CHANNEL}")
        words = "; ".join([*self._later, "COMMIT"])
        self._later.clear()
        try:
            self._send(words)
        except psycopg.Error as error:
            if self._raw is not None and not self._raw.closed:
                raise
            raise Busy(
                COMMIT_CUT.format(path=self.path), remedy="call again: repeating is harmless"
            ) from error

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""
        self._later.clear()
        if self.in_transaction:
            try:
                self._send("ROLLBACK")
            except psycopg.Error:
                # The server undoes it by itself when the connection is gone.
                self._drop()

    def hint(self) -> None:
        """Notify the listeners of other processes at the commit, once."""
        self._hinted = True

    def meaning(self, error: Exception) -> GamekeeperError | None:
        """What an error of the driver means to a person."""
        if not isinstance(error, psycopg.Error):
            return None
        if self._raw is not None and self._raw.closed:
            return Busy(CUT.format(path=self.path), remedy="call again: nothing was written")
        return said_by_server(error, self.path)

    # --- statements

    def check_sound(self) -> None:
        """Raise when an error was passed over in silence: the server undoes all that the transaction did."""
        raw = self._raw
        if raw is not None and raw.pgconn.transaction_status == pq.TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction("an error of the database was passed over")

    def execute(self, words: str) -> None:
        """Run SQL without parameters and results; savepoints travel together with the statement that follows."""
        if words.startswith(("SAVEPOINT ", "RELEASE ")):
            self._later.append(words)
            return
        self._say()
        self._send(words)

    def rows(self, words: str, values: Sequence[Value]) -> list[Any]:
        """Run a query: its rows, read by column name or place."""
        return self._run(words, values).fetchall()

    def run(self, words: str, values: Sequence[Value]) -> int:
        """Run a change: how many rows it touched."""
        return self._run(words, values).rowcount

    def run_many(self, compiled: Compiled, many: Sequence[Sequence[Value]]) -> int:
        """Run a change once for each row of values, as one statement where there is a form of it for arrays."""
        if compiled.many is not None and len(many) > 1:
            columns = [_alike(column) for column in zip(*many, strict=True)]
            return self._run(compiled.many, columns).rowcount
        cursor = self._ready()
        if len(many) == 1:
            return cursor.execute(compiled.sql, many[0]).rowcount
        cursor.executemany(compiled.sql, many)
        return cursor.rowcount

    def _run(self, words: str, values: Sequence[Value]) -> Cursor[Any]:
        return self._ready().execute(words, values or None)

    def _ready(self) -> Cursor[Any]:
        self._say()
        if self._cursor is None:
            raise Busy(CUT.format(path=self.path), remedy="call again: nothing was written")
        return self._cursor

    def _say(self) -> None:
        if self._later:
            words = "; ".join(self._later)
            self._later.clear()
            self._send(words)

    def _send(self, words: str) -> bytes:
        """Send SQL as it is; the first value of the last result, if it has one.

        Not by a cursor, which would forget all prepared statements at every ROLLBACK.
        """
        if self._raw is None:
            raise Busy(CUT.format(path=self.path), remedy="call again: nothing was written")
        result = self._raw.pgconn.exec_(words.encode())
        if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            return (result.get_value(0, 0) or b"") if result.ntuples else b""
        error = psycopg.errors.error_from_result(result)
        if error.sqlstate is None or error.sqlstate in GONE:
            # The library does not always see at once that nobody is at the other end any more.
            self._raw.close()
        raise error


def _alike(column: Sequence[Value]) -> list[Any]:
    """A column as an array of one type: whole numbers among reals become reals, values of enums plain text."""
    kinds = {type(value) for value in column if value is not None}
    if len(kinds) == 1 and kinds <= {int, float, str}:
        return list(column)
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in column]  # type: ignore[arg-type]
    return [str(value) if isinstance(value, str) else value for value in column]
