"""What a function on the store is handed: a snapshot to read, or the one write transaction."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError

from gamekeeper.core.errors import GamekeeperError
from gamekeeper.core.event import Event
from gamekeeper.core.events import (
    AgentConnected,
    AttemptEnded,
    CoordinatorStarted,
    JobEnded,
    JobSubmitted,
    as_json,
)
from gamekeeper.store import schema
from gamekeeper.store.statements import Compiled, Statement, Value, adding, sql


class Row(Protocol):
    """A result row, read by column name, or as a whole in the order of its columns."""

    def __getitem__(self, column: str, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Link(Protocol):
    """One connection to an engine, and SQLAlchemy's view of the same one."""

    @property
    def path(self) -> str:
        """What people know the database by; no secret is in it."""

    @property
    def errors(self) -> type[Exception]:
        """The root of its driver's errors."""

    @property
    def dialect(self) -> Dialect:
        """The language it speaks: one of those in `statements`."""

    @property
    def conn(self) -> Connection:
        """SQLAlchemy's connection, inside the same transaction; it cannot end it."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open: some errors end it."""

    def begin(self) -> float | None:
        """Begin the write transaction: the time by the database's clock, `None` where the caller's clock counts."""

    def begin_reading(self) -> float | None:
        """Begin a snapshot that cannot write; answers as `begin`."""

    def commit(self) -> None:
        """Make the transaction durable."""

    def rollback(self) -> None:
        """Undo the transaction, if one is open."""

    def hint(self) -> None:
        """Let other processes look sooner, once this transaction is committed."""

    def meaning(self, error: Exception) -> GamekeeperError | None:
        """What an error of the driver means to a person; `None` when it is a fault of the program, or no driver's."""

    def check_sound(self) -> None:
        """Raise when the transaction can no longer be committed, because an error in it was passed over."""

    def execute(self, words: str) -> None:
        """Run SQL without parameters and results."""

    def rows(self, words: str, values: Sequence[Value]) -> list[Any]:
        """Run a query: its rows, read by column name or place."""

    def run(self, words: str, values: Sequence[Value]) -> int:
        """Run a change: how many rows it touched."""

    def run_many(self, compiled: Compiled, many: Sequence[Sequence[Value]]) -> int:
        """Run a change once for each row of values: how many rows it touched in all."""


def in_words(error: BaseException, link: Link) -> BaseException:
    """`error`, or what it means to a person when it came from the database driver."""
    driver = error.orig if isinstance(error, DBAPIError) else error
    meaning = link.meaning(driver) if isinstance(driver, Exception) else None
    if meaning is None:
        return error
    meaning.__cause__ = error
    return meaning


@contextmanager
def worded(link: Link) -> Iterator[None]:
    """Raise the driver's errors as the store's."""
    try:
        yield
    except (DBAPIError, link.errors) as error:
        meaning = in_words(error, link)
        if meaning is error:
            raise
        raise meaning from error


# Events after which there is work to give out, or room for it.
HINTING = frozenset(
    kind.name for kind in (AgentConnected, AttemptEnded, CoordinatorStarted, JobEnded, JobSubmitted)
)

_TAKE = sql("UPDATE counters SET value = value + :n WHERE name = :name RETURNING value")
_ADD_EVENT = adding(schema.events)
_ADD_SUBJECT = adding(schema.event_subjects)


