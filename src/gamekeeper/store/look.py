"""Looking at a store from outside of the coordinator: whether it is sound, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gamekeeper.core.errors import Corrupt
from gamekeeper.store import integrity
from gamekeeper.store.migration import HEAD, version_of
from gamekeeper.store.session import Link, Reading, worded
from gamekeeper.store.sqlite import SqliteLink
from gamekeeper.store.transfer import count_rows


@dataclass(frozen=True, slots=True)
class Checked:
    """The schema found, what is wrong, and whether the rules were checked too: they speak of the newest schema."""

    schema: str
    problems: list[str]
    complete: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store is and holds."""

    engine: str
    schema: str
    bytes: int
    fence: int
    roles: list[dict[str, object]]
    counts: dict[str, int]

    def as_json(self) -> dict[str, object]:
        """The facts as a JSON object."""
        return {
            "engine": self.engine, "schema": self.schema, "bytes": self.bytes, "fence": self.fence,
            "roles": self.roles, "counts": self.counts,
        }  # fmt: skip


@contextmanager
def open_file(path: Path) -> Iterator[SqliteLink]:
    """A link that can only read the SQLite store at `path`; the driver's errors in it are told in the store's words."""
    link = SqliteLink(str(path), read_only=True)
    try:
        with worded(link):
            link.prepare()
            yield link
    finally:
        link.close()


def checked(link: Link) -> Checked:
    """Scan a store, on one snapshot. Damage that keeps it from being scanned is among the problems."""
    schema = "unknown"
    try:
        with worded(link):
            link.begin_reading()
            schema = version_of(link) or "none"
        r = Reading(link, 0.0)
        with worded(link):
            problems = integrity.check(r) if schema == HEAD else integrity.damage(r)
    except Corrupt as error:
        problems = [error.message]
    finally:
        link.rollback()
    return Checked(schema, problems, schema == HEAD)


def facts(link: Link) -> Facts:
    """What a store is and holds, on one snapshot."""
    link.begin_reading()
    try:
        schema = version_of(link) or "none"
        file = isinstance(link, SqliteLink)
        size = _FILE_SIZE if file else "SELECT pg_database_size(current_database())"
        roles = link.rows("SELECT role, holder, epoch FROM roles WHERE released = 0 ORDER BY role", ())
        fence = link.rows("SELECT value FROM counters WHERE name = 'fence'", ()) if schema == HEAD else []
        return Facts(
            "sqlite" if file else "postgresql", schema, int(link.rows(size, ())[0][0]),
            int(fence[0][0]) if fence else 0,
            [{"role": row[0], "holder": row[1], "epoch": row[2]} for row in roles], count_rows(link),
        )  # fmt: skip
    finally:
        link.rollback()


_FILE_SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
