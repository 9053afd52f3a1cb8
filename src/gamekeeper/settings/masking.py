"""What must not be shown: passwords in addresses, and values whose name says that they are secret."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from pydantic_core import PydanticCustomError

from gamekeeper.settings.keys import Path

HIDDEN = "***"
_USER_INFO = re.compile(r"(\b\w[\w+.-]{0,30}://[^\s/?#:@]*):[^\s/?#]*@")
_PASSWORD = re.compile(r"\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", re.IGNORECASE)
_SECRET_NAME = re.compile(r"passw|passphrase|secret|token|credential|api_?key|private_?key", re.IGNORECASE)
_SCHEMES = {"postgresql", "postgres"}


def masked(path: Path, value: object) -> object:
    """`value` of the key `path` as it may be shown, with `HIDDEN` in place of every secret in it."""
    if isinstance(value, dict):
        return {key: masked((*path, str(key)), nested) for key, nested in value.items()}
    if isinstance(value, list):
        return [masked(path, nested) for nested in value]
    if not isinstance(value, str) or not value:
        return value
    if path and _SECRET_NAME.search(path[-1]):
        return HIDDEN
    shown = _PASSWORD.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(rf"\g<1>:{HIDDEN}@", value))
    if path == ("store", "url") and "@" in shown and HIDDEN not in shown and not _is_plain(shown):
        return HIDDEN
    return shown


def _is_plain(url: str) -> bool:
    """Whether an address is well formed and holds no password; of any other, nobody knows where its password is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in _SCHEMES and parts.password is None and url.count("@") == 1


def password_in(url: str) -> bool:
    """Whether an accepted database address holds a password."""
    parts = urlsplit(url)
    return bool(parts.password) or "password" in parse_qs(parts.query)


def database_url(url: str) -> str:
    """`url` if it is empty or names a PostgreSQL database; the error never repeats it."""
    if not url:
        return url
    if re.search(r"[\x00-\x20\x7f\ud800-\udfff]", url):
        raise _unfit("it holds a blank or a control character; write those as %20 and the like")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _unfit("it is not an address of the form postgresql://user@host:5432/name") from error
    if parts.scheme not in _SCHEMES:
        raise _unfit('it does not start with "postgresql://"')
    if not parts.path.strip("/") or "/" in parts.path.strip("/"):
        raise _unfit("it names no database: postgresql://user@host:5432/name")
    if port == 0 or parts.fragment:
        raise _unfit('it has port 0, or a "#" that must be written %23')
    return url


def _unfit(reason: str) -> PydanticCustomError:
    return PydanticCustomError("database_url", "{reason}", {"reason": reason})
