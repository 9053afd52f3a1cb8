"""Schema versions: from nothing, again, from a later version, and in step with the tables as the code sees them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from gamekeeper.core.errors import Refused
from gamekeeper.store import migration, schema
from gamekeeper.store.engine import Store
from gamekeeper.store.sqlite import SqliteLink
from tests.unit.store.rig import TurnedClock

_TABLES = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"


def shape(raw: sqlite3.Connection) -> dict[str, list[str]]:
    """All tables and indexes by name, their definitions without white space and the order of their parts."""
    rows = {str(row[1]): "".join(str(row[2]).replace('"', "").split()) for row in raw.execute(_TABLES)}
    return {name: sorted(_parts(words)) for name, words in rows.items() if name != "alembic_version"}


def test_the_migrations_make_the_schema_of_the_code() -> None:
    """Breaks if a table, column, check, key or index is in the code but in no migration, or differs."""
    migrated, created = SqliteLink(":memory:"), SqliteLink(":memory:")
    try:
        migration.migrate(migrated)
        schema.metadata.create_all(created.conn)
        assert shape(migrated.raw) == shape(created.raw)
        context = MigrationContext.configure(migrated.conn, opts={"include_name": _ours})
        assert compare_metadata(context, schema.metadata) == []
    finally:
        migrated.close()
        created.close()


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return not (kind == "table" and name == "alembic_version")


def _parts(definition: str) -> list[str]:
    """A definition split at its outer commas: the order of constraints means nothing."""
    inside, _, ending = definition.partition("(")[2].rpartition(")")
    depth, parts, part = 0, [ending], ""
    for letter in inside:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    """Breaks if a second start migrates, resets or rewrites the store."""
    path = tmp_path / "gamekeeper.db"
    Store.open(path, TurnedClock()).close()
    before = path.read_bytes()
    Store.open(path, TurnedClock()).close()
    assert path.read_bytes() == before


def test_the_head_is_the_newest_version() -> None:
    """Breaks if a migration is added that no store is ever brought to."""
    found = sorted(path.name.split("_", 1)[0] for path in (migration.FOLDER / "versions").glob("*.py"))
    assert found[-1] == migration.HEAD


def test_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Breaks if an old program writes into a store it does not understand."""
    path = tmp_path / "gamekeeper.db"
    Store.open(path, TurnedClock()).close()
    raw = sqlite3.connect(path)
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.commit()
    raw.close()
    with pytest.raises(Refused, match="later version") as caught:
        Store.open(path, TurnedClock())
    assert "install" in caught.value.remedy
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
    raw.close()


def test_a_broken_off_migration_leaves_an_empty_file_that_opens(tmp_path: Path) -> None:
    """Breaks if a crash amid the first start leaves half a schema behind."""
    path = tmp_path / "gamekeeper.db"
    link = SqliteLink(str(path))
    link.raw.execute("PRAGMA journal_mode = WAL")
    link.raw.execute("BEGIN IMMEDIATE")
    migration._upgrade(link)
    link.close()
    raw = sqlite3.connect(path)
    assert raw.execute(_TABLES).fetchall() == []
    raw.close()
    Store.open(path, TurnedClock()).close()


def test_tables_are_strict() -> None:
    """Breaks if a column takes a value of another type."""
    for table in schema.metadata.sorted_tables:
        assert table.dialect_options["sqlite"]["strict"], table.name


def test_the_schema_can_be_written_for_postgresql() -> None:
    """Breaks if a type or index is used that the second engine does not know, or a name is used twice there."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    names: list[str] = []
    tables = MetaData()
    for table in schema.metadata.sorted_tables:
        assert str(CreateTable(table.to_metadata(tables)).compile(dialect=dialect))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
        names += [str(index.name) for index in table.indexes]
        names += [str(each.name) for each in table.constraints if type(each).__name__ == "UniqueConstraint"]
    assert len(names) == len(set(names))
