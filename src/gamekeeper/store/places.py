"""Where a store is: the name people gave it, and the one that may be shown."""

from __future__ import annotations

from gamekeeper.core.errors import UsageError

SCHEMES = ("postgresql", "postgres")


def is_server(place: str) -> bool:
    """Whether `place` names a PostgreSQL database and no file."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def shown(place: str) -> str:
    """`place` without any secret: user, host, port and database of a server; a file as it is."""
    if not is_server(place):
        return place
    rest, _, query = place.partition("://")[2].partition("?")
    before, _, host = rest.rpartition("@")
    if "@" in query or "@" in before:
        # Nobody knows where the password of an address ends that is not well formed.
        return "postgresql://..."
    user = before.partition(":")[0]
    return f"postgresql://{f'{user}@' if user else ''}{host}"


def need_driver() -> None:
    """Raise `UsageError` unless the driver for PostgreSQL is installed: only those who use a server need it."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"PostgreSQL needs the driver psycopg, which cannot be used here: {error}",
            remedy="pip install 'gamekeeper[postgres]'",
        ) from error