class Reading:
    """A snapshot. `now` is the store's clock when it was taken, `conn` a connection for queries of the caller's own."""

    def __init__(self, link: Link, now: float) -> None:
        self._link = link
        self._dialect = link.dialect
        self.now = now

    @property
    def conn(self) -> Connection:
        """SQLAlchemy's connection, inside the same transaction; it cannot end it."""
        return self._link.conn

    @property
    def dialect(self) -> Dialect:
        """The language of the engine at hand."""
        return self._dialect

    def rows(self, statement: Statement, **values: Value) -> list[Row]:
        """All rows of a query."""
        compiled = statement.compiled(self._dialect)
        return self._link.rows(*compiled.call(values))

    def first(self, statement: Statement, **values: Value) -> Row | None:
        """The only row of a query or of a RETURNING clause, or `None`."""
        found = self.rows(statement, **values)
        return found[0] if found else None

    def number(self, statement: Statement, **values: Value) -> int:
        """The first column of the only row, a whole number; 0 when there is no row."""
        compiled = statement.compiled(self._dialect)
        found = self._link.rows(*compiled.call(values))
        return int(next(iter(tuple(found[0]))) or 0) if found else 0


class Writing(Reading):
    """The write transaction of one caller: all of it is committed, or nothing."""

    def __init__(self, link: Link, now: float, rng: random.Random) -> None:
        super().__init__(link, now)
        self.rng = rng
        self._emitted: list[Event] = []
        self._depth = 0

    def run(self, statement: Statement, **values: Value) -> int:
        """Execute a statement; how many rows it changed."""
        compiled = statement.compiled(self._dialect)
        return self._link.run(*compiled.call(values))

    def run_many(self, statement: Statement, many: Sequence[Mapping[str, Value]]) -> int:
        """Execute a statement once for each set of values; how many rows were changed in all."""
        if not many:
            return 0
        compiled = statement.compiled(self._dialect)
        return self._link.run_many(compiled, [compiled.arguments(values) for values in many])

    def run_rows(self, statement: Statement, names: Sequence[str], rows: Sequence[Sequence[Value]]) -> int:
        """`run_many` for values as plain rows in the order of `names`: the fast way for many."""
        if not rows:
            return 0
        compiled = statement.compiled(self._dialect)
        if tuple(names) != compiled.names:
            order = [names.index(name) for name in compiled.names]
            rows = [[row[place] for place in order] for row in rows]
        return self._link.run_many(compiled, rows)

    def next_token(self) -> int:
        """A number greater than every one handed out before: a fencing token or an epoch."""
        return self.take("fence", 1)

    def take(self, counter: str, n: int) -> int:
        """Take the next `n` numbers of a counter: the last of them."""
        return self.number(_TAKE, name=counter, n=n)

    def emit(self, event: Event) -> None:
        """Append `event` to the log, in this transaction and in the order of the calls."""
        self._emitted.append(event)

    def flush(self) -> None:
        """Write the events emitted so far; the engine calls it before a commit, readers of the log before they read."""
        if not self._emitted:
            return
        emitted, self._emitted = self._emitted, []
        if any(event.name in HINTING for event in emitted):
            self.hint()
        start = self.take("events", len(emitted)) - len(emitted) + 1
        self.run_rows(
            _ADD_EVENT,
            ("position", "at", "name", "version", "fields"),
            [
                (position, self.now, event.name, event.version, as_json(event))
                for position, event in enumerate(emitted, start)
            ],
        )
        self.run_rows(
            _ADD_SUBJECT,
            ("subject", "position"),
            [
                (subject, position)
                for position, event in enumerate(emitted, start)
                for subject in dict.fromkeys(event.subjects())
            ],
        )

    def hint(self) -> None:
        """Let other processes on this store look sooner, once this is committed. Nothing depends on it."""
        self._link.hint()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo everything done inside, events too, when an error leaves the block; the error goes on to the caller."""
        self.flush()
        self._depth += 1
        name = f"s{self._depth}"
        self._link.execute(f"SAVEPOINT {name}")
        done = False
        try:
            yield
            self.flush()
            self._link.check_sound()
            done = True
        finally:
            self._depth -= 1
            if done:
                self._link.execute(f"RELEASE {name}")
            elif self._link.in_transaction:
                self._emitted.clear()
                self._link.execute(f"ROLLBACK TO {name}")
                self._link.execute(f"RELEASE {name}")
