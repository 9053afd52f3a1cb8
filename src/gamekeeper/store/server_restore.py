"""A backup put in place of what a PostgreSQL database holds, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import Refused, RoleHeld
from gamekeeper.store.backup import Manifest, Told, restore_to_server
from gamekeeper.store.migration import version_of
from gamekeeper.store.postgres import PostgresLink, Server
from gamekeeper.store.session import worded

IDLE_S = 3600.0


@contextmanager
def server_link(url: str, passfile: str) -> Iterator[PostgresLink]:
    """A link for long work; the driver's errors in it are told in the store's words."""
    link = PostgresLink(Server.named(url, SystemClock(), idle_s=IDLE_S, passfile=passfile))
    try:
        with worded(link):
            yield link
    finally:
        link.close()


def restore_to_schema(
    link: PostgresLink, folder: Path, manifest: Manifest, *, force: bool, told: Told
) -> str | None:
    """Make the store from a backup; the name of the schema to which an earlier one was set aside.

    Raises `RoleHeld` while a coordinator's lease runs, `Refused` when there is a store and not `force`.
    """
    now = link.begin()
    try:
        schema = str(link.rows("SELECT current_schema()", ())[0][0])
        aside = None
        if version_of(link) is not None:
            # Nobody begins to write between this look and the end.
            link.execute("LOCK TABLE roles IN ACCESS EXCLUSIVE MODE")
            held = link.rows(
                "SELECT role, holder FROM roles WHERE released = 0 AND expires_at > %s LIMIT 1", (now,)
            )
            if held:
                raise RoleHeld(
                    f"the role {held[0][0]} of the store {link.path} is held by {held[0][1]}",
                    remedy="stop every coordinator first, and wait for the lease of a killed one to run out",
                )
            if not force:
                raise Refused(
                    f"there is a store at {link.path} already",
                    remedy="use --force to set it aside and put the backup in its place",
                )
            aside = _set_aside(link, schema)
        restore_to_server(folder, manifest, link, told)
        link.commit()
    finally:
        link.rollback()
    return aside


def _set_aside(link: PostgresLink, schema: str) -> str:
    known = {str(row[0]) for row in link.rows("SELECT nspname FROM pg_namespace", ())}
    number = 1
    while (aside := f"{schema}_before_restore_{number}") in known:
        number += 1
    link.execute(f'ALTER SCHEMA "{schema}" RENAME TO "{aside}"')
    link.execute(f'CREATE SCHEMA "{schema}"')
    return aside
