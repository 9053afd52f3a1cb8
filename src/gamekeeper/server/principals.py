"""Who is calling: secrets, how they are kept (hashed), and what each kind of caller may do."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum

from blake3 import blake3

from gamekeeper.core.errors import NotAllowed

ADMIN_TOKEN = "admin"  # noqa: S105 - the name of a token
JOIN_TOKEN = "join"  # noqa: S105 - the name of a token
MAX_SECRET = 200


class Right(StrEnum):
    """What a caller may do: everything people do, enrol a machine, or act for one enrolled node."""

    ADMIN = "admin"
    JOIN = "join"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose secret was verified. `node_id` is set for the right `node` only."""

    right: Right
    node_id: str = ""


class Unauthenticated(NotAllowed):
    """No secret was shown, or nobody's."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A caller who is held for `node_id` until the transaction that serves the call has looked at the credential."""

    node_id: str
    credential_hash: str


class Unrecognised(Exception):
    """The credential shown is not, or not any more, that of the node it was held for. Nothing was done."""


def mint_secret() -> str:
    """A fresh secret of 256 random bits, printable."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """What is stored of a secret. Secrets are random and long, so a plain fast hash hides them."""
    return blake3(secret.encode("utf-8", "surrogatepass")).hexdigest()


def same_hash(stored: str | None, shown: str) -> bool:
    """Compare two hashes in a time that tells nothing about either."""
    return stored is not None and hmac.compare_digest(stored.encode(), shown.encode())
