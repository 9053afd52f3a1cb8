"""Where a store is: the name people gave it, and the one that may be shown."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

SCHEMES = ("postgresql", "postgres")


def is_server(place: str) -> bool:
    """Whether `place` names a PostgreSQL database and no file."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def shown(place: str) -> str:
    """`place` without any secret: user, host, port and database of a server; a file as it is."""
    if not is_server(place):
        return place
    rest = place.partition("://")[2]
    # Everything before the last "@" of the authority may be a password, also in an address that is not well formed.
    host = rest.rpartition("@")[2].partition("?")[0]
    user = ""
    with contextlib.suppress(ValueError):
        user = urlsplit(place).username or ""
    return f"postgresql://{f'{user}@' if user else ''}{host}"
