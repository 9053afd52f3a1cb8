"""What a function on the store is handed: a snapshot to read, or the one write transaction."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy.engine import Connection

from gamekeeper.core.events import Event, encode
from gamekeeper.store import schema
from gamekeeper.store.encoding import to_json
from gamekeeper.store.statements import Statement, Value, adding, sql


class Row(Protocol):
    """A result row, read by column name."""

    def __getitem__(self, column: str, /) -> Any: ...


class Link(Protocol):
    """One connection: the driver's, for compiled statements, and SQLAlchemy's view of the same one."""

    raw: sqlite3.Connection

    @property
    def conn(self) -> Connection: ...


_NEXT_TOKEN = sql("UPDATE fence SET value = value + 1 WHERE id = 1 RETURNING value")
_LAST_POSITION = sql("SELECT coalesce(max(position), 0) AS position FROM events")
_ADD_EVENT = adding(schema.events)
_ADD_SUBJECT = adding(schema.event_subjects)


class Reading:
    """A snapshot. `now` is the store's clock when it was taken, `conn` a connection for queries of the caller's own."""

    def __init__(self, link: Link, now: float) -> None:
        self._link = link
        self._raw = link.raw
        self.now = now

    @property
    def conn(self) -> Connection:
        """SQLAlchemy's connection, inside the same transaction; it cannot end it."""
        return self._link.conn

    def rows(self, statement: Statement, **values: Value) -> list[Row]:
        """All rows of a query."""
        compiled = statement.compiled()
        return self._raw.execute(compiled.sql, compiled.arguments(values)).fetchall()

    def first(self, statement: Statement, **values: Value) -> Row | None:
        """The only row of a query or of a RETURNING clause, or `None`."""
        found = self.rows(statement, **values)
        return found[0] if found else None

    def number(self, statement: Statement, **values: Value) -> int:
        """The only column of the only row, a whole number; 0 when there is no row."""
        found = self._raw_rows(statement, values)
        return int(found[0][0] or 0) if found else 0

    def _raw_rows(self, statement: Statement, values: Mapping[str, Value]) -> list[Any]:
        compiled = statement.compiled()
        return self._raw.execute(compiled.sql, compiled.arguments(values)).fetchall()


class Writing(Reading):
    """The write transaction of one caller: all of it is committed, or nothing."""

    def __init__(self, link: Link, now: float, rng: random.Random) -> None:
        super().__init__(link, now)
        self.rng = rng
        self._emitted: list[Event] = []
        self._depth = 0

    def run(self, statement: Statement, **values: Value) -> int:
        """Execute a statement; how many rows it changed."""
        compiled = statement.compiled()
        return self._raw.execute(compiled.sql, compiled.arguments(values)).rowcount

    def run_many(self, statement: Statement, many: Sequence[Mapping[str, Value]]) -> None:
        """Execute a statement once for each set of values."""
        if many:
            compiled = statement.compiled()
            self._raw.executemany(compiled.sql, [compiled.arguments(values) for values in many])

    def next_token(self) -> int:
        """A number greater than every one handed out before: a fencing token or an epoch."""
        return self.number(_NEXT_TOKEN)

    def emit(self, event: Event) -> None:
        """Append `event` to the log, in this transaction and in the order of the calls."""
        self._emitted.append(event)

    def flush(self) -> None:
        """Write the events emitted so far; the engine calls it before a commit, readers of the log before they read."""
        if not self._emitted:
            return
        emitted, self._emitted = self._emitted, []
        start = self.number(_LAST_POSITION) + 1
        self.run_many(
            _ADD_EVENT,
            [
                {
                    "position": position, "at": self.now, "name": event.name, "version": event.version,
                    "fields": to_json(encode(event)),
                }
                for position, event in enumerate(emitted, start)
            ],
        )  # fmt: skip
        self.run_many(
            _ADD_SUBJECT,
            [
                {"subject": subject, "position": position}
                for position, event in enumerate(emitted, start)
                for subject in dict.fromkeys(event.subjects())
            ],
        )

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo everything done inside, events too, when an error leaves the block; the error goes on to the caller."""
        self.flush()
        self._depth += 1
        name = f"s{self._depth}"
        self._raw.execute(f"SAVEPOINT {name}")
        done = False
        try:
            yield
            self.flush()
            done = True
        finally:
            self._depth -= 1
            if done:
                self._raw.execute(f"RELEASE {name}")
            elif self._raw.in_transaction:
                self._emitted.clear()
                self._raw.execute(f"ROLLBACK TO {name}")
                self._raw.execute(f"RELEASE {name}")
