"""Brings a database to the schema of this version, and refuses what is not ours or is of a later version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gamekeeper.core.errors import Corrupt, Refused
from gamekeeper.store.session import Link
from gamekeeper.store.sqlite import APPLICATION_ID, SqliteLink

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

HEAD = "0002"
FOLDER = Path(__file__).parent / "migrations"


def migrate(link: SqliteLink) -> None:
    """Bring the database behind `link` to `HEAD`, in one transaction.

    Raises `Refused` for a database of another program and for one that a later version wrote.
    """
    version = _version(link)
    if version == HEAD:
        return
    done = False
    # Tables are rebuilt under others that refer to them; what refers to nothing afterwards is refused below.
    link.raw.execute("PRAGMA foreign_keys = OFF")
    link.raw.execute("BEGIN IMMEDIATE")
    try:
        if _version(link) != HEAD:
            _upgrade(link)
            link.raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            dangling = link.raw.execute("PRAGMA foreign_key_check").fetchone()
            if dangling is not None:
                raise Corrupt(
                    f"the store {link.path} cannot be brought to schema {HEAD}: table {dangling[0]} refers to a"
                    f" missing row of {dangling[2]}",
                    remedy="restore it from a backup; nothing was changed",
                )
        link.raw.execute("COMMIT")
        done = True
    finally:
        if not done and link.raw.in_transaction:
            link.raw.execute("ROLLBACK")
        link.raw.execute("PRAGMA foreign_keys = ON")


def version_of(link: Link) -> str | None:
    """The schema's version; `None` for an empty database. Raises `Refused` for one that is not ours."""
    return _version(link) if isinstance(link, SqliteLink) else _server_version(link)


def begin_at(link: Link, version: str) -> None:
    """Make the schema of `version` in an empty database, inside the transaction at hand."""
    if isinstance(link, SqliteLink):
        link.raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    else:
        _make_ours(link)
    _upgrade(link, version)


def upgrade_to(link: Link, version: str) -> None:
    """Bring the schema to `version`, inside the transaction at hand."""
    _upgrade(link, version)


def check_ours(link: SqliteLink) -> None:
    """Raise `Refused` for a database of another program or of a later version; nothing is written to it."""
    _version(link)


def migrate_server(link: Link) -> None:
    """Bring the PostgreSQL database behind `link` to `HEAD`, in one transaction that shuts others out meanwhile.

    Raises `Refused` for a database of another program, for one that a later version wrote, and for one that cannot
    hold all text; `Busy` when two processes make it at the very same time.
    """
    try:
        _migrate_server(link)
    except link.errors as error:
        # Two that make the very first table at once: the database lets one do it, and the other finds it done.
        if getattr(error, "sqlstate", "") not in _MADE_TWICE:
            raise
        _migrate_server(link)


_MADE_TWICE = {"23505", "42P07"}


def _migrate_server(link: Link) -> None:
    link.begin()
    done = False
    try:
        # Importing Alembic takes its time, and another's migration may take minutes.
        link.execute("SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = 0")
        if _server_version(link) != HEAD:
            _make_ours(link)
            # Whoever waited for the lock finds the work done.
            if _server_version(link) != HEAD:
                _upgrade(link)
        link.commit()
        done = True
    finally:
        if not done:
            link.rollback()


_MARK = "Gamekeeper's schema"


def _make_ours(link: Link) -> None:
    encoding = str(link.rows("SHOW server_encoding", ())[0][0])
    if encoding != "UTF8":
        raise Refused(
            f"the store {link.path} is in {encoding}, not in UTF8",
            remedy="create the database with --encoding UTF8",
        )
    # Made by hand, as Alembic would: its table is the lock, so it must be there before Alembic looks.
    link.execute(
        "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL,"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    link.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
    link.execute(f"COMMENT ON TABLE alembic_version IS '{_MARK.replace(chr(39), chr(39) * 2)}'")


def _server_version(link: Link) -> str | None:
    """The schema's version; `None` for an empty database."""
    tables = {
        str(row[0])
        for row in link.rows("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()", ())
    }
    if not tables:
        return None
    marked = "alembic_version" in tables and (
        link.rows("SELECT obj_description('alembic_version'::regclass, 'pg_class')", ())[0][0] == _MARK
    )
    if not marked:
        raise _foreign(link)
    found = link.rows("SELECT version_num FROM alembic_version", ())
    return _checked(link, str(found[0][0])) if found else None


def _version(link: SqliteLink) -> str | None:
    """The schema's version; `None` for an empty database."""
    owner = int(link.raw.execute("PRAGMA application_id").fetchone()[0])
    tables = {row[0] for row in link.raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if owner != APPLICATION_ID:
        if owner or tables:
            raise _foreign(link)
        return None
    found = link.raw.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if found is None else _checked(link, str(found[0]))


def _foreign(link: Link) -> Refused:
    return Refused(
        f"{link.path} is a database of another program",
        remedy="move it away, or choose another data folder or database",
    )


def _checked(link: Link, version: str) -> str:
    if version not in known_versions():
        raise Refused(
            f"the store {link.path} is of a later version of Gamekeeper (schema {version}, this one knows {HEAD})",
            remedy="install that version or a later one",
        )
    return version


def known_versions() -> frozenset[str]:
    """All schema versions this program can bring up to date."""
    return frozenset(path.name.split("_", 1)[0] for path in (FOLDER / "versions").glob("[0-9]*.py"))


def _upgrade(link: Link, head: str = HEAD) -> None:
    # Alembic is slow to import, and a store that is up to date has no need of it.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, script, fn=_steps(script, head)) as environment:
        environment.configure(connection=link.conn)
        environment.run_migrations()


def _steps(script: ScriptDirectory, head: str) -> Callable[[object, MigrationContext], object]:
    def steps(revision: object, context: MigrationContext) -> object:
        return script._upgrade_revs(head, revision)  # type: ignore[arg-type]

    return steps


_template: bytes | None = None


def load_fresh(link: SqliteLink) -> None:
    """Give an empty in-memory database the schema, by copying one that was migrated before in this process."""
    global _template  # noqa: PLW0603
    if _template is None:
        source = SqliteLink(":memory:")
        try:
            migrate(source)
            _template = source.raw.serialize()
        finally:
            source.close()
    link.raw.deserialize(_template)
