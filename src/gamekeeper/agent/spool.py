"""The spool: the sealed files of a job's outbox, found, hashed and shipped.

A file counts from the moment its seal appears. It is shipped in chunks from the offset the coordinator already has, so
a broken transfer goes on where it stopped, and a repeated one changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from blake3 import blake3
from pydantic import JsonValue

from gamekeeper.agent.attempt_dir import decode, read_plain
from gamekeeper.agent.messages import SealedFile
from gamekeeper.agent.transport import Coordinator
from gamekeeper.core.artifacts import NAME_PATTERN, ArtifactKind
from gamekeeper.core.errors import Corrupt, Unreachable, UsageError
from gamekeeper.core.receipts import is_hash
from gamekeeper.protocol import SealArtifact

SEAL_BYTES = 1 << 20
CHUNK_BYTES = 4 << 20
FILES_MOST = 10_000
STALLS_MOST = 3
_SEAL = ".seal"


@dataclass(frozen=True, slots=True)
class UnusableSeal:
    """A seal that cannot be honoured, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class ShipVerdict:
    """What became of a file: its hash, and the problem ("" when it was accepted) with the words for it."""

    digest: str
    problem: str = ""
    detail: str = ""


def scan(outbox: Path, seen: AbstractSet[str]) -> list[SealedFile | UnusableSeal]:
    """The sealed files that are not in `seen`, by name. An outbox that is gone holds none."""
    try:
        with os.scandir(outbox) as entries:
            names = sorted(entry.name.removesuffix(_SEAL) for entry in entries if entry.name.endswith(_SEAL))
    except OSError:
        return []
    fresh = [name for name in names if name not in seen]
    found: list[SealedFile | UnusableSeal] = []
    for name in fresh[: max(0, FILES_MOST - len(seen))]:
        try:
            found.append(_sealed(outbox, name))
        except (OSError, UsageError) as error:
            plain = name.encode("utf-8", "replace").decode()
            found.append(UnusableSeal(plain[:120], str(error)[:300].encode("utf-8", "replace").decode()))
    return found


def _sealed(outbox: Path, name: str) -> SealedFile:
    """Raises `UsageError` when the seal or its file is not as the contract has it."""
    if not NAME_PATTERN.match(name):
        raise UsageError("the name may hold letters, digits, '.', '_' and '-' only")
    seal = decode(read_plain(outbox / f"{name}{_SEAL}", SEAL_BYTES))
    if not isinstance(seal, dict):
        raise UsageError("its seal is not a JSON object")
    kind, size, digest, metadata = (seal.get(key) for key in ("artifact", "bytes", "hash", "metadata"))
    if not isinstance(kind, str) or kind not in set(ArtifactKind):
        raise UsageError(f"its seal names no known kind of artifact: {kind!r:.40}")
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise UsageError(f"its seal declares {size!r:.40} bytes")
    if digest is not None and not is_hash(digest):
        raise UsageError("its seal declares a hash that is none")
    if not isinstance(metadata, dict):
        raise UsageError("its seal has no metadata object")
    found = os.lstat(outbox / name)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError("it is not a plain file")
    if found.st_size != size:
        raise UsageError(f"it has {found.st_size} bytes, its seal declares {size}")
    declared: dict[str, JsonValue] = metadata
    return SealedFile(name, ArtifactKind(kind), size, str(digest) if digest else None, declared)


def digest_of(path: Path) -> tuple[str, int]:
    """BLAKE3 of a plain file in hexadecimal, and its size. Read, not mapped: a file cut short must not kill us."""
    hasher = blake3()
    size = 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(fd, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            hasher.update(piece)
            size += len(piece)
    return hasher.hexdigest(), size


def _chunk(path: Path, offset: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return os.pread(fd, CHUNK_BYTES, offset)
    finally:
        os.close(fd)


async def ship(
    coordinator: Coordinator, path: Path, attempt: int, token: int, file: SealedFile
) -> ShipVerdict:
    """Upload `path` and return the coordinator's verdict.

    A file that is no longer what its seal declared is refused here. Raises `GamekeeperError` as the
    calls do, and `OSError` when the file cannot be read.
    """
    digest, size = await anyio.to_thread.run_sync(digest_of, path)
    if size != file.bytes:
        return ShipVerdict(digest, "size", f"it has {size} bytes, its seal declares {file.bytes}")
    if file.hash is not None and file.hash != digest:
        return ShipVerdict(digest, "hash", f"its content hashes to {digest}, its seal declares {file.hash}")
    state = await coordinator.upload_state(attempt, token, digest)
    stalls = 0
    while not state.complete and state.offset < size:
        chunk = await anyio.to_thread.run_sync(_chunk, path, state.offset)
        if not chunk:
            return ShipVerdict(digest, "size", "it was cut short while it was shipped")
        before = state.offset
        state = await coordinator.put_chunk(attempt, token, digest, offset=before, chunk=chunk)
        stalls = stalls + 1 if state.offset <= before else 0
        if stalls >= STALLS_MOST:
            raise Unreachable(f"the upload of {file.name} does not get past byte {before}")
    if state.complete:
        return ShipVerdict(digest)
    message = SealArtifact(kind=file.kind, name=file.name, bytes=size, metadata=dict(file.metadata))
    sealed = await coordinator.seal(attempt, token, digest, message)
    if sealed.accepted:
        return ShipVerdict(digest)
    return ShipVerdict(digest, sealed.problem or "refused", sealed.detail)


def check(path: Path, digest: str) -> None:
    """Raise `Corrupt` unless the file's content has this hash."""
    found, _ = digest_of(path)
    if found != digest:
        raise Corrupt(f"{path.name} hashes to {found}, not to {digest}")
