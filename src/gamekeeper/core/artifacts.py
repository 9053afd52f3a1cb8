"""Artifacts: immutable files named by their content, and what is known about each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gamekeeper.core.errors import UsageError
from gamekeeper.core.receipts import is_hash

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\Z")


class ArtifactKind(StrEnum):
    """What an artifact is for."""

    SHARD = "shard"
    MODEL = "model"
    MATCHES = "matches"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a producer declares about a sealed file. `hash` is BLAKE3-256 in hexadecimal, `bytes` its size."""

    kind: ArtifactKind
    name: str
    hash: str
    bytes: int
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified, visible artifact with its provenance. `games` and `samples` are 0 unless it is a shard."""

    hash: str
    kind: ArtifactKind
    line: str
    name: str
    bytes: int
    games: int
    samples: int
    attempt_id: int
    node_id: str
    metadata: Mapping[str, object]
    created_at: float


def check_manifest(manifest: Manifest, *, bytes_allowed: int) -> None:
    """Raise `UsageError` when a declared manifest cannot be right, naming the field."""
    if not is_hash(manifest.hash):
        raise UsageError(f"artifact hash {manifest.hash!r:.80} is not 64 hexadecimal digits")
    if not NAME_PATTERN.match(manifest.name):
        raise UsageError(
            f"artifact name {manifest.name!r:.80} is not a plain file name",
            remedy="use letters, digits, '.', '_' and '-'",
        )
    if not 0 < manifest.bytes <= bytes_allowed:
        raise UsageError(
            f"artifact {manifest.name} declares {manifest.bytes} bytes; 1 to {bytes_allowed} are allowed",
            remedy="publish smaller files, or raise [artifacts] max_bytes",
        )


@dataclass(frozen=True, slots=True)
class Upload:
    """Names the bytes of one file on their way in. The token fences them: no two attempts share an upload."""

    attempt: int
    token: int
    hash: str

    def check(self) -> None:
        """Raise `UsageError` when a part cannot be right."""
        if not (0 < self.attempt < 1 << 63 and 0 < self.token < 1 << 63 and is_hash(self.hash)):
            raise UsageError("an upload is named by attempt, token and a hash of 64 hexadecimal digits")
