"""All rows of a store, out of one engine and into the other."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import MetaData

from gamekeeper.core.errors import Corrupt
from gamekeeper.store.encoding import MAX_JSON
from gamekeeper.store.migration import HEAD, begin_at, upgrade_to
from gamekeeper.store.session import Link
from gamekeeper.store.sqlite import SqliteLink

AT_ONCE = 500
MAX_LINE = 4 * MAX_JSON
_OURS = "alembic_version"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table, each in the order of `columns`."""

    columns: Sequence[str]
    rows: Iterable[list[object]]


def tables_of(link: Link) -> list[str]:
    """The names of all tables of the store, in order."""
    words = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        if isinstance(link, SqliteLink)
        else "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
    )
    return [str(row[0]) for row in link.rows(words, ()) if row[0] != _OURS]


def count_rows(link: Link) -> dict[str, int]:
    """How many rows each table holds."""
    return {
        table: int(link.rows(f"SELECT count(*) FROM {table}", ())[0][0])  # noqa: S608 - tables of ours
        for table in tables_of(link)
    }


def rows_of_link(link: Link) -> Callable[[str], Rows]:
    """Reads tables through a link, in pieces, by their first column: what refers to an earlier row comes after it."""

    def read(table: str) -> Rows:
        conn = link.conn.execution_options(yield_per=AT_ONCE)
        result = conn.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - a table of ours
        return Rows(tuple(result.keys()), (list(row) for row in result))

    return read


def rows_in_file(path: Path, columns: Sequence[str]) -> Rows:
    """The rows in a file with one JSON array a line. Reading raises `Corrupt` for a line that is none."""
    return Rows(tuple(columns), _lines(path, len(columns)))


def _lines(path: Path, width: int) -> Iterator[list[object]]:
    with path.open("rb") as stream:
        for number in itertools.count(1):
            line = stream.readline(MAX_LINE)
            if not line:
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, list) or len(row) != width:
                raise Corrupt(
                    f"line {number} of {path} is no row", remedy="use another backup; nothing was changed"
                )
            yield row


def write_rows(
    link: Link, version: str, rows: Callable[[str], Rows], told: Callable[[str, int, int], None]
) -> None:
    """Make the schema `version` in an empty database, put the rows in, and bring it all to the newest schema."""
    begin_at(link, version)
    known = MetaData()
    known.reflect(link.conn)
    tables = [table for table in known.sorted_tables if table.name != _OURS]
    for table in reversed(tables):
        link.conn.execute(table.delete())
    for done, table in enumerate(tables):
        told("import", done, len(tables))
        found = rows(table.name)
        words = table.insert()
        each = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
        while piece := list(itertools.islice(each, AT_ONCE)):
            link.conn.execute(words, piece)
    told("import", len(tables), len(tables))
    if not isinstance(link, SqliteLink):
        _set_sequences(link, [table.name for table in tables if "id" in table.columns])
    if version != HEAD:
        upgrade_to(link, HEAD)


def _set_sequences(link: Link, tables: list[str]) -> None:
    """Let ids that the server gives go on behind those that are there."""
    for table in tables:
        sequence = link.rows("SELECT pg_get_serial_sequence(%s, 'id')", (table,))[0][0]
        if sequence is not None:
            link.rows(
                f"SELECT setval(%s, coalesce((SELECT max(id) FROM {table}), 0) + 1, false)",  # noqa: S608
                (sequence,),
            )
