"""What the errors of a PostgreSQL server mean to a person."""

from __future__ import annotations

import psycopg

from gamekeeper.core.errors import (
    Busy,
    Corrupt,
    GamekeeperError,
    NotAllowed,
    Refused,
    StorageFull,
    UsageError,
)

CUT = "the connection to the store {path} was lost before a commit"
COMMIT_CUT = "the connection to the store {path} was lost during a commit: whether it was applied is unknown"

# The server ended the connection together with the statement.
GONE = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"}

_FULL = {"53100"}
_DAMAGED = {"XX001", "XX002", "58030"}
# Deadlock and serialisation; locks not to be had; shutting down, starting up; too many connections; out of memory;
# cancelled; thrown out for idleness.
_BUSY = {
    "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "53300", "53200", "57014", "25P03", "25P04",
}  # fmt: skip
_READ_ONLY = {"25006", "42501"}
_UNFIT = {"22021", "22P05", "22003", "22P02"}


def said_by_server(error: psycopg.Error, path: str, *, connecting: bool = False) -> GamekeeperError | None:
    """The error in the store's words; `None` when it is a fault of the program."""
    code = error.sqlstate or ""
    words = " ".join(str(error).split())[:300]
    if connecting or code.startswith(("28", "3D")):
        return _at_the_door(code, words, path)
    if code in _FULL:
        return StorageFull(
            f"the store {path} cannot be written: {words}",
            remedy="free disk space on the database's server, then try again; nothing was written",
        )
    if code in _DAMAGED:
        return Corrupt(
            f"the store {path} is damaged: {words}",
            remedy="restore it from a backup (gamekeeper store restore)",
        )
    if code in _BUSY or code.startswith("08"):
        return Busy(
            f"the store {path} could not do it now: {words}", remedy="call again: nothing was written"
        )
    if code in _READ_ONLY:
        return NotAllowed(
            f"the store {path} may not be written: {words}",
            remedy="give its role the right to write, or name the primary server",
        )
    if code in _UNFIT or (isinstance(error, psycopg.DataError) and not code):
        return UsageError(f"a value cannot be stored: {words}")
    if not code and not isinstance(error, psycopg.ProgrammingError | psycopg.NotSupportedError):
        return Busy(CUT.format(path=path), remedy="call again: nothing was written")
    return None


def _at_the_door(code: str, words: str, path: str) -> GamekeeperError:
    lower = words.lower()
    if code.startswith("28") or any(
        part in lower for part in ("authentication failed", "no password", "no pg_hba.conf entry", "role ")
    ):
        return NotAllowed(
            f"the server of the store {path} does not let us in: {words}",
            remedy="correct user and password (in the address, PGPASSWORD or ~/.pgpass), or pg_hba.conf",
        )
    if code == "3D000" or ("database" in lower and "does not exist" in lower):
        return UsageError(
            f"the store {path} does not exist: {words}",
            remedy="create the database (createdb NAME), or correct the address",
        )
    if "read-only" in lower or "hot standby" in lower:
        return NotAllowed(
            f"the store {path} may not be written: {words}", remedy="name the primary server in the address"
        )
    if "could not translate host name" in lower or "invalid" in lower:
        return UsageError(
            f"the server of the store {path} cannot be found: {words}",
            remedy="correct the address of the store",
        )
    return Busy(
        f"the store {path} does not answer: {words}",
        remedy="see that PostgreSQL runs and can be reached from here",
        retry_after_s=2.0,
    )


def not_utf8(path: str, encoding: str) -> Refused:
    """A database that cannot hold all text."""
    return Refused(
        f"the store {path} is in {encoding}, not in UTF8", remedy="create the database with --encoding UTF8"
    )
